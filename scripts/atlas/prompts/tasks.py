"""Tasks: ordered members, templates and corruptions, and the prompts that they make.

A prompt is built from a list of slots, clause by clause; nothing is ever replaced inside finished text, so a prompt
always agrees with its own fields (methods: the published code's defect 1).
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import splits
from atlas.prompts.between import Between
from atlas.prompts.corruptions import CORRUPTIONS, Pools, Shown, corrupted
from atlas.prompts.generator import prompt

if TYPE_CHECKING:
    import numpy as np

MOST_MEMBERS = 10_000


def expand_members(block: dict[str, Any] | Iterable[Any]) -> tuple[str, ...]:
    """Members as strings; ``{range: [1, 20]}`` stands for the numerals 1 to 20, both included."""
    if isinstance(block, dict):
        low, high = block["range"]
        return tuple(str(i) for i in range(low, high + 1))
    return tuple(str(m) for m in block)


@dataclass(frozen=True)
class Text:
    """A prompt's text, where in it the members stand (character spans without their leading space), and the spaces that
    stand between it and its answer."""

    text: str
    spans: tuple[tuple[int, int], ...]
    join: str


@dataclass(frozen=True)
class Template:
    """One clause: literal text, one ``{m}`` for the member, at most one filler such as ``{name}``.

    Or, with several ``{m}``, all clauses of a prompt, each with its own text.
    """

    pattern: str
    slots: tuple[tuple[str, str | None], ...]  # (literal text, slot that follows it)

    @classmethod
    def parse(cls, pattern: str) -> Template:
        try:
            parsed = list(string.Formatter().parse(pattern))
        except ValueError as error:
            raise StudyError(f"template {pattern!r}: {error}; write {{{{ and }}}} for braces that are text") from None
        if any(spec or conversion for _, _, spec, conversion in parsed):
            raise StudyError(f"template {pattern!r}: write {{m}} and {{name}} alone, without ! or :")
        slots = tuple((literal, field) for literal, field, _, _ in parsed)
        fields = [field for _, field in slots if field is not None]
        one, kinds = fields.count("m"), {field for field in fields if field != "m"}
        if not one or len(kinds) > 1 or len(fields) > 2 * one:
            raise StudyError(
                f"template {pattern!r}: needs exactly one {{m}} and at most one filler such as {{name}}, or all "
                "clauses of a prompt, each with one {{m}} and at most one filler, all of one kind"
            )
        return cls(pattern, slots)

    @property
    def clauses(self) -> int:
        """How many clauses it writes out; 1: one that every clause of a prompt repeats."""
        return sum(field == "m" for _, field in self.slots)

    @property
    def filler_kind(self) -> str | None:
        return next((field for _, field in self.slots if field not in (None, "m")), None)

    @property
    def before_members(self) -> tuple[str, ...]:
        """Texts that the members of this template may be tried after: what stands right before later clauses' ones."""
        of_members = [i for i, (_, field) in enumerate(self.slots) if field == "m"]
        return tuple(map(self._before, of_members if len(of_members) == 1 else of_members[1:]))

    def _before(self, number: int) -> str:
        literal = self.slots[number][0]
        if literal.endswith(" ") or not (number or literal):
            return "so "
        return f"so{'' if number or literal[:1].isspace() else ' '}{literal}"

    def render(self, members: list[str], fillers: list[str]) -> Text:
        """Clauses for the members, then a last clause cut before its member, whose spaces there belong to the answer.

        A space stands between clauses that bring no whitespace of their own. All other text stands as it is written.
        """
        text = ""
        spans: list[tuple[int, int]] = []
        words = iter(fillers)
        while True:
            apart = text[-1:].isspace() or self.slots[0][0][:1].isspace()
            text += " " if spans and not apart else ""
            for literal, field in self.slots:
                text += literal
                if field == "m":
                    if len(spans) == len(members):
                        cut = text.rstrip(" ")
                        return Text(cut, tuple(spans), text[len(cut) :])
                    member = members[len(spans)]
                    spans.append((len(text), len(text) + len(member)))
                    text += member
                elif field is not None:
                    text += next(words)


@dataclass(frozen=True)
class Task:
    """A sequence-continuation task; see docs/configuration.md for the meaning of each field."""

    name: str
    members: tuple[str, ...]
    step: int | tuple[int, ...] = 1  # several: in turns, over and over
    between: Between | None = None  # what stands in a clause of its own after each member shown
    cyclic: bool = False
    templates: tuple[str, ...] = ("{m}",)
    fillers: dict[str, tuple[str, ...]] | None = None
    random_words: tuple[str, ...] = ()
    shown: int = 4
    per_template: int = 96
    held_out_share: float = 0.5
    hold_out: str = "auto"
    corruption: str = "random_members"
    position: int | None = None  # the slot that the corruption `position` changes, from 0
    forbid_answer: bool = False
    seed: int = 0
    filler_seed: int = 0
    tokens: tuple[int, ...] | None = None  # of each member on a tokenizer, where they may be several

    @classmethod
    def from_config(cls, name: str, block: dict[str, Any]) -> Task:
        """From a task's block merged over the defaults in ``prompts``; raises StudyError on impossible values."""
        corruption: Any = block["corruption"]
        position: int | None = None
        if isinstance(corruption, dict):
            corruption, position = "position", corruption["position"]
        task = cls(
            name=name,
            members=expand_members(block["members"]),
            step=tuple(block["step"]) if isinstance(block.get("step"), list) else block.get("step", 1),
            between=Between.from_config(f"tasks.{name}", block["between"]) if "between" in block else None,
            cyclic=block.get("cyclic", False),
            templates=tuple(block["templates"]),
            fillers={kind: tuple(words) for kind, words in block["fillers"].items()},
            random_words=tuple(block["random_words"]),
            corruption=corruption,
            position=position,
            **{
                key: block[key]
                for key in (
                    "shown",
                    "per_template",
                    "held_out_share",
                    "hold_out",
                    "forbid_answer",
                    "seed",
                    "filler_seed",
                )
            },
        )
        task.check()
        return task

    # ---- members -----------------------------------------------------------------------------------------
    def starts(self) -> list[int]:
        """Indices of the first members from which the shown members and the answer fit."""
        if self.cyclic:
            return list(range(len(self.members)))
        low, high = min(self.places()), max(self.places())
        return [i for i in range(len(self.members)) if i + low >= 0 and i + high < len(self.members)]

    @property
    def steps(self) -> tuple[int, ...]:
        """From each shown member to the next one, the answer included."""
        own = self.step if isinstance(self.step, tuple) else (self.step,)
        return tuple(own[i % len(own)] for i in range(self.shown))

    def places(self) -> list[int]:
        """Of the shown members and the answer, as distances from the first."""
        return list(accumulate(self.steps, initial=0))

    def sequence(self, start: int) -> list[str]:
        """The shown members and the answer."""
        return [self.members[(start + place) % len(self.members)] for place in self.places()]

    @property
    def clauses(self) -> int:
        """Of a prompt, with the unfinished last one."""
        return self.shown * (1 if self.between is None else 2) + 1

    def alike(self, member: str) -> list[str]:
        """The members that take as many tokens as this one, so that they can stand in its place."""
        if self.tokens is None:
            return list(self.members)
        of = dict(zip(self.members, self.tokens, strict=True))
        return [m for m in self.members if of[m] == of[member]]

    def follows(self, first: str, second: str, slot: int | None = None) -> bool:
        """Is ``second`` the member one step after ``first``, which stands in ``slot``? None: a step of any slot."""
        if first not in self.members or second not in self.members:
            return False
        distance = self.members.index(second) - self.members.index(first)
        apart = [distance - step for step in (self.steps if slot is None else self.steps[slot : slot + 1])]
        return any(left % len(self.members) == 0 if self.cyclic else left == 0 for left in apart)

    def rows(self) -> int:
        """Prompts per template: ``per_template`` raised to a multiple of the number of starts."""
        starts = len(self.starts())
        return -(-self.per_template // starts) * starts

    # ---- checks ------------------------------------------------------------------------------------------
    def check(self) -> None:
        where = f"tasks.{self.name}"
        if self.shown < 2:
            raise StudyError(f"{where}.shown: {self.shown} leaves no step to continue; show at least 2 members")
        if len(self.members) > MOST_MEMBERS:
            raise StudyError(f"{where}.members: {len(self.members)} members are too many; at most {MOST_MEMBERS}")
        edged = next((m for m in self.members if not m or m != m.strip()), None)
        if edged is not None:
            raise StudyError(f"{where}.members: {edged!r} is empty or has a space at its edge; write the word alone")
        repeated = sorted(m for m, n in Counter(self.members).items() if n > 1)
        if repeated:
            raise StudyError(f"{where}.members: {repeated[0]!r} occurs more than once; members must differ")
        self.check_steps()
        if self.corruption == "position" and self.position not in range(self.shown):
            raise StudyError(
                f"{where}.corruption.position: {self.position} is not one of the slots 0 to {self.shown - 1}"
            )
        if self.between is not None:
            self.between.check(where, self.shown, self.members)
        for pattern in self.templates:
            template = Template.parse(pattern)
            if template.clauses not in (1, self.clauses):
                raise StudyError(
                    f"{where}.templates: {pattern!r} has {template.clauses} {{m}}, and a prompt {self.clauses} clauses "
                    "with that of its answer; write one clause, or all of them"
                )
            kind = template.filler_kind
            if kind is None:
                continue
            if kind not in (self.fillers or {}):
                known = ", ".join(sorted(self.fillers or {})) or "none"
                raise StudyError(f"template {pattern!r}: no fillers of kind {kind!r} (there are: {known})")
            self.check_fillers(kind)
        if self.held_out_share:
            self.check_hold_out()

    def check_steps(self) -> None:
        """No step is 0, and from some first member on all that is shown is there, and different."""
        where, n = f"tasks.{self.name}", len(self.members)
        if 0 in self.steps:
            raise StudyError(f"{where}.step: 0 repeats one member; give a step other than 0")
        places = {place % n if self.cyclic else place for place in self.places()}
        if not self.starts() or len(places) <= self.shown:
            one = len(set(self.steps)) == 1
            said = f"step {self.steps[0]:+d}" if one else f"steps {' '.join(f'{step:+d}' for step in self.steps)}"
            again = "members come again" if self.starts() and not one else f"{n} members are too few"
            raise StudyError(
                f"{where}: {again} to show {self.shown} and continue with {said}; add members or lower `shown`"
            )

    def check_hold_out(self) -> None:
        """There are two or more of what is held out, so that some are left to search on."""
        where, starts = f"tasks.{self.name}", len(self.starts())
        match splits.chosen(self.hold_out, starts, self.held_out_share):
            case "sequences" if starts < 2:
                raise StudyError(f"{where}.hold_out: sequences needs 2 first members or more, there is {starts}")
            case "templates" if len(set(self.templates)) < 2:
                raise StudyError(f"{where}.hold_out: templates needs 2 templates or more; add one, or set prompts")
            case "prompts" if self.rows() < 2 * starts:
                raise StudyError(
                    f"{where}.per_template: {self.per_template} gives 1 prompt per first member, too few to hold out "
                    f"a share of {self.held_out_share}; use at least {2 * starts}"
                )
            case "prompts" if not any(Template.parse(pattern).filler_kind for pattern in self.templates):
                raise StudyError(
                    f"{where}.hold_out: prompts of templates without fillers differ in their members alone, so none "
                    "can be held out; set hold_out: sequences, or held_out_share: 0"
                )

    def check_fillers(self, kind: str) -> None:
        """Fillers are distinct single words, none of which is a member of the task."""
        seen, members = set(), {m.casefold() for m in self.members}
        for filler in (self.fillers or {})[kind]:
            if filler.casefold() in members:
                raise StudyError(f"prompts.fillers.{kind}: {filler!r} is a member of task {self.name}; remove it")
            if filler in seen or not filler or any(c.isspace() for c in filler):
                raise StudyError(f"prompts.fillers.{kind}: {filler!r} is repeated or not one word; remove it")
            seen.add(filler)
        if len(seen) < self.clauses:
            raise StudyError(f"prompts.fillers.{kind}: {len(seen)} words; a prompt needs {self.clauses} different ones")


# ---- corruptions ---------------------------------------------------------------------------------------------
def pools(task: Task, clean: list[str]) -> list[Pools]:
    """What the task's corruption draws from for each slot, and what it draws from where that will not do.

    Where members may have several tokens, first those that have as many as the member whose slot they take, if every
    slot has others than its own.
    """
    kind = CORRUPTIONS.get(task.corruption)
    if kind is None or kind.draws_from is None:
        return [[clean] * len(clean)]
    if kind.draws_from == "random_words":
        words = [w for w in task.random_words if w not in task.members]
        if not words:
            raise StudyError(f"tasks.{task.name}.random_words: no word that is not a member; add some")
        return [[words] * len(clean)]
    as_long = [task.alike(m) for m in clean] if task.tokens is not None else []
    everything = [task.members] * len(clean)
    return [as_long, everything] if as_long and min(map(len, as_long)) > 1 else [everything]


def corrupt(task: Task, clean: list[str], answer: str, rng: np.random.Generator) -> list[str]:
    """Corrupted members for the shown members ``clean`` (same length, row-aligned)."""
    shown = Shown(clean, answer, task.follows, task.position or 0)
    where = f"tasks.{task.name}"
    return corrupted(task.corruption, shown, pools(task, clean), rng, task.forbid_answer, where)


# ---- prompts -------------------------------------------------------------------------------------------------
def make_prompts(task: Task) -> list[dict[str, Any]]:
    """All prompts of a task, in order of ``prompt``.

    ``prompt`` = row x number of templates + template index, and fillers depend on ``filler_seed``, template and row
    alone: prompt i of every task of a study has the same template and the same fillers.
    """
    import numpy as np

    starts, prompts = task.starts(), []
    for row in range(task.rows()):
        for number, pattern in enumerate(task.templates):
            template = Template.parse(pattern)
            fillers = draw_fillers(task, template.filler_kind, number, row)
            start = starts[row % len(starts)]
            *clean, answer = task.sequence(start)
            rng = np.random.default_rng([task.seed, number, row])
            wrong = corrupt(task, clean, answer, rng)
            others = [] if task.between is None else task.between.draw(task.shown, task.filler_seed, number, row)
            clean_text, corrupted_text = (rendered(template, words, others, fillers) for words in (clean, wrong))
            made = prompt(
                row * len(task.templates) + number,
                template=pattern,
                row=row,
                start=start,
                texts=(clean_text.text, corrupted_text.text),
                join=clean_text.join,
                answers=(answer, clean[-1]),
                members=(clean, wrong),
                fillers=[*fillers, *others],
                answer_in_corrupted=answer in wrong,
            )
            prompts.append(made | {"spans": clean_text.spans, "corrupted_spans": corrupted_text.spans})
    return prompts


def rendered(template: Template, members: list[str], others: list[str], fillers: list[str]) -> Text:
    """The text with each of ``others``, if there are any, in the clause after a member; spans are those of members."""
    if not others:
        return template.render(members, fillers)
    both = [word for pair in zip(members, others, strict=True) for word in pair]
    text = template.render(both, fillers)
    return Text(text.text, text.spans[::2], text.join)


def draw_fillers(task: Task, kind: str | None, template_number: int, row: int) -> list[str]:
    """Different fillers for every clause of one prompt, the unfinished last clause included."""
    if kind is None:
        return []
    import numpy as np

    rng = np.random.default_rng([task.filler_seed, template_number, row])
    pool = (task.fillers or {})[kind]
    return [pool[i] for i in rng.permutation(len(pool))[: task.clauses]]
