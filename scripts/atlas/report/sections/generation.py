"""Whether the model still writes the answer without the circuits' heads, beside random heads."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.circuit.verdicts import BEYOND, UNTESTABLE
from atlas.core.multiple import ALPHA
from atlas.generate.scores import SINGLE
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, surely
from atlas.report.wording import count, interval, listing, number, p_of_tests, p_value, percent, words


def findings(summary: pd.DataFrame | None) -> list[str]:
    """Whether the model still writes the answer without the circuits' heads, beside random heads; nothing without it.

    Claims rest on the prompts that are not sensitive. Single heads, which have few controls, are told apart from sets.
    """
    if summary is None:
        return []
    table = summary[summary["over"] == "robust"].assign(single=summary["heads"].str.fullmatch(SINGLE))
    sets = table[~table["single"]]
    decided = sets[sets["state"] != UNTESTABLE]
    if decided.empty:
        why = "; ".join(dict.fromkeys(sets["reason"])) or "no set of heads"
        first = f"No random control decides whether the heads ablated while the model writes are special ({why})."
    else:
        first = (
            f"While it writes, ablating the circuits' heads leaves the model right on fewer prompts than ablating "
            f"random heads in {(decided['state'] == BEYOND).sum()} of {count(len(decided), 'test')} (p < {ALPHA}, "
            f"corrected for all of them; prompts on which most random sets fail are left out)."
        )
        undecided = len(sets) - len(decided)
        first += f" {count(undecided, 'test')} more cannot be decided by random sets." if undecided else ""
    sentences = [first]
    for name, rows in table.groupby("set", sort=False):
        sentences += _written(name, rows)
    impossible = sets[sets["controls"] == 0].groupby("note", sort=False)["heads"].unique()
    sentences += [
        f"No random set to compare with for {listing(map(words, names))} ({note or 'no controls'})."
        for note, names in impossible.items()
    ]
    return sentences


def _written(name: str, rows: pd.DataFrame) -> list[str]:
    """One prompt set: what the unablated model gets right, and what is left of it."""
    given, failed, rejected = (int(rows[key].iloc[0]) for key in ("given", "failed", "rejected"))
    text = f"{words(name).capitalize()}: unablated, the model is right on {given - failed - rejected} of "
    text += count(given - rejected, "prompt")
    text += f", and {failed} {'is' if failed == 1 else 'are'} set aside" if failed else ""
    text += f" ({rejected} more rejected)" if rejected else ""
    rows = rows[rows["prompts"] > 0]
    sets, singles = rows[~rows["single"]], rows[rows["single"]]
    text += "." if len(rows) else "; there is nothing to test."
    compared, alone = (sets[(sets["controls"] > 0) == known] for known in (True, False))
    if len(compared):
        text += f" Beside random sets, there stay right {listing(_left(row) for _, row in compared.iterrows())}."
    if len(alone):
        text += f" With nothing to compare: {listing(_left(row) for _, row in alone.iterrows())}."
    sentences = [text]
    fewer = singles[surely(singles, 1) & (singles["ci_high"] < 1 - 1e-9)]  # all right, but for rounding
    costly = fewer.sort_values("value", kind="stable")
    if len(singles):
        named = listing(f"{row['heads']} ({percent(row, 100)})" for _, row in costly.iterrows())
        sentences.append(
            f"{words(name).capitalize()}, one shared head ablated: fewer are surely right without {named}."
            if named
            else f"{words(name).capitalize()}, one shared head ablated: none alone surely costs a prompt."
        )
    return sentences


def _left(row: Mapping[str, Any]) -> str:
    heads = {"shared": "the shared heads", "union": "the heads of any circuit"}
    text = f"{percent(row, 100)} without {heads.get(row['heads'], 'the ' + words(row['heads']) + ' heads')}"
    about = []
    if row["controls"]:
        about = [f"random sets {number(100 * row['control_median'], 1)} %", p_of_tests(row, row["controls"])]
    about += [f"{count(row['sensitive'], 'sensitive prompt')} left out"] if row["sensitive"] else []
    return f"{text} ({', '.join(about)})" if about else text


def table(summary: pd.DataFrame) -> dict[str, Any]:
    """Every prompt set with every head set, sensitive prompts left out; the last column has all prompts."""
    everywhere = summary[summary["over"] == "all"].set_index(["set", "heads"])
    rows = []
    for _, row in summary[summary["over"] == "robust"].iterrows():
        whole = everywhere.loc[(row["set"], row["heads"])]
        spread = f"{number(100 * row['control_median'], 1)} "
        spread += f"[{number(100 * row['control_low'], 1)}, {number(100 * row['control_high'], 1)}]"
        compared = bool(row["controls"] and row["prompts"])
        cells = [words(row["set"]), words(row["heads"]), f"{row['prompts']:.0f}", f"{row['sensitive']:.0f}"]
        cells += [interval(row, 1, 100) if row["prompts"] else "\u2013", f"{row['controls']:.0f}"]
        cells += [spread, *(p_value(row[key], name="") for key in ("p", "p_holm"))] if compared else ["\u2013"] * 3
        cells.append(f"{number(100 * whole['value'], 1)} ({p_value(whole['p'])})" if whole["prompts"] else "\u2013")
        rows.append(cells)
    header = ["prompts", "heads ablated", "used", "sensitive", "% right", "random sets", "their median [95 % of them]"]
    return {"header": [*header, "p", "p, corrected", "% right, all prompts"], "rows": rows}


def section(study: Study) -> Section:
    """Generation under ablation; empty in a study without it."""
    summary = study.tables.get("generation")
    return Section(
        title="Generation under ablation",
        **led(findings(summary)),
        table=None if summary is None else table(summary),
        note="Share of the prompts answered unablated that stay right, token by token. Sensitive prompts, on which "
        "more than half of the random sets fail, are left out of all columns but the last, whose p is not corrected. "
        "Corrected: Holm, over all prompt sets and sets of heads, single heads apart; a dash where so few random sets "
        "exist that no p could fall below 0.05.",
    )
