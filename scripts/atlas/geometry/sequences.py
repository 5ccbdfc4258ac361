"""Between which sequences a model is steered, and prompts of both that differ in their members alone.

A *sequence* is a task of ordered members, or a class of `geometry.classes`, with a step. Members of two sequences are
matched by *rank*: a numeral's rank is its value, that of any other member its place in the list, from 1 (from 0 where
the list begins with a word for zero). So 3, three, third and March have rank 3. A prompt of the target is matched to
one of the source where it has the same wording and fillers and its last shown member has the same rank; where the steps
are equal, then all members have. Prompts of both count only where every answer is one token.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.core.errors import StudyError
from atlas.geometry.classes import tokens_of
from atlas.prompts.tasks import Template, expand_members
from atlas.prompts.tokens import encode_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AUTO = "auto"
KEY = "geometry.steering.pairs"
RANKS = "ordinals"  # the task or class that `auto` steers numbers to, where there is one
LEAST = 2  # sequences of members on either side: a vector of one says nothing of others
ZERO = frozenset(("zero", "nought", "nil", "cero", "zéro", "null"))
SEARCH, HELD_OUT = "search", "held_out"

log = logging.getLogger("atlas")


@dataclass(frozen=True)
class Ordered:
    """A task or class of members in their order, continued by ``step``."""

    name: str
    words: tuple[str, ...]
    step: int = 1
    cyclic: bool = False

    @property
    def ranks(self) -> dict[int, str]:
        """Rank -> member."""
        if all(re.fullmatch(r"[0-9]{1,9}", word) for word in self.words):
            return {int(word): word for word in self.words}
        first = 0 if self.words[0].casefold() in ZERO else 1
        return dict(enumerate(self.words, first))

    def at(self, ranks: Iterable[int], around: bool) -> list[str] | None:
        """The members of these ranks; None where one is missing. ``around``: the end is followed by the beginning."""
        known = self.ranks
        low = min(known)
        found = [known.get((rank - low) % len(known) + low if around else rank) for rank in ranks]
        members = [word for word in found if word is not None]
        return members if len(members) == len(found) else None


@dataclass(frozen=True)
class Pair:
    """What a model is steered from and to."""

    source: Ordered
    target: Ordered

    @property
    def name(self) -> str:
        return f"{self.source.name} -> {self.target.name}"

    @property
    def same_members(self) -> bool:
        """Do they share members, so that which class a token belongs to says nothing?"""
        return bool(set(self.source.words) & set(self.target.words))

    def sequences(self, shown: int) -> list[tuple[list[str], list[str]]]:
        """For each start that both have: the source's members and answer, and the target's, [shown + 1] each.

        Around the end of a cyclic class only where source and target have the same members.
        """
        around = self.source.cyclic and self.target.cyclic and self.source.words == self.target.words
        found = []
        for last in self.source.ranks:
            back = range(1 - shown, 2)
            one = self.source.at([last + k * self.source.step for k in back], around)
            other = self.target.at([last + k * self.target.step for k in back], around)
            if one and other:
                found.append((one, other))
        return found


# ---- which pairs ---------------------------------------------------------------------------------------------
def ordered_tasks(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Ordered]:
    """Those of the tasks (name -> block) that are one sequence of members with one step and answers of one token."""
    found = {}
    for name, block in tasks.items():
        step = block.get("step", 1)
        other = {"generator", "file", "between"} & set(block) or block.get("multi_token")
        if "members" in block and not other and isinstance(step, int):
            found[name] = Ordered(name, expand_members(block["members"]), step, bool(block.get("cyclic")))
    return found


def ordered_classes(classes: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Ordered]:
    """The classes of `geometry.classes`, continued by one step."""
    kept = {name: block for name, block in classes.items() if block is not None}
    return {n: Ordered(n, expand_members(b["members"]), 1, bool(b.get("cyclic"))) for n, b in kept.items()}


def pairs_of(
    setting: str | Sequence[Sequence[str]],
    tasks: Mapping[str, Mapping[str, Any]],
    main: Sequence[str],
    classes: Mapping[str, Mapping[str, Any] | None],
) -> list[Pair]:
    """The pairs of `geometry.steering.pairs`; raises StudyError on a name that is no sequence.

    `auto`: from the first main task to every other main task of the same step, to `ordinals` where the study has such a
    task or class, and from the first main task that has one to the task of the same members and the opposite step.
    """
    ordered, of_classes = ordered_tasks(tasks), ordered_classes(classes)
    if setting != AUTO:
        return [_named(source, target, ordered, of_classes) for source, target in setting]
    known = [ordered[name] for name in main if name in ordered]
    if not known:
        return []
    first = known[0]
    targets = {other.name: other for other in known[1:] if other.step == first.step}
    ranks = ordered.get(RANKS) or of_classes.get(RANKS)
    if ranks and ranks.name != first.name and ranks.step == first.step:
        targets.setdefault(RANKS, ranks)
    found = [Pair(first, target) for target in targets.values() if not set(target.words) & set(first.words)]
    back = (Pair(a, b) for a in known for b in ordered.values() if a.words == b.words and a.step == -b.step)
    return found + [pair for pair in [next(back, None)] if pair]


def _named(source: str, target: str, tasks: dict[str, Ordered], classes: dict[str, Ordered]) -> Pair:
    if source not in tasks:
        known = ", ".join(tasks) or "none"
        raise StudyError(
            f"{KEY}: {source!r} is no task of ordered members with answers of one token; there are: {known}"
        )
    both = classes | tasks
    if target not in both or target == source:
        raise StudyError(f"{KEY}: {target!r} is no other such task, and no class of geometry.classes; name one of them")
    return Pair(tasks[source], both[target])


# ---- matched prompts -----------------------------------------------------------------------------------------
@dataclass
class Matched:
    """N matched prompts of a pair, as lists of N: tokens, ids of the next members, sides, and texts to be shown.

    ``source_ids``, ``target_ids``: token ids of all members of either.
    """

    pair: Pair
    source_tokens: list[list[int]] = field(default_factory=list)
    target_tokens: list[list[int]] = field(default_factory=list)
    source_next: list[int] = field(default_factory=list)
    target_next: list[int] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    sequence: list[str] = field(default_factory=list)
    source_ids: list[int] = field(default_factory=list)
    target_ids: list[int] = field(default_factory=list)

    def rows(self, split: str) -> list[int]:
        """Numbers of the prompts of a side."""
        return [i for i, side in enumerate(self.split) if side == split]


@dataclass(frozen=True)
class Making:
    """How prompts are made: at most ``prompts`` a side; ``held_out``: members -> side, of the study's own prompts."""

    prompts: int
    seed: int
    prepend_bos: bool


def matched(
    pair: Pair,
    block: Mapping[str, Any],
    sides: Mapping[tuple[str, ...], str],
    tokenizer: PreTrainedTokenizerBase,
    making: Making,
) -> Matched:
    """Matched prompts of a pair in the wordings of the source (``block``: its task's, over the defaults of `prompts`).

    ``sides``: sequence of shown members -> `search` or `held_out`, as the study's prompts are divided; sequences that
    it does not divide are dealt out in turns. Raises StudyError where fewer than `LEAST` sequences of a side are left.
    """
    sequences = pair.sequences(block["shown"])
    sources: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    of_split, of_sequence = [], []
    for split, own in _divided(sequences, sides, block["shown"]).items():
        for one, other, template, fillers in _spread(pair, own, block, making):
            number = len(sources)
            sources.append(_row(number, template, one, fillers))
            targets.append(_row(number, template, other, fillers))
            of_split.append(split)
            of_sequence.append(" ".join(one))
    found = Matched(pair)
    if sources:
        kept = [_encoded(pair, rows, tokenizer, making.prepend_bos) for rows in (sources, targets)]
        for number in sorted(kept[0].keys() & kept[1].keys()):
            of_source, of_target = (rows[number] for rows in kept)
            found.source_tokens.append(of_source["tokens"])
            found.target_tokens.append(of_target["tokens"])
            found.source_next.append(of_source["answer_token"])
            found.target_next.append(of_target["answer_token"])
            found.split.append(of_split[number])
            found.text.append(of_source["text"])
            found.expected.append(of_target["answer"])
            found.sequence.append(of_sequence[number])
    left = {side: len({found.sequence[i] for i in found.rows(side)}) for side in (SEARCH, HELD_OUT)}
    if min(left.values()) < LEAST:
        raise StudyError(
            f"{KEY}: {pair.name}: {left[SEARCH]} sequences to fit on and {left[HELD_OUT]} held out have members and "
            f"answers of one token in both; at least {LEAST} of either are needed; leave the pair out"
        )
    found.source_ids, found.target_ids = (
        sorted({i for i in tokens_of(of.words, tokenizer) if i is not None} | set(seen))
        for of, seen in ((pair.source, found.source_next), (pair.target, found.target_next))
    )
    return found


def _divided(
    sequences: list[tuple[list[str], list[str]]], sides: Mapping[tuple[str, ...], str], shown: int
) -> dict[str, list[tuple[list[str], list[str]]]]:
    """Side -> its sequences: the study's, the others in turns; all in turns where that would leave a side too few."""
    turns = (SEARCH, HELD_OUT)
    of = [sides.get(tuple(one[:shown]), turns[i % 2]) for i, (one, _) in enumerate(sequences)]
    if min(map(of.count, turns)) < LEAST:
        of = [turns[i % 2] for i in range(len(sequences))]
    return {side: [s for s, own in zip(sequences, of, strict=True) if own == side] for side in turns}


def sides_of(members: Iterable[Sequence[str]], splits: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Sequence of shown members -> its side, of the study's prompts; those that stand on both sides are left out."""
    of: dict[tuple[str, ...], set[str]] = {}
    for shown, split in zip(members, splits, strict=True):
        of.setdefault(tuple(shown), set()).add(split)
    if not any(HELD_OUT in both for both in of.values()):
        return {}
    return {shown: next(iter(both)) for shown, both in of.items() if len(both) == 1}


def _spread(
    pair: Pair, sequences: list[tuple[list[str], list[str]]], block: Mapping[str, Any], making: Making
) -> list[tuple[list[str], list[str], str, list[str]]]:
    """(source's members, target's, template, fillers) of at most ``making.prompts`` prompts, evenly over sequences and
    templates."""
    rng, taken = np.random.default_rng(making.seed), {w.casefold() for w in (*pair.source.words, *pair.target.words)}
    templates = [Template.parse(pattern) for pattern in block["templates"]]
    cells = [(one, other, template) for one, other in sequences for template in templates]
    each = -(-making.prompts // len(cells)) if cells else 0
    found = []
    for one, other, template in cells:
        kind = template.filler_kind
        pool = [w for w in block["fillers"][kind] if w.casefold() not in taken] if kind else []
        if kind and len(pool) <= block["shown"]:
            raise StudyError(f"prompts.fillers.{kind}: {len(pool)} words are no member of {pair.name}; add some")
        for _ in range(each if kind else 1):
            fillers = [pool[i] for i in rng.permutation(len(pool))[: block["shown"] + 1]]
            found.append((one, other, template.pattern, fillers))
    at_most = min(making.prompts, len(found))
    return [found[int((i + 0.5) * len(found) / at_most)] for i in range(at_most)]


def _row(number: int, template: str, members: list[str], fillers: list[str]) -> dict[str, Any]:
    """A prompt as `encode_prompts` takes it; it needs no corrupted partner, and is its own."""
    text = Template.parse(template).render(members[:-1], fillers)
    row = {"prompt": number, "template": template, "text": text.text, "corrupted_text": text.text, "join": text.join}
    return row | {"answer": members[-1], "incorrect": members[0], "spans": text.spans, "corrupted_spans": text.spans}


def _encoded(
    pair: Pair, rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, prepend_bos: bool
) -> dict[int, dict[str, Any]]:
    """Number of a prompt -> its row with tokens, of those whose members and answer are one token each."""
    try:
        encoded = encode_prompts(rows, tokenizer, prepend_bos, pair.name, min_layout=1)
    except StudyError as error:
        raise StudyError(f"{KEY}: {error}") from None
    return {row["prompt"]: row for row in encoded.rows}
