"""Names and numbers as figures and pages print them; needs no matplotlib."""

from collections.abc import Iterable, Mapping
from typing import Any

COMBINED = ("shared", "union", "all but shared")  # circuits in the cross table that no search found


def words(name: str, width: int | None = None) -> str:
    """A task, circuit or order as words, on several lines if it is longer than `width`: `random_0` -> `random 0`."""
    lines = [""]
    for word in str(name).split("_"):
        if lines[-1] and width and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def listing(items: Iterable[Any]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = list(map(str, items))
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def count(n: float, noun: str) -> str:
    """`1 head`, `3 heads`."""
    return f"{n:.0f} {noun}" if n == 1 else f"{n:.0f} {noun}s"


def numbers_of_tokens(counts: dict[str, int]) -> str:
    """`2 tokens (12 prompts) and 3 tokens (1 prompt)`, from such an entry as `answer_tokens` of the layout."""
    return listing(f"{count(int(n), 'token')} ({count(prompts, 'prompt')})" for n, prompts in counts.items())


def number(value: float, digits: int = 0) -> str:
    """A number with a true minus sign and never minus zero; a dash where there is none."""
    if value != value:
        return "\u2013"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\u2212")


def interval(row: Mapping[str, Any], digits: int = 1, factor: float = 1) -> str:
    """`82.1 [80.0, 84.0]`, from `value`, `ci_low` and `ci_high`."""
    value, low, high = (number(factor * row[key], digits) for key in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def percent(row: Mapping[str, Any], factor: float = 1) -> str:
    """`82.1 % [80.0, 84.0]`."""
    return interval(row, 1, factor).replace(" [", " % [")


def p_value(p: float, name: str = "p") -> str:
    """`p = 0.03`, `p < 0.001`, or `no p` where none was computed; without a name `0.03`, `< 0.001` and a dash.

    Three digits where two would read 0.05, so that a reader sees on which side of it p lies.
    """
    if p != p:
        return f"no {name}" if name else "\u2013"
    if p < 0.001:
        return f"{name} < 0.001".strip()
    said = f"{p:.2g}" if f"{p:.2g}" != "0.05" else f"{p:.3g}"
    return f"{name} = {said}" if name else said


def p_of_tests(row: Mapping[str, Any], draws: float = 0, p: str = "p", noun: str = "random set") -> str:
    """`p = 0.0099, the smallest that 100 random sets can give; 0.03 corrected for 3 tests`, of a row with its tests.

    draws: the random sets, or what ``noun`` says, from which p was counted, (1 + r) / (1 + draws); 0 for an exact one.
    """
    said = [p_value(row[p])]
    if draws and row[p] <= (1 + 1e-9) / (1 + draws):
        said[0] += f", the smallest that {count(draws, noun)} can give"
    if row["p_holm"] == row["p_holm"] and row["tests"] > 1:
        same = p_value(row["p_holm"]) == p_value(row[p])
        said.append(f"{'the same' if same else p_value(row['p_holm'], '')} corrected for {row['tests']:.0f} tests")
    return "; ".join(said)


def is_mlp(component: str) -> bool:
    """Whether a component's name is an MLP's: `m4`."""
    return component.startswith("m")


def heads_and_mlps(n_heads: float, n_mlps: float, all_mlps: int, heads: str = "head") -> str:
    """`11 heads and 6 of 6 MLPs`: MLPs apart, since circuits tend to hold most of the few that a model has."""
    return f"{count(n_heads, heads)} and {n_mlps:.0f} of {count(all_mlps, 'MLP')}"


def place(component: str) -> tuple[int, int, int]:
    """Sort key: by layer, heads before the MLP. `4.2` -> (4, 0, 2), `m4` -> (4, 1, 0)."""
    if is_mlp(component):
        return int(component[1:]), 1, 0
    layer, head = component.split(".")
    return int(layer), 0, int(head)
