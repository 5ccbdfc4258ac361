"""Ablation: run a model with the components outside a circuit replaced (methods: ablation).

Everything downstream of an ablated component is recomputed (total effect).
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from atlas import activations, engine
from atlas.components import Circuit, all_components
from atlas.errors import StudyError
from atlas.metrics import per_prompt
from atlas.models import Model, mlp_hook, z_hook

log = logging.getLogger("atlas")

KINDS = ("mean", "zero", "resample", "mean_clean")


@dataclass(frozen=True)
class Prompts:
    """The prompts that a circuit is scored on, as tensors."""

    tokens: torch.Tensor  # [N, S]
    corrupted_tokens: torch.Tensor  # [N, S], row-aligned
    answer: torch.Tensor  # [N]
    incorrect: torch.Tensor  # [N]
    prompt: list[int]  # [N] ids
    group: torch.Tensor  # [N] index of the mean's group

    @classmethod
    def from_frame(cls, frame, groups: list[str]) -> "Prompts":
        """``groups``: names of the groups of means; one name means that all prompts share it."""
        group = [0] * len(frame) if len(groups) == 1 else [groups.index(t) for t in frame.template]
        return cls(
            tokens=torch.tensor(np.stack(frame.tokens.to_list())),
            corrupted_tokens=torch.tensor(np.stack(frame.corrupted_tokens.to_list())),
            answer=torch.tensor(frame.answer_token.to_list()),
            incorrect=torch.tensor(frame.incorrect_token.to_list()),
            prompt=frame.prompt.tolist(),
            group=torch.tensor(group),
        )

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Replacement:
    """What ablated components are replaced by: row ``rows[i]`` stands in for prompt i."""

    z: torch.Tensor  # [L, R, S, H, d_head]
    mlp_out: torch.Tensor  # [L, R, S, d_model]
    rows: torch.Tensor  # [N] -> 0..R-1

    def to(self, device) -> "Replacement":
        return Replacement(self.z.to(device), self.mlp_out.to(device), self.rows.to(device))

    def reader(self, batch: slice):
        """(name, layer) -> what replaces that layer's ablated components for the prompts of a batch, [1 or n, ...]."""
        rows = self.rows[batch]

        def read(name: str, layer: int):
            values = getattr(self, name)[layer]
            return values if len(values) == 1 else values[rows]  # one row is broadcast instead of copied

        return read


def replacement(kind: str, model: Model, prompts: Prompts, means: dict, cache: dict | None = None) -> Replacement:
    """The replacement of an ablation kind for these prompts.

    ``mean``, ``mean_clean``: per-position means over the corrupted, clean prompts of the search split. ``zero``: zeros.
    ``resample``: each prompt's own corrupted run, from ``cache`` (`activations.pt`) where it holds the prompts.
    """
    corrupted = means["corrupted"]
    if means["corrupted"]["z"].shape[2] != prompts.tokens.shape[1]:
        raise StudyError(
            f"means are of {corrupted['z'].shape[2]} positions, prompts have {prompts.tokens.shape[1]}; "
            "they belong to different tasks"
        )
    match kind:
        case "mean":
            return Replacement(corrupted["z"], corrupted["mlp_out"], prompts.group)
        case "mean_clean":
            return Replacement(means["clean"]["z"], means["clean"]["mlp_out"], prompts.group)
        case "zero":
            first = {name: torch.zeros_like(x[:, :1]) for name, x in corrupted.items()}
            return Replacement(first["z"], first["mlp_out"], torch.zeros_like(prompts.group))
        case "resample":
            rows = activations.rows_of(cache["prompt"], prompts.prompt) if cache else None
            if rows is None:
                run, _ = activations.collect(model, prompts.corrupted_tokens)
                rows = torch.arange(len(prompts))
            else:
                run = cache["corrupted"]
            return Replacement(run["z"], run["mlp_out"], rows)
    raise ValueError(f"unknown ablation kind {kind!r}; one of {', '.join(KINDS)}")


def edits(model: Model, circuit: Circuit, substitute: Replacement, batch: slice = slice(None)):
    """Hooks that replace every component outside ``circuit`` for the prompts of ``batch``."""
    read = substitute.reader(batch)
    outside = [c for c in all_components(model.n_layers, model.n_heads) if c not in circuit]

    def replace_heads(layer, heads):
        def hook(z, hook):
            z = z.clone()
            z[:, :, heads] = read("z", layer)[:, :, heads].to(z.dtype)
            return z

        return hook

    for layer in range(model.n_layers):
        heads = [c.head for c in outside if c.layer == layer and not c.is_mlp]
        if heads:
            yield z_hook(layer), replace_heads(layer, heads)
        if any(c.layer == layer and c.is_mlp for c in outside):
            yield mlp_hook(layer), lambda out, hook, layer=layer: read("mlp_out", layer).to(out.dtype).expand_as(out)


class Ablator:
    """Scores circuits of one model on fixed prompts under one replacement; remembers what it has scored.

    Uses the live engine where the architecture has one, else hooks on the bridge; ``use_engine=False`` forces hooks.
    """

    def __init__(
        self, model: Model, prompts: Prompts, substitute: Replacement, metrics=("logit_diff",), use_engine: bool = True
    ):
        self.model, self.prompts, self.metrics = model, prompts, tuple(metrics)
        self.substitute = substitute.to(model.device)
        self.everything = frozenset(all_components(model.n_layers, model.n_heads))
        self.evaluations = 0  # forward passes over all prompts, that is, without what was remembered
        self.batches = model.batches(len(prompts))
        found = engine.for_bridge(model.bridge) if use_engine else None
        log.info("forward pass: %s", "live engine" if found else "TransformerLens hooks")
        tokens = prompts.tokens.to(model.device)
        self.live = [engine.LiveRun(found, tokens[batch], engine.BUDGET // len(self.batches)) for batch in self.batches]
        self.live = self.live if found else None
        self.answer, self.incorrect = prompts.answer.to(model.device), prompts.incorrect.to(model.device)
        self._memory: dict[Circuit, dict[str, np.ndarray]] = {}
        self._clean_logits = self.logits(self.everything) if "kl" in self.metrics else None

    def logits(self, circuit: Circuit) -> torch.Tensor:
        """[N, d_vocab] at the answer position with only ``circuit`` intact."""
        self.evaluations += 1
        if self.live:
            return torch.cat([self.live[0].engine.unembed(x) for x in self._final_residuals(circuit)])
        substitute = self.substitute_for(circuit)
        return torch.cat(
            [
                self.model.run(self.prompts.tokens[batch], edits(self.model, circuit, substitute, batch))
                for batch in self.batches
            ]
        )

    def _final_residuals(self, circuit: Circuit):
        """The residual at the answer position of each batch, [n, d_model]."""
        for batch, live in zip(self.batches, self.live, strict=True):
            yield live.final_residual(circuit, self.substitute_for(circuit).reader(batch))

    def substitute_for(self, circuit: Circuit) -> Replacement:
        """The replacement to use for a circuit: the same for every circuit."""
        return self.substitute

    def scores(self, circuit: Circuit) -> dict[str, np.ndarray]:
        """Metric name -> [N] per-prompt values with only ``circuit`` intact."""
        if circuit not in self._memory:
            if self.live and self.metrics == ("logit_diff",):  # two columns of the unembedding are enough
                self.evaluations += 1
                residuals = zip(self.batches, self._final_residuals(circuit), strict=True)
                difference = self.live[0].engine.logit_diff
                found = [difference(x, self.answer[batch], self.incorrect[batch]) for batch, x in residuals]
                values = {"logit_diff": torch.cat(found)}
            else:
                values = per_prompt(self.metrics, self.logits(circuit), self.answer, self.incorrect, self._clean_logits)
            self._memory[circuit] = {name: v.double().cpu().numpy() for name, v in values.items()}
        return self._memory[circuit]

    def logit_diff(self, circuit: Circuit) -> np.ndarray:
        return self.scores(circuit)["logit_diff"]

    def percent_of_full(self, circuit: Circuit) -> float:
        """100 M(circuit) / M(full) of the mean logit difference."""
        return 100 * float(self.logit_diff(circuit).mean() / self.logit_diff(self.everything).mean())


class LegacyAblator(Ablator):
    """As the published code: MLP means are taken anew for each circuit, with the heads outside it mean-ablated.

    ``reference`` are the corrupted prompts that the means run over, with their own head means.
    """

    def __init__(
        self, model, prompts, substitute, reference: Prompts, metrics=("logit_diff",), use_engine: bool = True
    ):
        self.reference = replace(reference, tokens=reference.corrupted_tokens)
        self._reference_rows = replace(substitute, rows=reference.group).to(model.device)
        self._means: dict[Circuit, Replacement] = {}
        super().__init__(model, prompts, substitute, metrics, use_engine)

    def substitute_for(self, circuit: Circuit) -> Replacement:
        kept_heads = frozenset(c for c in circuit if not c.is_mlp)
        if kept_heads not in self._means:
            intact = kept_heads | {c for c in self.everything if c.is_mlp}
            total = torch.zeros_like(self.substitute.mlp_out, dtype=torch.float64)
            group = self.reference.group.to(self.model.device)

            def add(layer, rows):
                def hook(out, hook):
                    total[layer].index_add_(0, rows, out.double())
                    return out

                return hook

            for batch in self.model.batches(len(self.reference)):
                savers = [(mlp_hook(layer), add(layer, group[batch])) for layer in range(self.model.n_layers)]
                head_edits = edits(self.model, intact, self._reference_rows, batch)
                self.model.run(self.reference.tokens[batch], [*head_edits, *savers])
            sizes = torch.bincount(group, minlength=total.shape[1]).view(1, -1, 1, 1)
            self._means[kept_heads] = replace(self.substitute, mlp_out=(total / sizes).float())
        return self._means[kept_heads]


def single_ablations(ablator: Ablator):
    """Yield (component, scores) with each component ablated alone."""
    for component in sorted(ablator.everything):
        yield component, ablator.scores(ablator.everything - {component})
