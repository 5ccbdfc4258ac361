"""The function that relevance patching differentiates, written out: a forward pass in which what a first run found of
norms, attention, activations and gates stands still.

Every part is linear in what it reads, but for biases. So an edge, or a component, exchanged in it changes the score by
what relevance patching says, exactly and with no gradient taken. In float64, on transformers' weights.
"""

import torch

from edge_oracle import Oracle


class ConstantNorm:
    """A norm of transformers or torch with the denominator of the first input that it gets."""

    def __init__(self, module):
        self.module, self.scale = module, None

    def __call__(self, x):
        if isinstance(self.module, torch.nn.Identity):
            return x
        centred = isinstance(self.module, torch.nn.LayerNorm)
        y = x - x.mean(-1, keepdim=True) if centred else x
        if self.scale is None:
            eps = getattr(self.module, "variance_epsilon", None) or self.module.eps
            self.scale = 1 / (y.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        weight = self.module.weight + type(self.module).__name__.startswith("Gemma")
        return y * self.scale * weight + (self.module.bias if centred else 0)


class FrozenOracle(Oracle):
    """Of a model, at what ``tokens`` [N, S] make of it."""

    def __init__(self, model, tokens, behind=None):
        super().__init__(model, behind)
        self.norms = [[ConstantNorm(norm) for norm in pair] for pair in self.norms]
        self.behind = self.behind and [[ConstantNorm(norm) for norm in pair] for pair in self.behind]
        self.final, self.held = ConstantNorm(self.final), {}
        with torch.no_grad():
            self.clean_logits, self.clean, _ = self.run(tokens)

    def once(self, key, value):
        """What was held first under this key."""
        return self.held.setdefault(key, value)

    def pattern(self, layer, h, scores):
        return self.once(("pattern", layer, h), super().pattern(layer, h, scores))

    def straight(self, key, function, x):
        return x * self.once(key, function(x) / x)

    def capped(self, logits):
        return self.straight("cap", super().capped, logits) if self.option("final") else logits

    def mlp(self, layer, block, x):
        mlp, read = block.mlp, self.norms[layer][1](x)
        if hasattr(mlp, "gate_proj"):
            act = self.straight(("act", layer), mlp.act_fn, mlp.gate_proj(read))
            up = mlp.up_proj(read)
            inner = (act * self.once(("up", layer), up) + self.once(("gate", layer), act) * up) / 2
            out = mlp.down_proj(inner)
        else:
            first, last = (mlp.c_fc, mlp.c_proj) if self.family == "gpt2" else (mlp.dense_h_to_4h, mlp.dense_4h_to_h)
            out = last(self.straight(("act", layer), mlp.act, first(read)))
        return self.behind[layer][1](out) if self.behind else out
