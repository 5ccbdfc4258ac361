"""Edge circuits: their sizes, what they keep, which ranking of edges is best, and which edges they share."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.compare.exchange import DRAWS, FLOOR
from atlas.core.multiple import ALPHA
from atlas.edges.chosen import reported_entry
from atlas.edges.methods import REPORTED, title
from atlas.report.pages import Section
from atlas.report.sections.study import Study, cell, led, reported
from atlas.report.wording import count, interval, listing, number, p_of_tests, percent, place, words

GREEDY = " Greedy ones are as absolute ones, but each edge waits until edges before it connect its end to the logits."


def findings(
    evaluation: pd.DataFrame, circuits: dict[str, Any], areas: pd.DataFrame | None, tasks: list[str]
) -> list[str]:
    """Size of the reported edge circuits, what they keep, and which ranking of edges is best; nothing without edges."""
    table, sizes, sentences = reported(evaluation), [], []
    where = "prompts held out" if (table["split"] == "held_out").any() else "prompts searched on"
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
        entry = reported_entry(circuits[task])
        sentences.append(f"{text} {_lost(entry)} {_choice(entry, where)}".rstrip())
    first = f"The edge circuits keep {listing(sizes)} of the full model's logit difference on {where}."
    areas = reported(areas)
    ranked = set(areas.loc[areas["method"] != "random", "task"])
    best = [_best(areas, task) for task in tasks if task in ranked]
    return [first, *sentences, *best]


def _choice(entry: Mapping[str, Any], where: str) -> str:
    """How the circuit was chosen, and what the choice does to its score; nothing where there was one candidate."""
    if entry.get("candidates", 1) == 1:
        return ""
    by = title(entry["method"])
    by += f", with removed edges back in by {title(entry['added'])}" if entry["added"] else ""
    rule = "the smallest that passes the floor" if entry["passes"] else "none passes the floor; it is near the best"
    ended = f"{count(entry['found_edges'], 'edge')}, which keep {number(entry['found_percent'], 1)} % there"
    return (
        f"Of {entry['candidates']} candidates it is the one of {by} ({rule} on {where}; {REPORTED.title} itself ended "
        f"at {ended}). By bootstrap the choice raises the score by {number(entry['optimism'], 1)} points, and "
        f"{100 * entry['chosen_again']:.0f} % of the resamples choose the same circuit."
    )


def _lost(entry: Mapping[str, Any]) -> str:
    """What became of components, and their edges, on no path from the embeddings to the logits."""
    lost, dropped = listing(sorted(entry["without_path"], key=place)), entry["dropped"]
    if not lost:
        return "Every component of it lies on a path from the embeddings to the logits."
    verb = "lies" if len(entry["without_path"]) == 1 else "lie"
    if not dropped:
        return (
            f"{lost} {verb} on no path from the embeddings to the logits: what their edges carry is constant or lost."
        )
    return (
        f"{count(dropped, 'edge')} of {lost}, which {verb} on no path from the embeddings to the logits, "
        f"{'was' if dropped == 1 else 'were'} dropped; with {'it' if dropped == 1 else 'them'} the circuit gives "
        f"{number(entry['percent_with_dropped'], 1)} % on the prompts searched on, without "
        f"{number(entry['percent_of_full'], 1)} %."
    )


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


def overlap_findings(overlap: pd.DataFrame, typology: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Edges that pairs of circuits share, and the type of each overlap."""
    pairs = overlap[(overlap["level"] == "edges") & overlap["circuit_a"].isin(tasks) & overlap["circuit_b"].isin(tasks)]
    if pairs.empty:
        return []
    beyond = int((pairs["p_holm"] < ALPHA).sum())
    sentences = [
        f"{beyond} of {count(len(pairs), 'pair')} of edge circuits {'shares' if beyond == 1 else 'share'} more edges "
        f"than chance gives with other heads of the same layers in their places (p < {ALPHA}, corrected for all pairs)."
    ]
    for _, row in pairs.iterrows():
        sentences.append(
            f"{words(row['circuit_a']).capitalize()} and {words(row['circuit_b'])} share "
            f"{count(row['shared'], 'edge')} of {row['size_a']:.0f} and {row['size_b']:.0f} "
            f"(Jaccard index {number(row['jaccard'], 2)}), {number(row['ratio'], 1)} times the "
            f"{number(row['expected'], 1)} expected of random edges between the same layers; with the heads of one "
            f"circuit exchanged within layers, {number(row['expected_exchanged'], 1)} are expected "
            f"({p_of_tests(row, DRAWS, 'p_exchanged', 'draw')})."
        )
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for row in typology.itertuples():
        pair = f"{words(row.circuit_a)} and {words(row.circuit_b)} ({row.reason})"
        kinds.setdefault((row.level, row.type), []).append(pair)
    return sentences + [f"By {level}, {kind}: {'; '.join(pairs)}." for (level, kind), pairs in kinds.items()]


def table(areas: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """CPR and CMD of every ranking, on held-out prompts where there are any."""
    held_out = areas[areas["split"] == "held_out"]
    table = (held_out if len(held_out) else areas).set_index(["task", "method", "ranking", "metric"])
    rows = [
        [words(method), ranking or "\u2013"]
        + [
            interval(table.loc[(task, method, ranking, metric)], 2)
            if (task, method, ranking, metric) in table.index
            else "\u2013"
            for task in tasks
            for metric in ("cpr", "cmd")
        ]
        for method, ranking in dict.fromkeys(zip(areas["method"], areas["ranking"], strict=True))
    ]
    header = ["method", "ranking", *(f"{words(task)}, {metric.upper()}" for task in tasks for metric in ("cpr", "cmd"))]
    return {"header": header, "rows": rows} if rows else None


def section(study: Study) -> Section:
    """The reported edge circuits; empty without edges."""
    areas = study.tables.get("edge_areas")
    return Section(
        title="Edges",
        **led(findings(study.tables["evaluation"], study.circuits, areas, study.main)),
        table=None if areas is None else table(areas, study.main),
        note="CPR: area under faithfulness over the share of edges, 1 is best. CMD: area between it and 1, 0 is best. "
        "Signed rankings put the edges that help most first, absolute ones those that change most."
        + (GREEDY if areas is not None and "greedy" in set(areas["ranking"]) else ""),
    )


def shared(study: Study) -> Section:
    """Edges that pairs of circuits share."""
    return Section(
        title="Edges that the circuits share",
        **led(overlap_findings(study.tables["overlap"], study.tables["typology"], study.main)),
        note="Edges of one component come and go together, so that random edges are too low a bar; exchanged heads "
        f"take their edges along. That p is {FLOOR:g} at least, its floor: one in {DRAWS + 1} draws.",
    )
