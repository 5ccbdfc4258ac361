"""Ablation as the published code did it (`search.legacy_mlp_means`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.hooks import edits
from atlas.circuit.replacement import Replacement
from atlas.core.components import AnyCircuit, Circuit
from atlas.model import engine
from atlas.model.live import LiveRun, last_head, prefixes
from atlas.model.models import Model, mlp_hook, slices
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    from atlas.store.memo import Memo


@dataclass(frozen=True)
class MeansOnDemand(Replacement):
    """A Replacement whose MLP means are made when they are read: ``mean_of(layer)`` gives [R, S, D]."""

    mean_of: Callable[[int], torch.Tensor]

    def reader(self, batch: slice) -> engine.Substitute:
        rows, read_heads = self.rows[batch], super().reader(batch)

        def read(name: str, layer: int) -> torch.Tensor:
            if name != "mlp_out":
                return read_heads(name, layer)
            values = self.mean_of(layer)
            return values if len(values) == 1 else values[rows]

        return read


class LegacyAblator(Ablator):
    """As the published code: MLP means are taken anew for each circuit, with the heads outside it mean-ablated.

    ``reference`` are the corrupted prompts that the means run over, with their own head means.

    The mean of layer l depends on the heads that are kept up to l alone. The live engine makes it of a run of the
    corrupted prompts that starts where the kept heads change and ends at l, and only where l's MLP is ablated; above
    the last head that the circuit keeps it is made for the last position alone, and is NaN at the others, which nothing
    reads. Hooks take all means of a circuit in one whole pass.
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
        self.group = reference.group.to(model.device)
        self.sizes = torch.bincount(self.group, minlength=substitute.mlp_out.shape[1]).view(-1, 1, 1)
        self._means: dict[AnyCircuit, Replacement] = {}
        super().__init__(model, prompts, substitute, metrics, use_engine, memo)

    def remembered_bytes(self) -> int:
        """Half of it: the other half is for the corrupted prompts."""
        return super().remembered_bytes() // 2

    def split(self, batch_size: int) -> None:
        super().split(batch_size)
        self.corrupted: list[tuple[slice, LiveRun]] = []
        self.made = engine.Memory(self.remembered_bytes() // 4)  # (layer, everywhere?, circuit up to it) -> mean
        if not self.engine:
            return
        tokens, batches = self.reference.tokens.to(self.model.device), slices(len(self.reference), batch_size)
        budget = (self.remembered_bytes() - self.made.budget) // len(batches)
        for batch in batches:
            roles = {name: m if len(m) == 1 else m[batch] for name, m in (self.reference.roles or {}).items()}
            self.corrupted.append((batch, LiveRun(self.engine, tokens[batch], None, budget, roles or None)))

    def forget(self) -> None:
        super().forget()
        self.made.clear()
        for _, run in self.corrupted:
            run.clear()

    def substitute_for(self, circuit: AnyCircuit) -> Replacement:
        if not self.engine:
            return self.by_hooks(circuit)
        kept = self.intact(circuit)
        alike = self.at is None and self.reference.tokens.shape[1] == self.rows.tokens.shape[1]
        mean_of = partial(self.mean_of, circuit=kept, top=last_head(kept) if alike else self.model.n_layers)
        return MeansOnDemand(self.substitute.z, self.substitute.mlp_out, self.substitute.rows, mean_of)

    def intact(self, circuit: AnyCircuit) -> Circuit:
        """What is kept while means are taken: the circuit's heads, and every MLP."""
        return frozenset(c for c in circuit if not c.is_mlp) | {c for c in self.everything if c.is_mlp}

    def mean_of(self, layer: int, circuit: Circuit, top: int) -> torch.Tensor:
        """[R, S, D] means of what the MLP of a layer writes for corrupted prompts; from the layer ``top`` on at the
        last position alone."""
        everywhere = layer < top
        key = (layer, everywhere, prefixes(circuit, layer + 1)[-1])
        found = self.made.get(key)
        if found is not None:
            return found
        whole = self.substitute.mlp_out[layer]
        total = torch.zeros_like(whole if everywhere else whole[:, -1:], dtype=torch.float64)
        for batch, run in self.corrupted:
            written = run.written(layer, circuit, self._reference_rows.reader(batch), top)
            total.index_add_(0, self.group[batch], written.double())
        found = torch.full_like(whole, torch.nan, dtype=torch.float32)
        found[:, -total.shape[1] :] = total / self.sizes
        return self.made.put(key, found)

    def by_hooks(self, circuit: AnyCircuit) -> Replacement:
        """A replacement with all MLP means of a circuit, from one whole pass over the corrupted prompts."""
        kept_heads = frozenset(c for c in circuit if not c.is_mlp)
        if kept_heads not in self._means:
            total = torch.zeros_like(self.substitute.mlp_out, dtype=torch.float64)

            def add(layer: int, rows: torch.Tensor) -> Callable[..., torch.Tensor]:
                def hook(out: torch.Tensor, hook: object) -> torch.Tensor:
                    total[layer].index_add_(0, rows, out.double())
                    return out

                return hook

            for batch in self.model.batches(len(self.reference)):
                savers = [(mlp_hook(layer), add(layer, self.group[batch])) for layer in range(self.model.n_layers)]
                heads = edits(self.model, self.intact(circuit), self._reference_rows, batch, self.reference.roles)
                self.model.run(self.reference.tokens[batch], [*heads, *savers], on_bridge=True)
            self._means[kept_heads] = replace(self.substitute, mlp_out=(total / self.sizes).float())
        return self._means[kept_heads]
