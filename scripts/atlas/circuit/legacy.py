"""Ablation as the published code did it (`search.legacy_mlp_means`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from atlas.circuit.ablation import Ablator, Replacement, edits
from atlas.core.components import AnyCircuit
from atlas.model.models import Model, mlp_hook
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    from atlas.store.memo import Memo


class LegacyAblator(Ablator):
    """As the published code: MLP means are taken anew for each circuit, with the heads outside it mean-ablated.

    ``reference`` are the corrupted prompts that the means run over, with their own head means.
    """

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        substitute: Replacement,
        reference: Prompts,
        metrics: Iterable[str] = ("logit_diff",),
        use_engine: bool = True,
        memo: Memo | None = None,
    ) -> None:
        self.reference = replace(reference, tokens=reference.corrupted_tokens)
        self._reference_rows = replace(substitute, rows=reference.group).to(model.device)
        self._means: dict[AnyCircuit, Replacement] = {}
        super().__init__(model, prompts, substitute, metrics, use_engine, memo)

    def substitute_for(self, circuit: AnyCircuit) -> Replacement:
        kept_heads = frozenset(c for c in circuit if not c.is_mlp)
        if kept_heads not in self._means:
            intact = kept_heads | {c for c in self.everything if c.is_mlp}
            total = torch.zeros_like(self.substitute.mlp_out, dtype=torch.float64)
            group = self.reference.group.to(self.model.device)

            def add(layer: int, rows: torch.Tensor) -> Callable[..., torch.Tensor]:
                def hook(out: torch.Tensor, hook: object) -> torch.Tensor:
                    total[layer].index_add_(0, rows, out.double())
                    return out

                return hook

            for batch in self.model.batches(len(self.reference)):
                savers = [(mlp_hook(layer), add(layer, group[batch])) for layer in range(self.model.n_layers)]
                head_edits = edits(self.model, intact, self._reference_rows, batch, self.reference.roles)
                self.model.run(self.reference.tokens[batch], [*head_edits, *savers], on_bridge=not self.engine)
            sizes = torch.bincount(group, minlength=total.shape[1]).view(1, -1, 1, 1)
            self._means[kept_heads] = replace(self.substitute, mlp_out=(total / sizes).float())
        return self._means[kept_heads]
