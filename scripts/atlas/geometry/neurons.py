"""Neurons of the circuits' MLPs: which matter for the answer, how few carry what an MLP does, what they are active on.

A neuron is one of the numbers between the maps of an MLP (behind the gate, where it has one); it writes its row of the
last map (arXiv 2203.14680). Neurons are ablated at the answer position, by their mean over the corrupted prompts of the
search split; all of an MLP's neurons together are then the MLP with its mean output, as `mean` ablates it. They are
ranked by attribution on prompts of the search split: (clean - mean activation) times the gradient of the logit
difference, averaged on the way between the two (`Tail.gradient`), so that the scores of an MLP sum to what ablating it
costs there. The smallest set is the shortest beginning of that ranking whose ablation costs at least a `share` of the
whole MLP's, found on the search split by doubling and then halving the step; where costs do not rise throughout, a
shorter beginning may do as well. What it and the rest cost is then measured on the prompts that results are reported
on, beside random sets of as many neurons of the same MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.components import Component, mlps
from atlas.core.multiple import corrected, holm
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry import readings, tails
from atlas.geometry.directions import LEAST, LISTS, Known, by_answer
from atlas.geometry.labels import Lexicon, label
from atlas.heads.attribution import Readout
from atlas.prompts import layouts
from atlas.prompts.batch import Prompts
from atlas.store.job import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.circuit.task_data import TaskData
    from atlas.core.components import Circuit
    from atlas.geometry.tails import Split, Tail

MATTERS = 0.01  # share of the logit difference below which an MLP has no effect whose neurons are looked for
CURVES = 5  # random orders behind the curve of each MLP
NEURONS = ["task", "component", "layer", "neuron", "rank", "attribution", "attribution_share", "value", "ci_low"]
NEURONS += ["ci_high", "share", "activation", "ablated", "by_answer", "p", "p_holm", "writes", "label", "label_share"]
NEURONS += ["label_base", "label_p", "label_p_holm", "prompts", "full"]
SETS = ["task", "component", "layer", "set", "neurons", "of", "value", "ci_low", "ci_high", "share", "random"]
SETS += ["random_low", "random_high", "draws", "p", "prompts", "full"]
MEMBERS = ["task", "component", "layer", "neuron", "rank", "answer", "place", "value", "ablated", "prompts"]


@dataclass(frozen=True)
class Settings:
    """mlps: how many at most. top: neurons of each that are ablated alone. share: of an MLP's effect that a set is to
    carry. points: of attribution. random: sets beside it. prompts: at most, of each split. tokens: of a list.
    permutations: of activations over prompts. seed: of all that is drawn."""

    mlps: int
    top: int
    share: float
    points: int
    random: int
    prompts: int
    tokens: int
    permutations: int
    seed: int


@dataclass(frozen=True)
class Neurons:
    """The neurons of one MLP on prompts of a task. ``clean`` [N, M] their activations at the answer position, ``mean``
    [M] what ablated ones are replaced by; M = d_mlp."""

    tail: Tail
    layer: int
    clean: torch.Tensor
    mean: torch.Tensor

    @classmethod
    def of(cls, tail: Tail, layer: int, mean: torch.Tensor) -> Neurons:
        return cls(tail, layer, tail.hidden(layer), mean)

    def attribution(self, points: int) -> np.ndarray:
        """[N, M] what ablating each neuron costs by gradients, in logits."""
        ends = self.clean, self.mean.expand_as(self.clean)
        slope = self.tail.gradient(lambda x: self.tail.with_hidden(self.layer, x), *ends, points)
        return ((self.clean - self.mean) * slope).double().cpu().numpy()

    def losses(self, ablated: np.ndarray) -> np.ndarray:
        """[n, N] logits that ablating each of the sets [n, M] (bool) costs."""
        sets = torch.as_tensor(ablated, device=self.clean.device)

        def run(part: slice) -> torch.Tensor:
            hidden = torch.where(sets[part], self.mean, self.clean[:, None])
            return self.tail.with_hidden(self.layer, hidden)

        full = self.tail.clean().double().cpu()
        return (full - self.tail.in_parts(len(sets), run)).numpy()


def mean_of(data: TaskData, layers: Sequence[int]) -> dict[int, torch.Tensor]:
    """Layer -> mean [M] over the corrupted prompts of the search split that have the most common layout."""
    prompts = Prompts.from_frame(layouts.of_one(data.frame("search"))).swapped()
    tail = tails.Tail.of(data.model, prompts, "neurons")
    return {layer: tail.hidden(layer).double().mean(0).to(tail.before[0].dtype) for layer in layers}


def run(
    data: Sequence[TaskData],
    circuit: Circuit,
    tokenizer: PreTrainedTokenizerBase,
    known: Known,
    settings: Settings,
    bootstrap: Bootstrap,
) -> dict[str, pd.DataFrame]:
    """The tables `neurons`, `neuron_sets`, `neuron_members` of a model, less `model`; arguments and errors as those of
    `directions.run`."""
    s = settings
    search = {d.task: tails.Split.of(d, "search", s.prompts, "neurons") for d in data}
    chosen = tails.strongest(search, mlps(circuit), s.mlps)
    tables: list[list[list[Any]]] = [[], [], []]
    for d in progress(data, "neurons"):
        means = mean_of(d, [c.layer for c in chosen])
        report = tails.Split.of(d, d.report_split, s.prompts, "neurons")
        for c in chosen:
            on_search, on_report = (Neurons.of(x.tail, c.layer, means[c.layer]) for x in (search[d.task], report))
            attribution = on_search.attribution(s.points).mean(0)
            order = np.argsort(-attribution, kind="stable")
            size = smallest(on_search, order, s.share, bootstrap)
            found = (
                neuron_rows(d.task, on_report, order, attribution, report, s, bootstrap),
                set_rows(d.task, on_report, order, size, s, bootstrap),
                member_rows(d.task, on_report, order[: s.top], report, known.members.get(d.task, ())),
            )
            for table, rows in zip(tables, found, strict=True):
                table += rows
    neurons = pd.DataFrame(tables[0], columns=[c for c in NEURONS if c not in WRITTEN])
    sets = pd.DataFrame(tables[1], columns=SETS)
    return {
        "neurons": read(neurons, data[0].model, tokenizer, known, s),
        "neuron_sets": corrected(sets, "neurons of " + sets["task"].astype(str)),
        "neuron_members": pd.DataFrame(tables[2], columns=MEMBERS),
    }


# ---- sets -----------------------------------------------------------------------------------------------------
def first(order: np.ndarray, n: int, m: int) -> np.ndarray:
    """[m] bool: the first n of an order."""
    out = np.zeros(m, dtype=bool)
    out[order[:n]] = True
    return out


def sizes(m: int) -> list[int]:
    """1, 2, 4, ... and m."""
    return sorted({*(2**i for i in range(m.bit_length()) if 2**i <= m), m})


def smallest(neurons: Neurons, order: np.ndarray, share: float, bootstrap: Bootstrap) -> int | None:
    """How many of an order must be ablated to cost ``share`` of what the whole MLP costs; None where that costs less
    than `MATTERS` of the logit difference, or its interval reaches 0."""
    m = len(order)
    whole = neurons.losses(np.ones((1, m), dtype=bool))[0]
    full = float(neurons.tail.clean().double().mean())
    if bootstrap.mean(whole)[1] <= 0 or whole.mean() < MATTERS * abs(full):
        return None

    def enough(n: int) -> bool:
        return bool(neurons.losses(first(order, n, m)[None]).mean() >= share * whole.mean() * (1 - 1e-9))

    return crossing(enough, sizes(m))


def crossing(enough: Callable[[int], bool], grid: Sequence[int]) -> int:
    """The smallest size that is ``enough``, between the last of a grid that is not and the first that is, if sizes
    between them are enough from some one on. The last of the grid is enough, whatever is said of it."""
    low = 0
    high = grid[-1]
    for n in grid[:-1]:
        if enough(n):
            high = n
            break
        low = n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def set_rows(
    task: str, neurons: Neurons, order: np.ndarray, size: int | None, settings: Settings, bootstrap: Bootstrap
) -> list[list[Any]]:
    """Rows of SETS, in logits lost: `curve`, the first n of the order, beside `CURVES` random orders; `smallest`, that
    set, beside random sets of its size, with p; `rest`, all but that set; `whole`, all neurons.

    share: of what the whole costs, nan where that is not above 0. Of `smallest` and `rest` the rows are missing where
    the MLP has no effect to carry.
    """
    m, s = len(order), settings
    rng = np.random.default_rng([s.seed, neurons.layer])
    whole = neurons.losses(np.ones((1, m), dtype=bool))[0]
    full = float(neurons.tail.clean().double().mean())
    key = [task, str(Component(neurons.layer)), neurons.layer]

    def row(name: str, n: int, loss: np.ndarray, drawn: np.ndarray, p: float = np.nan) -> list[Any]:
        part = loss.mean() / whole.mean() if whole.mean() > 0 else np.nan
        spread = [drawn.mean(), *np.percentile(drawn, [2.5, 97.5])] if len(drawn) else [np.nan] * 3
        interval = interval_columns(bootstrap.mean(loss)).values()
        return [*key, name, n, m, *interval, part, *spread, len(drawn), p, len(loss), full]

    rows = [row("whole", m, whole, np.empty(0))]
    orders = [rng.permutation(m) for _ in range(CURVES)]
    for n in sizes(m):
        losses = neurons.losses(np.stack([first(o, n, m) for o in (order, *orders)]))
        rows.append(row("curve", n, losses[0], losses[1:].mean(1)))
    if size is None:
        return rows
    drawn = neurons.losses(np.stack([first(rng.permutation(m), size, m) for _ in range(s.random)])).mean(1)
    chosen = first(order, size, m)
    own, rest = neurons.losses(np.stack([chosen, ~chosen]))
    p = (1 + int((drawn >= own.mean()).sum())) / (1 + len(drawn))
    return [*rows, row("smallest", size, own, drawn, p), row("rest", m - size, rest, np.empty(0))]


# ---- single neurons -------------------------------------------------------------------------------------------
WRITTEN = ("p_holm", "writes", "label", "label_share", "label_base", "label_p", "label_p_holm")


def neuron_rows(
    task: str,
    neurons: Neurons,
    order: np.ndarray,
    attribution: np.ndarray,
    split: Split,
    settings: Settings,
    bootstrap: Bootstrap,
) -> list[list[Any]]:
    """Rows of NEURONS of the first of an order, less what they write. ``attribution`` [M]: means over prompts of the
    search split; shares are of the sum over all neurons.

    value: logits that ablating the neuron alone costs; share: of what the whole MLP costs. by_answer: the share of the
    variance of its activation that lies between answers, p: against permutations of its activations over prompts.
    """
    s, top, m = settings, order[: settings.top], len(order)
    alone = neurons.losses(np.stack([first(np.array([j]), 1, m) for j in top]))
    whole, full = neurons.losses(np.ones((1, m), dtype=bool)).mean(), float(neurons.tail.clean().double().mean())
    active = neurons.clean[:, top.tolist()].double().cpu().numpy()
    between, p = by_groups(active, split.frame["answer"].to_numpy(), s.permutations, s.seed)
    total, mean = attribution.sum(), neurons.mean.double().cpu().numpy()
    rows = []
    for i, j in enumerate(top):
        of_all = attribution[j] / total if total > 0 else np.nan
        value = interval_columns(bootstrap.mean(alone[i])).values()
        part = alone[i].mean() / whole if whole > 0 else np.nan
        own = [task, str(Component(neurons.layer)), neurons.layer, int(j), i + 1, attribution[j], of_all]
        rows.append([*own, *value, part, active[:, i].mean(), mean[j], between[i], p[i], len(active), full])
    return rows


def by_groups(values: np.ndarray, groups: np.ndarray, permutations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(share of the variance of values [N, n] that lies between groups [N], p of a share as large under permutations of
    the rows): [n] each; nan of values without variance."""
    names, of = np.unique(groups, return_inverse=True)
    member = np.eye(len(names))[of].T  # [groups, N]
    sizes_of = member.sum(1)
    centred = values - values.mean(0)
    total = (centred**2).sum(0)

    def between(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = ((member @ x) ** 2 / sizes_of[:, None]).sum(0)
        return found

    own, rng = between(centred), np.random.default_rng(seed)
    drawn = np.stack([between(centred[rng.permutation(len(values))]) for _ in range(permutations)])
    p = (1 + (drawn >= own * (1 - 1e-9)).sum(0)) / (1 + permutations)
    varies = total > 1e-12 * (1 + (values**2).sum(0))
    share = np.divide(own, total, out=np.full(len(total), np.nan), where=varies)
    return share, np.where(varies, p, np.nan)


def member_rows(task: str, neurons: Neurons, top: np.ndarray, split: Split, members: Sequence[str]) -> list[list[Any]]:
    """Rows of MEMBERS: the mean activation of each neuron over the prompts of each answer."""
    active, mean = neurons.clean.double().cpu().numpy(), neurons.mean.double().cpu().numpy()
    key = [task, str(Component(neurons.layer)), neurons.layer]
    return [
        [*key, int(j), rank, answer, place, active[held, j].mean(), mean[j], int(held.sum())]
        for place, (answer, held) in enumerate(by_answer(split.frame, members))
        for rank, j in enumerate(top, 1)
    ]


# ---- what they write ------------------------------------------------------------------------------------------
def read(
    table: pd.DataFrame, model: Any, tokenizer: PreTrainedTokenizerBase, known: Known, settings: Settings
) -> pd.DataFrame:
    """The rows of NEURONS with the tokens that each raises where it is further from its mean than the mean corrupted
    prompt, that is, with the sign of (activation - ablated), and their label; p-values corrected over all rows."""
    readout, k = Readout.of(model), settings.tokens
    lexicon = Lexicon.make(tokenizer, readout.w_u.shape[1], known.classes, known.fillers)
    null = readings.random_lists(readout, max(LEAST, LISTS * len(table)), k, settings.seed)
    said = []
    for row in table.itertuples():
        block = model.weights.blocks[row.layer]
        w = block.mlp.down[0][row.neuron]
        w = w if block.norm_mlp_out is None else block.norm_mlp_out.linear(w)
        ids, _ = readings.top_tokens(readout, (w if row.activation >= row.ablated else -w)[None], k)
        found = label(lexicon, ids[0].tolist(), null)
        text = "  ".join(tokenizer.decode([int(t)]).strip(" ") or "\u2423" for t in ids[0])
        said.append([text, found.name, found.share, found.base, found.p])
    named = pd.DataFrame(said, columns=["writes", "label", "label_share", "label_base", "label_p"], index=table.index)
    made = pd.concat([table, named], axis=1)
    return made.assign(p_holm=holm(made["p"]), label_p_holm=holm(made["label_p"]))[NEURONS]
