"""What stands between the members of a sequence, in clauses of its own: a second sequence, or words that are none.

`Map found in three. Key found in May. Hat found in four. Box found in June. Cup found in` has the answer `five`: two
sequences that alternate, of which the first is asked for. With words in place of the second one the sequence stands
among distractors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlas.core.errors import StudyError
from atlas.prompts.words import refuse_repeated


@dataclass(frozen=True)
class Between:
    """A second sequence (``step`` other than None), or ``words`` in a random order.

    Clean and corrupted prompt hold the same ones. They are no members, and have no role of their own (positions.py).
    """

    words: tuple[str, ...]
    step: int | None = None
    cyclic: bool = False

    @classmethod
    def from_config(cls, where: str, block: dict[str, Any]) -> Between:
        """From `between` of a task's block; StudyError where it gives both ``members`` and ``words``, or neither."""
        if ("members" in block) == ("words" in block):
            raise StudyError(f"{where}.between: give `members`, a second sequence, or `words`, in any order")
        if "words" in block:
            surplus = next((key for key in ("step", "cyclic") if key in block), None)
            if surplus:
                raise StudyError(f"{where}.between.{surplus}: words have no order; take it out, or give `members`")
            return cls(tuple(map(str, block["words"])))
        return cls(tuple(map(str, block["members"])), block.get("step", 1), block.get("cyclic", False))

    def starts(self, shown: int) -> list[int]:
        """Indices of the first words from which ``shown`` fit."""
        if self.cyclic or self.step is None:
            return list(range(len(self.words)))
        reach = self.step * (shown - 1)
        return [i for i in range(len(self.words)) if 0 <= i + reach < len(self.words)]

    def check(self, where: str, shown: int, members: Sequence[str]) -> None:
        """Raise StudyError where ``shown`` different words cannot be drawn, or one of them is a member."""
        key = f"{where}.between"
        both = next((word for word in self.words if word.casefold() in {m.casefold() for m in members}), None)
        if both is not None:
            raise StudyError(f"{key}: {both!r} is also a member; give others")
        refuse_repeated(key, self.words)
        if self.step == 0:
            raise StudyError(f"{key}.step: 0 repeats one member; give a step other than 0")
        if not self.starts(shown) or len(set(self.sequence(self.starts(shown)[0], shown))) < shown:
            raise StudyError(f"{key}: {len(self.words)} words are too few to show {shown}; give more, or lower `shown`")

    def sequence(self, start: int, shown: int) -> list[str]:
        """``shown`` words from the one at ``start`` on."""
        return [self.words[(start + (self.step or 1) * i) % len(self.words)] for i in range(shown)]

    def draw(self, shown: int, *seeds: int) -> list[str]:
        """The words of one prompt, which depend on the seeds alone."""
        import numpy as np

        rng = np.random.default_rng([*seeds, 1])
        if self.step is None:
            return [self.words[i] for i in rng.permutation(len(self.words))[:shown]]
        starts = self.starts(shown)
        return self.sequence(starts[int(rng.integers(len(starts)))], shown)
