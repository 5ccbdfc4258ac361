"""Heads ablated by TransformerLens hooks in texts that are read whole, as generation is held against."""

from atlas.model.models import z_hook


def hooks(heads, means, prompt, n_layers):
    """Of every layer: ``heads`` zero at all tokens, or at their ``means`` [L, S, H, d_head] at the first ``prompt``."""

    def ablate(z, hook):
        z, layer = z.clone(), int(hook.name.split(".")[1])
        for head in heads:
            if head.layer == layer and means is None:
                z[:, :, head.head] = 0
            elif head.layer == layer:
                z[:, :prompt, head.head] = means[layer, :, head.head]
        return z

    return [(z_hook(layer), ablate) for layer in range(n_layers)]
