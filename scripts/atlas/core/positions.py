"""Where things stand in a prompt, and the words for it: one layout, made with the prompts, read by all.

A position has one of each of these; the first that applies, in the order that is given.

- *Role* (`Layout.roles`): `last`, where the model answers; `bos`, where one is prepended; `members`; `separators`, all
  else. Circuits at positions keep components at the positions of a role.
- *Name* (`Layout.names`): the role, members with their number, as in `member 2`. So a member that stands last is
  called `last`: what is read there is the answer.
- *Relative role* (`Layout.relative`), of a key as a query sees it: `self`; `last member`, shown before the query;
  `first member`; `other members`; `first token`, to which many heads attend for want of anything else; `same slot`, in
  an earlier clause; `separators`, all else.
- *Slot* (`Layout.slots`): which clause, and how many tokens before or after the member of that clause.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

ROLES = ("bos", "members", "separators", "last")  # in the order of tables
RELATIVE = ("self", "last member", "first member", "other members", "first token", "same slot", "separators")


class Slot(NamedTuple):
    """``offset`` tokens before (negative) or after the member of a ``clause``, 0 in it; printed as `clause 2 -1`."""

    clause: int  # from 1, in the order of the text; the answer, which is not shown, has the last
    offset: int

    def __str__(self) -> str:
        return f"clause {self.clause} {self.offset:+d}" if self.offset else f"clause {self.clause}"


@dataclass(frozen=True)
class Layout:
    """Where the members of a prompt stand and where the model answers."""

    tokens: int  # of the prompt, BOS included
    members: tuple[tuple[int, int], ...]  # first and last position of each member shown; none where a file tells none
    answer_position: int  # where the model's next token is the answer
    bos: bool = False  # is position 0 a BOS token?

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Layout":
        """From a layout of `prompts.json`, whose counts are left out."""
        members = tuple((first, last) for first, last in entry["members"])
        return cls(entry["tokens"], members, entry["answer_position"], entry["bos"])

    def to_json(self) -> dict[str, Any]:
        """Inverse of `of`."""
        members = [list(span) for span in self.members]
        return {"tokens": self.tokens, "members": members, "answer_position": self.answer_position, "bos": self.bos}

    # ---- members ---------------------------------------------------------------------------------------------
    @property
    def member_positions(self) -> list[int]:
        """Positions of all tokens of members, member by member."""
        return [position for first, last in self.members for position in range(first, last + 1)]

    @property
    def places(self) -> list[int]:
        """The position of each member; raises ValueError where one has several tokens."""
        if len(self.member_positions) > len(self.members):
            raise ValueError("members of several tokens have no one position")
        return self.member_positions

    @cached_property
    def _member_at(self) -> tuple[int | None, ...]:
        """Index of the member at each position."""
        found: list[int | None] = [None] * self.tokens
        for index, (first, last) in reversed(list(enumerate(self.members))):
            found[first : last + 1] = [index] * (last + 1 - first)
        return (None, *found[1:]) if self.bos else tuple(found)

    # ---- words for positions ---------------------------------------------------------------------------------
    def role(self, position: int) -> str:
        """What a position is called; the one place that says which word comes first."""
        if position == self.answer_position:
            return "last"
        if self.bos and position == 0:
            return "bos"
        return "separators" if self._member_at[position] is None else "members"

    @property
    def roles(self) -> dict[str, list[int]]:
        """Role -> its positions; each position has one role, and a role without positions is left out."""
        found: dict[str, list[int]] = {role: [] for role in ROLES}
        for position in range(self.tokens):
            found[self.role(position)].append(position)
        return {role: positions for role, positions in found.items() if positions}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each position."""

        def name(position: int) -> str:
            role, member = self.role(position), self._member_at[position]
            return f"member {member + 1}" if role == "members" and member is not None else role

        return tuple(map(name, range(self.tokens)))

    @property
    def queries(self) -> dict[str, int]:
        """Name -> position, of the positions from which heads are looked at: members, at their last token, and `last`.

        In order of the members' numbers.
        """
        ends = {self.names[last]: last for _, last in self.members if self.names[last].startswith("member")}
        return ends | {"last": self.answer_position}

    @cached_property
    def slots(self) -> tuple[Slot | None, ...]:
        """The slot of each position: none for BOS, and none at all where members are unknown.

        A clause holds one member. It begins as many tokens before its own as the first one does, or where the member
        before it has ended, whichever is later, and reaches to the next one. The answer's clause, the last, is that of
        the member that would stand after the answer position.
        """
        found: list[Slot | None] = [None] * self.tokens
        if not self.members:
            return tuple(found)
        spans, ended = sorted(set(self.members)), int(self.bos)
        lead = spans[0][0] - self.bos
        for clause, (first, last) in enumerate([*spans, (self.answer_position + 1,) * 2], 1):
            for position in range(max(first - lead, ended), self.tokens):
                found[position] = Slot(clause, min(position - first, 0) + max(position - last, 0))
            ended = last + 1
        return tuple(found)

    def relative(self, query: int) -> list[str]:
        """The relative role of each key 0 .. ``query``.

        Where the query stands within a member of several tokens, the ones before it are the last member's. Where one
        member is shown it is the last one, not the first.
        """
        shown = [member for member in self._member_at[:query] if member is not None]

        def role(key: int) -> str:
            member, here, there = self._member_at[key], self.slots[query], self.slots[key]
            if member is not None:
                if member == shown[-1]:
                    return "last member"
                return "first member" if member == shown[0] else "other members"
            if key == 0:
                return "first token"
            same = here and there and there.offset == here.offset and there.clause < here.clause
            return "same slot" if same else "separators"

        return [*map(role, range(query)), "self"]
