"""Ablation by hooks on whole forward passes: the slow way, where there is no engine, and the oracle of tests."""

from collections.abc import Callable, Iterator

import torch

from atlas.circuit.replacement import Replacement
from atlas.core.components import Circuit, Component, Site, all_components
from atlas.model import engine
from atlas.model.models import Hook, Model, mlp_hook, z_hook


def edits(
    model: Model,
    circuit: Circuit,
    substitute: Replacement,
    batch: slice = slice(None),
    roles: dict[str, torch.Tensor] | None = None,
) -> Iterator[Hook]:
    """Hooks that replace everything outside ``circuit`` for the prompts of ``batch``.

    ``roles``: role -> mask [1 or n, S], where a component of which only sites are kept is left as it is.
    """
    read = substitute.reader(batch)
    outside = [c for c in all_components(model.n_layers, model.n_heads) if c not in circuit]

    def put(x: torch.Tensor, values: torch.Tensor, kept: list[Site]) -> torch.Tensor:
        """``values`` in place of x [n, S, ...], but at the positions of kept sites."""
        values = values.to(x.dtype).expand_as(x)
        if not kept:
            return values
        mask = engine.where_kept([site.role for site in kept], roles)
        return torch.where(mask.view(*mask.shape, *[1] * (x.dim() - 2)), x, values)

    def replace_heads(layer: int, heads: dict[int, list[Site]]) -> Callable[..., torch.Tensor]:
        def hook(z: torch.Tensor, hook: object) -> torch.Tensor:
            z = z.clone()
            for head, kept in heads.items():
                z[:, :, head] = put(z[:, :, head], read("z", layer)[:, :, head], kept)
            return z

        return hook

    def replace_mlp(layer: int, kept: list[Site]) -> Callable[..., torch.Tensor]:
        return lambda out, hook: put(out, read("mlp_out", layer), kept)

    kept: dict[Component, list[Site]] = {c: [] for c in outside}
    for site in circuit:
        if isinstance(site, Site) and site.component in kept:
            kept[site.component].append(site)
    for layer in range(model.n_layers):
        heads = {c.head: kept[c] for c in outside if c.layer == layer and not c.is_mlp}
        if heads:
            yield z_hook(layer), replace_heads(layer, heads)
        if Component(layer) in kept:
            yield mlp_hook(layer), replace_mlp(layer, kept[Component(layer)])
