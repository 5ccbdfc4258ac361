"""What ablated components are replaced by (methods: ablation)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from atlas.circuit.kinds import known
from atlas.circuit.unablated import collected
from atlas.core.errors import StudyError
from atlas.model import activations, engine
from atlas.model.logits import at_least_float32
from atlas.model.models import Model
from atlas.prompts.batch import Prompts, Rows


@dataclass(frozen=True)
class Replacement:
    """What ablated components are replaced by: row ``rows[i]`` stands in for prompt i."""

    z: torch.Tensor  # [L, R, S, H, d_head]
    mlp_out: torch.Tensor  # [L, R, S, D]
    rows: torch.Tensor  # [N] -> 0..R-1

    def to(self, device: str) -> Replacement:
        return Replacement(self.z.to(device), self.mlp_out.to(device), self.rows.to(device))

    def reader(self, batch: slice) -> engine.Substitute:
        """(name, layer) -> what replaces that layer's ablated components for the prompts of a batch, [1 or n, ...]."""
        rows = self.rows[batch]

        def read(name: str, layer: int) -> torch.Tensor:
            values: torch.Tensor = getattr(self, name)[layer]
            return values if len(values) == 1 else values[rows]  # one row is broadcast instead of copied

        return read


@dataclass(frozen=True)
class Fitted(Replacement):
    """A replacement by fitted constants, with that of the embeddings, which edges read: [R, S, D] by ``rows``."""

    embedded: torch.Tensor

    def to(self, device: str) -> Fitted:
        return Fitted(*(x.to(device) for x in (self.z, self.mlp_out, self.rows, self.embedded)))


def replacement(
    kind: str, model: Model, prompts: Prompts, means: dict[str, Any], cache: dict[str, Any] | None = None
) -> Replacement:
    """The replacement of an ablation kind for these prompts.

    ``mean``, ``mean_clean``: per-position means over the corrupted, clean prompts of the search split. ``zero``: zeros.
    ``resample``: each prompt's own corrupted run, from ``cache`` (`activations.pt`) where it holds the prompts.
    ``optimal``: the constants of `optimal.fitted` under that name in ``means``, with those of the embeddings.
    """
    of, rows = known(kind), prompts.rows()
    if of.run not in means:
        raise StudyError(f"ablation kind {kind}: its constants were not fitted; name it in scores.kinds")
    used, s = means[of.run], rows.tokens.shape[1]
    if not same_lengths(prompts, rows, means, used["z"].shape[2]):
        raise StudyError(
            f"means are of {used['z'].shape[2]} positions, prompts have {s}; they belong to different tasks"
        )
    if of.aligned:
        return corrupted_runs(model, prompts, cache)
    if not of.means_of and not of.fitted:
        first = {name: x.new_zeros(len(x), 1, s, *x.shape[3:]) for name, x in used.items()}
        return Replacement(first["z"], first["mlp_out"], torch.zeros_like(rows.group))
    if prompts.several_tokens and (rows.length > means["longest"][rows.group]).any():
        raise StudyError(
            "ablation.kind: an answer is longer than any of the search split, so some of its positions have no "
            "mean; search on such prompts too, or use zero or resample"
        )
    z, mlp_out = (used[name][:, :, :s] for name in ("z", "mlp_out"))  # other prompts of the task may be longer
    if of.fitted:
        return Fitted(z, mlp_out, rows.group, used["embed"][:, :s])
    return Replacement(z, mlp_out, rows.group)


def embeddings(
    kind: str, model: Model, rows: Rows, reference: Rows | None = None, substitute: Replacement | None = None
) -> torch.Tensor:
    """[1 or R, S, D] the ablated embeddings of a kind of ablation, row i for row i; of a model with an engine.

    ``reference``: the rows of the search split, which means run over (default: ``rows`` themselves). ``substitute``: of
    the components, which has those of a kind that is fitted. Raises ValueError on a kind that says nothing of them.
    """
    weights, of, reference = model.weights, known(kind), reference or rows
    assert weights is not None

    def embed(tokens: torch.Tensor) -> torch.Tensor:
        return at_least_float32(weights.embed(tokens.to(model.device))).cpu()

    if of.aligned:
        return embed(rows.corrupted_tokens)
    if kind == "zero":
        return torch.zeros_like(embed(rows.tokens[:1]))
    if isinstance(substitute, Fitted):
        values = substitute.embedded
        return values if len(values) == 1 else values[rows.group]
    if of.means_of is None:
        raise ValueError(f"{kind}: no kind of ablation of embeddings")
    written = embed(reference.corrupted_tokens if of.run == "corrupted" else reference.tokens).double()
    s, n_groups = rows.tokens.shape[1], int(reference.group.max()) + 1
    there = torch.ones(written.shape[:2], dtype=torch.double)
    if reference.length is not None:  # padding enters no mean
        there = (torch.arange(written.shape[1]) < reference.length[:, None]).double()
    sums = written.new_zeros(n_groups, *written.shape[1:]).index_add_(0, reference.group, written * there[..., None])
    sizes = there.new_zeros(n_groups, there.shape[1]).index_add_(0, reference.group, there).clamp(min=1)
    means = (sums / sizes[..., None]).to(embed(rows.tokens[:1]).dtype)[:, :s]
    return means if len(means) == 1 else means[rows.group]


def same_lengths(prompts: Prompts, rows: Rows, means: dict[str, Any], s: int) -> bool:
    """Do prompts have as many tokens as the ``s`` positions of means, or as those of their group's mean?

    Answers of several tokens may be longer or shorter.
    """
    if prompts.several_tokens or "longest" in means:
        return prompts.several_tokens and "longest" in means
    length = torch.full((len(rows),), rows.tokens.shape[1]) if rows.length is None else rows.length
    return bool((length == (means["lengths"][rows.group] if "lengths" in means else s)).all())


def corrupted_runs(model: Model, prompts: Prompts, cache: dict[str, Any] | None = None) -> Replacement:
    """Each prompt's own corrupted run, from ``cache`` (`activations.pt`) where it holds all the prompts."""
    rows, index = prompts.rows(), activations.rows_of(cache["prompt"], prompts.prompt) if cache else None
    if cache is None or index is None:
        run, _ = collected(model, rows, "corrupted")
        index = torch.arange(len(rows))
    else:
        run = {name: x[:, :, : rows.tokens.shape[1]] for name, x in cache["corrupted"].items()}
        index = rows.of_prompts(index)
    return Replacement(run["z"], run["mlp_out"], index)
