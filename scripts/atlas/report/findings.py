"""Sentences about edges, evaluation, positions, stability and generation, by rule from the numbers (see summary.py)."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from atlas.edges.chosen import reported_entry
from atlas.edges.methods import title
from atlas.report.wording import count, interval, listing, number, p_value, percent, place, words

ALPHA = 0.05  # p-values below it are called more than chance
INCOMPLETE = 0.1  # a difference of faithfulness surely above it counts against completeness
CIRCUITS = {"nodes": "node circuit", "edges": "edge circuit"}
FAMILIES = {
    "orders": "search orders",
    "bootstrap": "resamples of the prompts",
    "seeds": "seeds of the prompts",
    "templates": "sets of templates",
    "corruption": "corruptions",
}


def reported(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of held-out prompts; of the prompts searched on where none were held out."""
    held_out = table[table["split"] == "held_out"]
    return held_out if len(held_out) else table


def cell(table: pd.DataFrame, **where: object) -> pd.Series | None:
    """The one row with these values, or None."""
    for key, value in where.items():
        table = table[table[key] == value]
    return table.iloc[0] if len(table) else None


def span(values: Sequence[float], digits: int = 2) -> str:
    """`0.61 to 0.72`, or one number where both print alike."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


# ---- edges ---------------------------------------------------------------------------------------------------
def edge_findings(
    evaluation: pd.DataFrame, circuits: dict[str, Any], areas: pd.DataFrame | None, tasks: list[str]
) -> list[str]:
    """Size of the reported edge circuits, what they keep, and which ranking of edges is best; nothing without edges."""
    table, sizes, sentences = reported(evaluation), [], []
    for task in tasks:
        row = cell(table, task=task, circuit="edges", metric="percent_of_full")
        if row is None:
            return []
        total, faith = circuits[task]["total_edges"], cell(table, task=task, circuit="edges", metric="faithfulness")
        assert faith is not None
        share = f"{row['edges']:.0f} of {total} edges ({100 * row['edges'] / total:.1f} %)"
        sizes.append(f"{share} for {words(task)}, which give {percent(row)}")
        text = (
            f"{words(task).capitalize()}: {count(row['edges'], 'edge')} of {count(row['components'], 'component')} "
            f"and the embeddings; faithfulness {interval(faith, 2)}, counted from the model with every edge ablated."
        )
        lost = sorted(reported_entry(circuits[task])["without_path"], key=place)
        verb = "has" if len(lost) == 1 else "have"
        sentences.append(
            f"{text} {listing(lost)} {verb} edges in it but no path to the logits, and so no effect."
            if lost
            else f"{text} Every component of it has a path to the logits."
        )
    where = "prompts held out" if (table["split"] == "held_out").any() else "prompts searched on"
    first = f"The edge circuits keep {listing(sizes)} of the full model's logit difference on {where}."
    areas = reported(areas)
    ranked = set(areas.loc[areas["method"] != "random", "task"])
    best = [_best(areas, task) for task in tasks if task in ranked]
    return [first, *sentences, *best]


def _best(areas: pd.DataFrame, task: str) -> str:
    """The rankings with the largest CPR and the smallest CMD, and those whose intervals overlap with theirs."""
    parts = []
    for metric, sign, label in (("cpr", -1, "largest CPR"), ("cmd", 1, "smallest CMD")):
        rows = areas[(areas["task"] == task) & (areas["metric"] == metric)]
        ranked = rows[rows["method"] != "random"]
        ranked = ranked.loc[(sign * ranked["value"]).sort_values(kind="stable").index]
        best, others = ranked.iloc[0], ranked.iloc[1:]
        near = others[(others["ci_low"] <= best["ci_high"]) & (others["ci_high"] >= best["ci_low"])]
        text = f"{_ranking(best)} has the {label}, {interval(best, 2)}"
        if len(near):
            text += f", with an interval that meets that of {listing(_ranking(row) for _, row in near.iterrows())}"
        random = cell(rows, method="random")
        parts.append(text + (f" (random edges {number(random['value'], 2)})" if random is not None else ""))
    return f"{words(task).capitalize()}: {'; '.join(parts)}."


def _ranking(row: Mapping[str, Any]) -> str:
    return f"{title(row['method'])} ({row['ranking']})"


def edge_overlap_findings(overlap: pd.DataFrame, typology: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Edges that pairs of circuits share, and the type of each overlap."""
    pairs = overlap[(overlap["level"] == "edges") & overlap["circuit_a"].isin(tasks) & overlap["circuit_b"].isin(tasks)]
    if pairs.empty:
        return []
    beyond = int((pairs["p_layer_matched"] < ALPHA).sum())
    sentences = [
        f"{beyond} of {count(len(pairs), 'pair')} of edge circuits {'shares' if beyond == 1 else 'share'} more edges "
        f"than chance gives (p < {ALPHA}, with the edges between each two layers held fixed)."
    ]
    for _, row in pairs.iterrows():
        sentences.append(
            f"{words(row['circuit_a']).capitalize()} and {words(row['circuit_b'])} share "
            f"{count(row['shared'], 'edge')} of {row['size_a']:.0f} and {row['size_b']:.0f} "
            f"(Jaccard index {number(row['jaccard'], 2)}; {number(row['expected'], 1)} expected for random edges; "
            f"{p_value(row['p_layer_matched'])})."
        )
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for row in typology.itertuples():
        pair = f"{words(row.circuit_a)} and {words(row.circuit_b)} ({row.reason})"
        kinds.setdefault((row.level, row.type), []).append(pair)
    return sentences + [f"By {level}, {kind}: {'; '.join(pairs)}." for (level, kind), pairs in kinds.items()]


# ---- evaluation ----------------------------------------------------------------------------------------------
def evaluation_findings(
    evaluation: pd.DataFrame, completeness: pd.DataFrame, minimality: pd.DataFrame, tasks: list[str]
) -> list[str]:
    """What the reported circuits do beside the logit difference; whether they miss something or hold too much."""
    table = reported(evaluation)
    if table.empty:
        return []
    top = {
        circuit: table[(table["circuit"] == circuit) & (table["metric"] == "top1") & table["task"].isin(tasks)]["value"]
        for circuit in ("nodes", "edges", "full")
    }
    parts = [
        f"{span(100 * top[circuit], 1)} % of the prompts for the {name}"
        for circuit, name in (("nodes", "node circuits"), ("edges", "edge circuits"), ("full", "full model"))
        if len(top[circuit])
    ]
    sentences = [f"The answer is the first choice on {listing(parts)}."]
    for task in tasks:
        rows = table[table["task"] == task]
        names = {c: CIRCUITS.get(c, f"circuit {words(c)}") for c in rows["circuit"] if c not in ("full", "empty")}
        for circuit, name in names.items():
            kl, rank = (cell(rows, circuit=circuit, metric=metric) for metric in ("kl", "answer_rank"))
            if kl is None:
                continue
            empty = cell(rows, circuit="empty", metric="kl")
            text = f"{words(task).capitalize()}, {name}: {interval(kl, 2)} nats of KL divergence from the full model"
            text += f" ({number(empty['value'], 2)} with everything ablated)" if empty is not None else ""
            text += f", and the answer has mean rank {interval(rank, 2)}." if rank is not None else "."
            noising, denoising = (
                cell(rows, circuit=circuit, metric=metric) for metric in ("noising_heads", "denoising_heads")
            )
            if noising is not None and denoising is not None:
                text += (
                    f" With its heads alone taken from the corrupted run, the model keeps "
                    f"{percent(noising, 100)} of the way from corrupted to clean; with them alone taken from the clean "
                    f"run, it regains {percent(denoising, 100)}."
                )
            sentences.append(text)
        for circuit, name in names.items():
            sentences += _complete(
                completeness[(completeness["task"] == task) & (completeness["circuit"] == circuit)], name
            )
            sentences += _minimal(minimality[(minimality["task"] == task) & (minimality["circuit"] == circuit)], name)
    return sentences


def _complete(rows: pd.DataFrame, name: str) -> list[str]:
    if rows.empty:
        return []
    worst = rows.loc[rows["value"].idxmax()]
    off = int((rows["ci_low"] > INCOMPLETE).sum())
    text = (
        f"{words(rows['task'].iloc[0]).capitalize()}, completeness of the {name}: without the same random parts of it, "
        f"circuit and full model differ in faithfulness by {number(rows['value'].mean(), 2)} in the mean of "
        f"{count(len(rows), 'draw')} and by {interval(worst, 2)} at most"
    )
    if off:
        return [f"{text}; in {off} of them surely by more than {INCOMPLETE}, so parts outside do some of the work."]
    return [f"{text}; in none surely by more than {INCOMPLETE}."]


def _minimal(rows: pd.DataFrame, name: str) -> list[str]:
    if rows.empty:
        return []
    free = list(rows.loc[rows["ci_low"] <= 0, "name"])
    edges = any("->" in n for n in rows["name"])
    noun = "edge" if edges else "component"
    task = words(rows["task"].iloc[0]).capitalize()
    if not free:
        return [
            f"{task}, minimality of the {name}: removing any one of its {len(rows)} {noun}s alone surely costs score."
        ]
    named = f": {listing(sorted(free, key=place))}" if not edges else ""
    return [
        f"{task}, minimality of the {name}: {len(free)} of {len(rows)} {noun}s can go alone at no sure cost{named}."
    ]


# ---- positions -----------------------------------------------------------------------------------------------
def position_findings(positions: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Where components are kept in the position-level circuits, and where they matter most."""
    table = positions[positions["task"].isin(tasks)]
    if table.empty:
        return []
    roles = list(dict.fromkeys(table["role"]))
    parts = [
        f"{table.loc[table['role'] == role, 'kept'].sum()} of {(table['role'] == role).sum()} at {role}"
        for role in roles
    ]
    sentences = [f"Position by position, the circuits keep {listing(parts)} (components counted once a task)."]
    for task in tasks:
        rows = table[table["task"] == task]
        if rows.empty:
            continue
        top = rows.sort_values("value", ascending=False, kind="stable").head(3)
        strongest = listing(f"{row['component']} at {row['role']} ({interval(row)})" for _, row in top.iterrows())
        text = f"{words(task).capitalize()}: the largest losses, in points of % of full, are {strongest}."
        kept = rows[rows["kept"]].groupby("component")["role"].agg(list)
        for role in roles:
            alone = sorted((c for c, held in kept.items() if held == [role]), key=place)
            if alone:
                text += f" Kept at {role} only: {listing(alone)}."
        sentences.append(text)
    return sentences


# ---- stability -----------------------------------------------------------------------------------------------
def stability_findings(summary: pd.DataFrame, tasks: list[str]) -> list[str]:
    """How far the circuits depend on the order of the search and on the prompts."""
    table = summary[summary["task"].isin(tasks)]
    compared = table[table["runs"] > 1]
    components = compared[compared["level"] == "component"]
    if components.empty:
        return ["No search was repeated, so how much the circuits depend on order and prompts is unknown."]
    sentences = [
        f"Two searches of one task, with another order or other prompts, end in circuits with a mean Jaccard index of "
        f"{span(components['jaccard'])}; random circuits of the same sizes in every layer have "
        f"{span(components['expected'])}."
    ]
    chance = components[components["jaccard_high"] <= components["expected"]]
    if len(chance):
        cases = listing(f"{words(row.task)} ({FAMILIES[row.family]})" for row in chance.itertuples())
        sentences.append(f"No pair of runs agrees more than chance: {cases}.")
    for task in tasks:
        for level, noun in (("component", "component"), ("edge", "edge")):
            rows = compared[(compared["task"] == task) & (compared["level"] == level)]
            parts = [
                f"{row.intersection} of the {row.union} that any of {row.runs} {FAMILIES[row.family]} keeps (circuits "
                f"of {span([row.size_min, row.size_max], 0)}, Jaccard index {number(row.jaccard, 2)})"
                for row in rows.itertuples()
            ]
            if parts:
                sentences.append(f"{words(task).capitalize()}, {noun}s kept by all: {listing(parts)}.")
    return sentences


# ---- generation under ablation -------------------------------------------------------------------------------
def generation_findings(summary: pd.DataFrame | None) -> list[str]:
    """Whether the model still writes the answer without the circuits' heads, beside random heads; nothing without it.

    Claims rest on the prompts that are not sensitive. Single heads, which have few controls, are told apart from sets.
    """
    if summary is None:
        return []
    table = summary[summary["over"] == "robust"].assign(single=summary["heads"].str.fullmatch(r"\d+\.\d+"))
    sets = table[~table["single"]]
    decided = sets[(sets["controls"] > 0) & (1 / (1 + sets["controls"]) < ALPHA) & (sets["prompts"] > 0)]
    if decided.empty:
        first = "No random control decides whether the heads ablated while the model writes are special."
    else:
        fewer = int((decided["p"] < ALPHA).sum())
        first = (
            f"While it writes, ablating the circuits' heads leaves the model right on fewer prompts than ablating "
            f"random heads in {fewer} of {count(len(decided), 'test')} (p < {ALPHA}; prompts on which most random sets "
            f"fail are left out)."
        )
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
    costly = singles[singles["ci_high"] < 1 - 1e-9].sort_values("value", kind="stable")  # all right, but for rounding
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
    about = [f"random sets {number(100 * row['control_median'], 1)} %", p_value(row["p"])] if row["controls"] else []
    about += [f"{count(row['sensitive'], 'sensitive prompt')} left out"] if row["sensitive"] else []
    return f"{text} ({', '.join(about)})" if about else text
