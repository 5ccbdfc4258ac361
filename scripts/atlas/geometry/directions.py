"""The directions of the heads and MLPs of circuits: what they read and write, which carry `next`, what each is worth.

Components are those of the circuits that cost most when ablated at the answer position, on prompts of the search split
(`tails.strongest`); of each task the directions are ablated that attribution favours most on the same prompts. What
ablating them costs is measured on the prompts that results are reported on, beside the whole component and random
directions of its output. The test is of one direction a component, the one that attribution puts first: its loss
against those of random directions, corrected over the components of a task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.components import MLP, Component, heads, mlps
from atlas.core.multiple import corrected, holm
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry import classes, of_members, readings, svd, tails
from atlas.geometry.labels import Lexicon, label
from atlas.heads.attribution import Readout
from atlas.store.job import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.circuit.task_data import TaskData
    from atlas.core.components import Circuit
    from atlas.geometry.tails import Split

WHOLE = -1  # in place of a direction: the whole component
SHOWN = 4  # directions of largest singular values that are read, beside those that are ablated
LISTS = 25  # random lists for each that is labelled, so that p-values may be corrected; at least LEAST
LEAST = 999
NAMES = ["component", "layer", "head", "direction"]
READ = [*NAMES, "singular_value", "share", "sign", "reads", "read_label", "read_share", "read_base", "read_p"]
READ += ["read_p_holm", "writes", "label", "label_share", "label_base", "label_p", "label_p_holm"]
NEXT = [*NAMES, "class", "members", "value", "share", "p", "claim", "tests", "p_holm"]
ABLATED = ["task", *NAMES, "rank", "attribution", "attribution_share", "value", "ci_low", "ci_high", "share", "prompts"]
ABLATED += ["full", "random", "random_low", "random_high", "draws", "p", "claim", "tests", "p_holm"]
MEMBERS = ["task", *NAMES, "answer", "place", "value", "ablated", "prompts"]


@dataclass(frozen=True)
class Settings:
    """heads, mlps: how many of each at most. top: directions of each that are ablated; random: others beside them.
    points: of attribution. prompts: at most, of each split. tokens: of a list. permutations: of members. seed: of all
    that is drawn."""

    heads: int
    mlps: int
    top: int
    points: int
    random: int
    prompts: int
    tokens: int
    permutations: int
    seed: int


@dataclass(frozen=True)
class Known:
    """What of the configuration says which tokens are what: `geometry.classes`, `prompts.fillers`, members of tasks."""

    classes: Mapping[str, Any]
    fillers: Mapping[str, Sequence[str]]
    members: Mapping[str, Sequence[str]]


def run(
    data: Sequence[TaskData],
    circuit: Circuit,
    tokenizer: PreTrainedTokenizerBase,
    known: Known,
    settings: Settings,
    bootstrap: Bootstrap,
) -> dict[str, pd.DataFrame]:
    """The tables `directions`, `direction_next`, `direction_ablations`, `direction_members` of a model, less `model`.

    ``data``: of each task; ``circuit``: the components of all circuits. Raises StudyError where the model has no live
    engine.
    """
    model, s = data[0].model, settings
    tails.weights_of(model, "directions")
    split = {d.task: tails.Split.of(d, "search", s.prompts, "directions") for d in data}
    chosen = tails.strongest(split, heads(circuit), s.heads) + tails.strongest(split, mlps(circuit), s.mlps)
    found = [oriented(d, split) for d in (svd.of_component(model, c) for c in chosen) if len(d)]
    top = {(t, d.component): ranked(d, x, s) for t, x in split.items() for d in found}
    report = {d.task: tails.Split.of(d, d.report_split, s.prompts, "directions") for d in data}
    rows, by_member = [], []
    for task, own in report.items():
        for d in progress(found, f"directions, {task}"):
            rows += ablation_rows(task, d, own, top[task, d.component], s, bootstrap)
            by_member += member_rows(task, d, own, top[task, d.component][0], known.members.get(task, ()))
    ablated = pd.DataFrame(rows, columns=ABLATED[: -len(("claim", "tests", "p_holm"))])
    listed = {d.component: shown(d, [top[task, d.component][0] for task in split]) for d in found}
    reader = Reader.of(model, tokenizer, known, s)
    return {
        "directions": reader.read(found, listed),
        "direction_next": next_table(reader, found, classes.of(known.classes, tokenizer), s),
        "direction_ablations": corrected(ablated, "directions of " + ablated["task"].astype(str)),
        "direction_members": pd.DataFrame(by_member, columns=MEMBERS),
    }


def names(component: Component, direction: int) -> list[Any]:
    """The columns NAMES."""
    return [str(component), component.layer, component.head, direction]


# ---- which directions -----------------------------------------------------------------------------------------
def oriented(directions: svd.Directions, splits: Mapping[str, Split]) -> svd.Directions:
    """Each direction with the sign by which the component writes along it on the prompts, in the mean over tasks, less
    what its ablation puts there."""
    moved = [directions.coefficients(x) - directions.coefficients(x, replaced=True) for x in splits.values()]
    mean = torch.stack([x.mean(0) for x in moved]).mean(0)
    return directions.turned(torch.where(mean < 0, -1.0, 1.0).double())


def ranked(directions: svd.Directions, split: Split, settings: Settings) -> tuple[list[int], np.ndarray]:
    """(the top directions by mean attribution, the largest first; mean attribution of all [r])."""
    mean = directions.attribution(split, settings.points).mean(0)
    return mean.sort(descending=True, stable=True).indices[: settings.top].tolist(), mean.numpy()


def shown(directions: svd.Directions, ablated: Sequence[Sequence[int]]) -> list[int]:
    """Those of the largest singular values, and the first two that each task ablates."""
    return sorted({*range(min(SHOWN, len(directions))), *(j for top in ablated for j in top[:2])})


# ---- ablation -------------------------------------------------------------------------------------------------
def ablation_rows(
    task: str,
    directions: svd.Directions,
    split: Split,
    top: tuple[list[int], np.ndarray],
    settings: Settings,
    bootstrap: Bootstrap,
) -> list[list[Any]]:
    """Rows of ABLATED, less the corrected p: the whole component (rank 0), then its top directions.

    value: logits that ablating it at the answer position costs, in the mean over prompts; share: of what the whole
    component costs, nan where that is not above 0. random, and 95 % of its draws: the mean loss of random directions.
    p: of the first direction alone, the share of random ones that cost as much, itself counted in.
    """
    order, attribution = top
    whole = split.losses([directions.component])[0].numpy()
    losses = directions.losses(split, directions.write[order]).numpy()
    seed = settings.seed + 1000 * directions.component.layer + directions.component.head
    drawn = directions.losses(split, directions.random(settings.random, seed)).mean(1).numpy()
    full, total = float(svd.logits_of(split.tail).mean()), attribution.sum()
    spread = [drawn.mean(), *np.percentile(drawn, [2.5, 97.5]), len(drawn)]
    rows = []
    for rank, (j, loss) in enumerate(zip([WHOLE, *order], [whole, *losses], strict=True)):
        first_order = total if j == WHOLE else attribution[j]
        p = (1 + int((drawn >= loss.mean()).sum())) / (1 + len(drawn)) if rank == 1 else np.nan
        part = loss.mean() / whole.mean() if whole.mean() > 0 else np.nan
        estimate = interval_columns(bootstrap.mean(loss)).values()
        of = [first_order, first_order / total if total > 0 else np.nan, *estimate, part, len(loss), full]
        rows.append([task, *names(directions.component, j), rank, *of, *spread, p])
    return rows


def member_rows(
    task: str, directions: svd.Directions, split: Split, order: Sequence[int], members: Sequence[str]
) -> list[list[Any]]:
    """Rows of MEMBERS: the mean output along each of the directions in ``order``, over the prompts of each answer."""
    clean, replaced = (directions.coefficients(split, r)[:, order].numpy() for r in (False, True))
    rows = []
    for place, (answer, held) in enumerate(by_answer(split.frame, members)):
        for i, j in enumerate(order):
            values = [clean[held, i].mean(), replaced[held, i].mean(), int(held.sum())]
            rows.append([task, *names(directions.component, j), answer, place, *values])
    return rows


def by_answer(frame: pd.DataFrame, members: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Answer -> which of the prompts have it [N], in the order of ``members`` and, of others, of their appearance."""
    order = {word: i for i, word in enumerate(members)}
    answers = frame["answer"].to_numpy()
    found = sorted(dict.fromkeys(answers), key=lambda word: order.get(word, len(order)))
    return [(word, answers == word) for word in found]


# ---- what they read and write ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reader:
    """Reads directions in the space of tokens."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    lexicon: Lexicon
    readout: Readout
    settings: Settings

    @classmethod
    def of(cls, model: Any, tokenizer: PreTrainedTokenizerBase, known: Known, settings: Settings) -> Reader:
        readout = Readout.of(model)
        lexicon = Lexicon.make(tokenizer, readout.w_u.shape[1], known.classes, known.fillers)
        return cls(model, tokenizer, lexicon, readout, settings)

    def read(self, found: Sequence[svd.Directions], listed: Mapping[Component, list[int]]) -> pd.DataFrame:
        """`directions`: those ``listed`` of each component, in both signs; p-values corrected over all rows.

        MLPs read neurons and no tokens: their columns of what is read are empty.
        """
        k, seed = self.settings.tokens, self.settings.seed
        n = max(LEAST, LISTS * 2 * sum(map(len, listed.values())))
        null = readings.random_lists(self.readout, n, k, seed)
        rows = []
        for d in progress(found, "what directions read and write"):
            shares, at = d.values**2 / (d.values**2).sum(), listed[d.component]
            of_tokens = None if d.component.head == MLP else self.read_tokens(d, at, n)
            for sign, name in ((1, "+"), (-1, "-")):
                ids, _ = readings.top_tokens(self.readout, sign * d.write[at], k)
                for i, j in enumerate(at):
                    own = [*names(d.component, j), float(d.values[j]), float(shares[j]), name]
                    read: list[Any] = ["", None, np.nan, np.nan, np.nan]
                    members: list[int] = []
                    if of_tokens:
                        tokens, of_random = of_tokens[name][i], of_tokens["null"]
                        said = label(self.lexicon, tokens.tolist(), of_random)
                        read = [self.text(tokens), said.name, said.share, said.base, said.p]
                        members = [t for t in tokens.tolist() if t in self.lexicon.members]
                    wrote = label(self.lexicon, ids[i].tolist(), null, members)
                    own += [*read, np.nan, self.text(ids[i])]
                    rows.append([*own, wrote.name, wrote.share, wrote.base, wrote.p, np.nan])
        table = pd.DataFrame(rows, columns=READ)
        return table.assign(read_p_holm=holm(table["read_p"]), label_p_holm=holm(table["label_p"]))

    def read_tokens(self, d: svd.Directions, at: list[int], n: int) -> dict[str, np.ndarray]:
        """Top tokens read along the directions ``at``, by sign [len(at), k]; and `null`, along ``n`` random ones."""
        always = np.array(sorted(self.lexicon.members))
        tokens = of_members.sampled(len(self.model.weights.w_e), always, self.settings.seed)
        x = of_members.embedded(self.model.weights, tokens, d.component.layer)
        random = readings.random_directions(x.shape[1], n, self.settings.seed).double().T
        parts = {"+": d.read[:, at], "-": -d.read[:, at], "null": random}
        return {name: of_members.top_read(x, tokens, part, self.settings.tokens) for name, part in parts.items()}

    def text(self, tokens: np.ndarray) -> str:
        """The texts of tokens, one after another, spaces shown."""
        return "  ".join(self.tokenizer.decode([int(t)]).strip(" ") or "\u2423" for t in tokens)


def next_table(
    reader: Reader, found: Sequence[svd.Directions], every_class: Sequence[classes.Members], settings: Settings
) -> pd.DataFrame:
    """`direction_next`: rows of NEXT, of heads alone; the whole head, then every direction.

    p of the whole, and of the direction that adds most against the largest of all directions in each draw; each of the
    two corrected over heads and classes. share: of the whole, nan where that is not above 0.
    """
    rows: list[list[Any]] = []
    for d in found:
        for members in [] if d.component.is_mlp else every_class:
            x = of_members.embedded(reader.model.weights, np.array(members.ids), d.component.layer)
            made = of_members.next_of(d, x, members, reader.readout, settings.permutations, settings.seed)
            if made is None:
                continue
            total, lead = made.values.sum(), int(made.values.argmax())
            for j, value in [(WHOLE, total), *enumerate(made.values)]:
                p = made.p(None if j == WHOLE else j) if j in (WHOLE, lead) else np.nan
                part = value / total if total > 0 else np.nan
                claim = "whole heads write next" if j == WHOLE else "a direction writes next"
                rows.append([*names(d.component, j), members.name, made.members, value, part, p, claim])
    table = pd.DataFrame(rows, columns=NEXT[:-2])
    return corrected(table, table["claim"])[NEXT]
