"""Ablation: run a model with the components outside a circuit replaced (methods: ablation).

Everything downstream of an ablated component is recomputed (total effect).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.circuit.hooks import edits
from atlas.circuit.replacement import Replacement
from atlas.core.components import AnyCircuit, Site, all_components, sites
from atlas.core.metrics import log_probs, per_prompt
from atlas.model import engine
from atlas.model.live import LiveRun
from atlas.model.models import Model, slices
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    from atlas.store.memo import Memo

log = logging.getLogger("atlas")


STRETCH = 32


class Ablator:
    """Scores circuits of one model on fixed prompts under one replacement; remembers what it has scored.

    Uses the live engine where the architecture has one, else hooks on the bridge; ``use_engine=False`` forces hooks.
    ``memo`` (see memo.py) keeps scores on disk. A batch that does not fit into memory is halved.

    The last digits of a score depend on what the engine remembers, hence on the circuits that were run before. So that
    a search that is killed and resumed gives the very bits of one that was not, circuits found in the memo that a score
    may depend on are run again before it; memory is emptied after every STRETCH circuits, so that they are few.
    """

    def __init__(
        self,
        model: Model,
        prompts: Prompts,
        substitute: Replacement,
        metrics: Iterable[str] = ("logit_diff",),
        use_engine: bool = True,
        memo: Memo | None = None,
    ) -> None:
        self.model, self.prompts, self.metrics, self.memo = model, prompts, tuple(metrics), memo
        self.rows = prompts.rows()
        self.substitute = substitute.to(model.device)
        self.everything: AnyCircuit = frozenset(all_components(model.n_layers, model.n_heads))
        self.evaluations = 0  # circuits run over all prompts, that is, without what was remembered
        weights = model.weights if use_engine else None
        self.budget = int(model.memory_mb * 2**20) // 2  # bytes for what is remembered, and as many for one batch
        self.engine = engine.Engine(weights, self.budget // 4) if weights else None
        log.info("forward pass: %s", "live engine" if weights else "TransformerLens hooks")
        self.answer, self.incorrect = prompts.answer.to(model.device), prompts.incorrect.to(model.device)
        self.at = None if self.rows.position is None else self.rows.position.to(model.device)
        self.targets = None if self.rows.targets is None else self.rows.targets.to(model.device)
        self._memory: dict[Any, dict[str, np.ndarray]] = {}  # by `key`
        self._asked = 0  # circuits scored or found in the memo
        self._not_run: list[AnyCircuit] = []  # those of this stretch that were found
        self._clean_logits: torch.Tensor | None = None
        self.split(min(model.batch_size, self.rows_that_fit()))

    def rows_that_fit(self) -> int:
        """Rows whose activations fit into the budget on their way through a layer; the same whatever is measured."""
        if not self.engine:
            return self.model.batch_size
        return max(1, self.budget // self.engine.bytes_per_row(self.rows.tokens.shape[1], logits=0))

    def circuits_that_fit(self) -> int:
        """Circuits whose activations fit into the budget together, over the rows of one batch."""
        return max(1, self.rows_that_fit() // min(self.batch_size, len(self.rows)))

    def remembered_bytes(self) -> int:
        """Memory for the residuals that are remembered of all batches."""
        return self.budget - (self.engine.picked.budget if self.engine else 0)

    def split(self, batch_size: int) -> None:
        """Divide the rows into batches; the engine's remembered residuals share one budget."""
        self.batch_size = batch_size
        self.batches = slices(len(self.rows), batch_size)
        self.live: list[Any] | None = None
        if self.engine:
            tokens, at = self.rows.tokens.to(self.model.device), self.at
            budget = self.remembered_bytes() // len(self.batches)
            self.live = [
                LiveRun(self.engine, tokens[batch], None if at is None else at[batch], budget, self.roles_of(batch))
                for batch in self.batches
            ]

    def roles_of(self, batch: slice) -> dict[str, torch.Tensor] | None:
        """Role -> mask [1 or n, S] for the rows of a batch."""
        if self.rows.roles is None:
            return None
        masks = {name: m if len(m) == 1 else m[batch] for name, m in self.rows.roles.items()}
        return {name: m.to(self.model.device) for name, m in masks.items()}

    def each_batch(self, run: Callable[[int], torch.Tensor]) -> list[torch.Tensor]:
        """``run(index of a batch)`` [n, ...] for every batch; out of memory it starts again with half the size."""
        while True:
            try:
                return [run(i) for i in range(len(self.batches))]
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                log.info("out of memory with %d rows at a time; going on with half", self.batch_size)
                self.split(-(-min(self.batch_size, len(self.rows)) // 2))

    # ---- one circuit -------------------------------------------------------------------------------------
    def logits(self, circuit: AnyCircuit) -> torch.Tensor:
        """[N, d_vocab] at the answer position with only ``circuit`` intact; [2 N, K, d_vocab] of answers of several
        tokens, at the position before each (`metrics.per_prompt`)."""
        if self.engine:
            return self.unembedded(self.residuals([circuit])[0])
        self.evaluations += 1
        substitute = self.substitute_for(circuit)

        def run(i: int) -> torch.Tensor:
            batch, at = self.batches[i], self.at
            hooks = edits(self.model, circuit, substitute, batch, self.roles_of(batch))
            found = self.model.run(self.rows.tokens[batch], hooks, None if at is None else at[batch], on_bridge=True)
            return found if self.targets is not None or at is None else found[:, 0]

        return torch.cat(self.each_batch(run))

    def unembedded(
        self, x: torch.Tensor, read: Callable[[torch.Tensor, slice], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The logits of final residuals [R, K, D], [N, d_vocab] or [2 N, K, d_vocab]; as many rows at a time as fit.

        ``read(logits, rows)``: what is kept of the logits of some rows, if not all of them.
        """
        assert self.engine
        weights, at_once = self.engine.weights, max(1, self.budget // self.engine.bytes_of_logits(x.shape[1]))
        x = x if self.targets is not None else x[:, 0]

        def run(i: int) -> torch.Tensor:
            batch, parts = self.batches[i], []
            for part in slices(batch.stop - batch.start, at_once):
                rows = slice(batch.start + part.start, batch.start + part.stop)
                logits = weights.unembed(x[rows])
                parts.append(read(logits, rows) if read else logits)
            return torch.cat(parts)

        return torch.cat(self.each_batch(run))

    def substitute_for(self, circuit: AnyCircuit) -> Replacement:
        """The replacement to use for a circuit: the same for every circuit."""
        return self.substitute

    def scores(self, circuit: AnyCircuit) -> dict[str, np.ndarray]:
        """Metric name -> [N] per-prompt values with only ``circuit`` intact."""
        return self.scores_of([circuit])[0]

    # ---- several circuits --------------------------------------------------------------------------------
    def scores_of(self, circuits: Sequence[AnyCircuit]) -> list[dict[str, np.ndarray]]:
        """`scores` of circuits that differ in one layer only; those not yet known run as one batch."""
        unknown = [c for c in {self.key(c): c for c in circuits}.values() if not self.remembered(c)]
        for circuit in unknown:
            self._count(circuit, found=False)
        if self.engine and unknown:
            found = self.residuals(unknown)
            for circuit, x, direct in zip(unknown, found, self.differences(found), strict=True):
                self.remember(circuit, self.measured(circuit, x, direct))
        else:
            for circuit in unknown:
                self.remember(circuit, self.by_logits(self.metrics, circuit, self.logits(circuit)))
        return [self._memory[self.key(circuit)] for circuit in circuits]

    def key(self, circuit: AnyCircuit) -> Any:
        """What a circuit is remembered by."""
        return circuit

    def residuals(self, circuits: Sequence[AnyCircuit]) -> torch.Tensor:
        """Final residuals [C, R, K, D] at the positions of the score, of circuits that differ in one layer only."""
        if len(circuits) > 1 and self.substitute_for(circuits[0]) is not self.substitute:  # legacy means differ
            return torch.cat([self.residuals([c]) for c in circuits])
        fit = self.circuits_that_fit()
        if len(circuits) > fit:
            return torch.cat([self.residuals(circuits[i : i + fit]) for i in range(0, len(circuits), fit)])
        self.evaluations += len(circuits)

        def run(i: int) -> torch.Tensor:
            assert self.live
            live, read = self.live[i], self.substitute_for(circuits[0]).reader(self.batches[i])
            found: torch.Tensor = live.final_residuals(circuits, read)
            return found

        return torch.cat(self.each_batch(run), dim=1)

    def differences(self, x: torch.Tensor) -> Sequence[torch.Tensor | None]:
        """[N] logit differences of answers of one token for each of C circuits with final residuals x [C, R, K, D]."""
        if self.targets is not None or not self.engine:
            return [None] * len(x)
        return self.engine.weights.logit_diff(x[:, :, 0], self.answer, self.incorrect).double().cpu().unbind()

    def measured(self, circuit: AnyCircuit, x: torch.Tensor, direct: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Metric name -> [N] of a circuit with final residuals x [R, K, D] and such a logit difference.

        The logit difference is the same whichever metrics are asked for: of answers of one token it has an expression
        of its own (`Engine.logit_diff`), so that all logits need not be made where no other metric reads them.
        """
        if self.targets is not None and self.metrics == ("logit_diff",):
            targets = self.targets
            found = self.unembedded(x, lambda logits, rows: log_probs(logits, targets[rows]))
            return {"logit_diff": found[::2] - found[1::2]}
        if direct is None:
            return self.by_logits(self.metrics, circuit, self.unembedded(x))
        rest = tuple(name for name in self.metrics if name != "logit_diff")
        values = self.by_logits(rest, circuit, self.unembedded(x)) if rest else {}
        values["logit_diff"] = direct
        return {name: values[name] for name in self.metrics}

    def by_logits(self, names: tuple[str, ...], circuit: AnyCircuit, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """Metric name -> [N] of a circuit's logits."""
        if "kl" in names and self._clean_logits is None:
            self._clean_logits = logits if circuit == self.everything else self.logits(self.everything)
        return per_prompt(names, logits, self.answer, self.incorrect, self._clean_logits)

    def remembered(self, circuit: AnyCircuit) -> bool:
        key = self.key(circuit)
        if key not in self._memory and self.memo is not None:
            found = self.memo.get(circuit)
            if found is not None:
                self._memory[key] = found
                self._count(circuit, found=True)
        return key in self._memory

    def _count(self, circuit: AnyCircuit, found: bool) -> None:
        """Bring the engine's memory to where it is when each circuit so far was run, unless this one was found."""
        if self.memo is None or not self.live:
            return
        if self._asked % STRETCH == 0:
            self._not_run = []
            self.forget()
        self._asked += 1
        if found:
            self._not_run.append(circuit)
            return
        for earlier in self._not_run:
            self.residuals([earlier])
        self._not_run = []

    def forget(self) -> None:
        """Empty the engine's memory."""
        for run in self.live or ():
            run.clear()

    def remember(self, circuit: AnyCircuit, values: dict[str, Any]) -> None:
        found = self._memory[self.key(circuit)] = {name: v.double().cpu().numpy() for name, v in values.items()}
        if self.memo is not None:
            self.memo.put(circuit, found)

    def without(self, items: Iterable[Any]) -> AnyCircuit:
        """Everything but these. A component of which only sites go is kept at its other roles."""
        items = frozenset(items)
        left = self.everything - items
        cut = [item for item in items if isinstance(item, Site) and item.component in left]
        if not cut:
            return left
        engine.where_kept([site.role for site in cut], self.prompts.roles)  # refuses a role that is not there
        parts = {site.component for site in cut}
        return (left - parts) | (sites(parts, self.prompts.roles or ()) - items)

    # ---- what searches read ------------------------------------------------------------------------------
    def logit_diff(self, circuit: AnyCircuit) -> np.ndarray:
        """[N] per-prompt logit differences with only ``circuit`` intact."""
        return self.scores(circuit)["logit_diff"]

    def percent_of_full(self, circuit: AnyCircuit) -> float:
        """100 M(circuit) / M(full) of the mean logit difference."""
        return self.percents_of_full([circuit])[0]

    def percents_of_full(self, circuits: list[AnyCircuit]) -> list[float]:
        """The same for circuits that differ in one layer only."""
        full = self.logit_diff(self.everything).mean()
        return [100 * float(scores["logit_diff"].mean() / full) for scores in self.scores_of(circuits)]
