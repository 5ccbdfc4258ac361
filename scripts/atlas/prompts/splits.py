"""Which prompts are held out: circuits are searched on the others (`search`) and reported on these (`held_out`).

Prompts that belong together are dealt out together, as one *unit*: those with the same text or the same tokens always;
with `hold_out: sequences` also those that show the same members, with `templates` those of one wording. *Strata* are
what both sides should hold (wordings, first members, the values of a column). Chance decides by seed and content alone,
never by the order of rows.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from atlas.core.errors import StudyError

UNITS = {"prompts": "texts", "sequences": "member sequences", "templates": "wordings"}  # hold_out -> its units
ENOUGH_STARTS = 8  # `auto` holds out whole sequences from this many first members on,
LEAST_STARTS = 3  # if either side gets this many of them
EVERYTHING = ("all",)  # the stratum of all prompts

Row = Mapping[str, Any]
Stratum = tuple[Any, ...]


# ---- what is held out ----------------------------------------------------------------------------------------
def held_out_count(units: int, share: float) -> int:
    """How many of so many units are held out: the share rounded down, but one at least, and never all."""
    return 0 if units < 2 or not share else max(1, min(int(units * share + 1e-9), units - 1))


def chosen(hold_out: str, starts: int, share: float) -> str:
    """`hold_out` with `auto` decided; ``starts``: the first members of a task, 0 where prompts come from a file."""
    if hold_out != "auto":
        return hold_out
    held_out = held_out_count(starts, share)
    enough = starts >= ENOUGH_STARTS and min(held_out, starts - held_out) >= LEAST_STARTS
    return "sequences" if enough else "prompts"


def chosen_for(rows: Sequence[Row], hold_out: str, share: float) -> str | None:
    """The same for prompts; None where nothing is held out, as of a single prompt."""
    starts = {row["start"] for row in rows} - {-1}
    return chosen(hold_out, len(starts), share) if share and len(rows) > 1 else None


# ---- units and strata ----------------------------------------------------------------------------------------
def components(*keys: Sequence[Hashable]) -> list[list[int]]:
    """Indices of rows that share a key, directly or through others, by first row; ``keys``: lists with one a row."""
    above = list(range(len(keys[0])))

    def root(row: int) -> int:
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for column in keys:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(column):
            a, b = root(first.setdefault(key, row)), root(row)
            above[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for row in range(len(above)):
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())


def _same_prompt(rows: Sequence[Row]) -> tuple[list[Hashable], list[Hashable]]:
    """Keys of what a model reads as one prompt: the text, and its tokens."""
    return [row["text"] for row in rows], [tuple(row["tokens"]) for row in rows]


def units(rows: Sequence[Row], hold_out: str) -> list[list[int]]:
    """Indices of the rows that stay on one side."""
    together: list[list[Hashable]] = [*_same_prompt(rows)]
    if hold_out == "sequences":
        together.append([tuple(row["members"]) for row in rows])
    if hold_out == "templates":
        together.append([row["template"] for row in rows])
    return components(*together)


def strata(row: Row, hold_out: str) -> set[Stratum]:
    """What both sides should hold, of this prompt.

    Every wording, unless wordings are held out, and with `prompts` every first member in it; the value of the column
    that the task names; every layout and number of answer tokens, since a mean at a position needs searched ones.
    """
    found: set[Stratum] = {EVERYTHING}
    if hold_out != "templates":
        found.add(("template", row["template"], *([row["start"]] if hold_out == "prompts" else [])))
    if "stratum" in row:
        found.add(("stratum", row["stratum"]))
    if "layout" in row:
        found.add(("layout", row["layout"]))
    if "answer_tokens" in row:
        found.add(("answer tokens", max(len(row["answer_tokens"]), len(row["incorrect_tokens"]))))
    return found


# ---- dealing out ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Unit:
    """``rows``: indices. ``name``: what chance draws by. ``kin``: units of one kin are spread over both sides."""

    rows: tuple[int, ...]
    strata: frozenset[Stratum]
    name: str
    kin: str


def described(rows: Sequence[Row], hold_out: str, share: float) -> list[Unit]:
    """The units of a task's prompts.

    Kin are, with `sequences`, neighbouring first members, so that those held out lie all along the list of members; in
    files, prompts of one answer, so that a few answers are on both sides. First members are named by their place,
    whatever the members are: tasks of one study with as many hold out the same ones.
    """
    groups = units(rows, hold_out)
    starts = sorted({row["start"] for row in rows} - {-1})
    by_start = hold_out == "sequences" and bool(starts)
    few = held_out_count(len(starts), share)
    stretches = min(few, len(starts) - few)  # of neighbouring first members, each with one of the rarer side
    found = []
    for group in groups:
        all_strata = frozenset[Stratum]().union(*(strata(rows[i], hold_out) for i in group))
        first = min(group, key=lambda i: (rows[i]["text"], rows[i]["answer"]))
        if by_start:
            place = starts.index(rows[first]["start"])
            name, kin = str(place), str(place * stretches // len(starts))
        elif hold_out == "templates":
            name, kin = min(rows[i]["template"] for i in group), ""
        else:
            name, kin = rows[first]["text"], repr((sorted(map(repr, all_strata)), rows[first]["answer"]))
        found.append(Unit(tuple(group), all_strata, name, kin))
    return found


def draw(seed: int, *names: str) -> float:
    """A number from 0 to below 1 that depends on the seed and the names alone."""
    digest = blake2b("\n".join([str(seed), *names]).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def in_order(found: Iterable[Unit], seed: int) -> list[Unit]:
    """Units in the order in which they are held out: random, and each kin evenly along it."""
    families: dict[str, list[Unit]] = defaultdict(list)
    for unit in found:
        families[unit.kin].append(unit)
    places = []
    for kin, family in families.items():
        offset = draw(seed, "kin", kin)
        family.sort(key=lambda unit: (draw(seed, "unit", unit.name), unit.name))
        places += [((k + offset) / len(family), unit.name, unit) for k, unit in enumerate(family)]
    return [unit for _, _, unit in sorted(places, key=lambda place: place[:2])]


def deal(found: Sequence[Unit], share: float, seed: int) -> set[int]:
    """Indices of the rows that are held out.

    Each stratum of two units or more gets its share (`held_out_count`), and search keeps at least one unit of every
    stratum. Where units belong to several strata, a share can be missed, and at worst a stratum is not held out at all.
    """
    ordered, of = in_order(found, seed), defaultdict(list)
    for unit in ordered:
        for stratum in unit.strata:
            of[stratum].append(unit)
    taken: Counter[Stratum] = Counter()
    rows: set[int] = set()

    def hold_out(unit: Unit) -> None:
        taken.update(unit.strata)
        rows.update(unit.rows)

    for unit in ordered:
        if all(taken[stratum] < held_out_count(len(of[stratum]), share) for stratum in unit.strata):
            hold_out(unit)
    for stratum in sorted(of, key=repr):
        spare = (u for u in of[stratum] if all(taken[s] < len(of[s]) - 1 for s in u.strata))
        if not taken[stratum] and (unit_left := next(spare, None)):
            hold_out(unit_left)
    return rows


def split(name: str, rows: list[dict[str, Any]], hold_out: str, share: float, seed: int, rejected: int = 0) -> None:
    """Give every prompt of task ``name`` its ``split``, `search` or `held_out`; raises StudyError where none can be.

    Rows hold ``text``, ``tokens``, ``template``, ``start`` (-1 where prompts come from a file), ``members``, ``answer``
    and perhaps ``stratum``. ``rejected``: how many prompts were left out before, for the message.
    """
    what = chosen_for(rows, hold_out, share)
    found = described(rows, what, share) if what else []
    held_out = deal(found, share, seed)
    if share and not held_out and len(rows) + rejected > 1:
        raise StudyError(_nothing_held_out(name, rows, what or "prompts", len(found), rejected))
    for i, row in enumerate(rows):
        row["split"] = "held_out" if i in held_out else "search"


def _nothing_held_out(name: str, rows: Sequence[Row], hold_out: str, found: int, rejected: int) -> str:
    left = f"{len(rows)} of {len(rows) + rejected} prompts are left" if rejected else f"there are {len(rows)} prompts"
    of_one = f"all of one {UNITS[hold_out].removesuffix('s')}"
    each = f"{found} different {UNITS[hold_out]}, each the only one of its wording, first member or stratum"
    said = f"{left}, {each if found > 1 else of_one}"
    other = "hold_out: sequences, or " if hold_out == "prompts" and rows[0]["start"] >= 0 else ""
    return (
        f"tasks.{name}.held_out_share: nothing can be held out, since {said}; give more different prompts, or set "
        f"{other}held_out_share: 0"
    )


# ---- what is said of it --------------------------------------------------------------------------------------
def counts(rows: Sequence[Row]) -> dict[str, int | None]:
    """How many prompts are on each side, and what the sides share.

    ``duplicates``: prompts beyond the first of each text (or of the same tokens). ``known_sequences``: held-out prompts
    whose members, in this order, are searched on too; None where members are not known.
    """
    sides: dict[str, list[Row]] = {"search": [], "held_out": []}
    for row in rows:
        sides[row["split"]].append(row)
    searched = {tuple(row["members"]) for row in sides["search"]}
    known = sum(tuple(row["members"]) in searched for row in sides["held_out"])
    return {
        "prompts": len(rows),
        **{side: len(found) for side, found in sides.items()},
        "duplicates": len(rows) - len(components(*_same_prompt(rows))),
        "known_sequences": known if all(len(row["members"]) for row in rows) else None,
    }


def undivided(rows: Sequence[Row], hold_out: str) -> list[str]:
    """The strata that no held-out prompt has: too small, or tied to others."""
    of: dict[Stratum, set[str]] = defaultdict(set)
    for row in rows:
        for stratum in strata(row, hold_out):
            of[stratum].add(row["split"])
    return sorted(" ".join(map(str, stratum)) for stratum, sides in of.items() if "held_out" not in sides)
