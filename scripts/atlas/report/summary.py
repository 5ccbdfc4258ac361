"""Summary page of one model: sentences chosen by rule from the numbers, beside the tables they rest on.

Every `*_findings` function takes tables and returns sentences. The first sentence of each stands in the short version.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from atlas.prompts import layouts, splits
from atlas.report import findings, head_findings, pages, published_findings
from atlas.report.findings import ALPHA
from atlas.report.wording import count, interval, listing, number, numbers_of_tokens, p_value, percent, place, words


def against(row: Mapping[str, Any], floor: float) -> str:
    """Where an interval lies: `above`, `below` or `around` the floor."""
    return "above" if row["ci_low"] > floor else "below" if row["ci_high"] < floor else "around"


def grouped(rows: pd.DataFrame, floor: float) -> dict[str, list[str]]:
    """Tasks and their values, by where their intervals lie."""
    groups: dict[str, list[str]] = {}
    for _, row in rows.iterrows():
        groups.setdefault(against(row, floor), []).append(f"{words(row['task'])} ({percent(row)})")
    return groups


def clean_findings(clean: pd.DataFrame, tasks: list[str]) -> list[str]:
    """How well the full model does the tasks."""
    table = clean[(clean["split"] == "all") & (clean["metric"] == "top1")].set_index("task")
    right, corrupted = (table[table["run"] == run].reindex(tasks) for run in ("clean", "corrupted"))
    best, worst = right["value"].idxmax(), right["value"].idxmin()
    if right["value"].nunique() == 1:  # one task, or all alike
        span = percent(right.loc[best], 100)
    else:
        span = f"{percent(right.loc[worst], 100)} ({words(worst)}) to {percent(right.loc[best], 100)} ({words(best)})"
    of_each = " of each task" if len(tasks) > 1 and right["value"].nunique() == 1 else ""
    sentences = [f"The full model's first choice is the answer on {span} of the clean prompts{of_each}."]
    top = corrupted["value"].idxmax()
    sentences.append(f"On corrupted prompts it is so on at most {percent(corrupted.loc[top], 100)} ({words(top)}).")
    failed = right.index[right["ci_high"] < 0.5]
    if len(failed):
        sentences.append(
            f"It gets most prompts of {listing(map(words, failed))} wrong, so a percentage of its score "
            f"says little there."
        )
    return sentences


def answer_findings(info: dict[str, dict[str, Any]], tasks: list[str]) -> list[str]:
    """Which tasks have answers of several tokens, how many, and how they are scored."""
    sentences = []
    for task in tasks:
        if "answer_tokens" not in info[task]["layout"]:
            continue
        sizes = (layouts.answer_sizes(info[task], key) for key in ("answer_tokens", "incorrect_tokens"))
        right, wrong = map(numbers_of_tokens, sizes)
        sentences.append(
            f"{words(task).capitalize()}: answers are of {right}, incorrect ones of {wrong}, so its logit "
            "difference is that of their summed log-probabilities, and its edges and heads are not explained."
        )
    return sentences


def layout_findings(info: dict[str, dict[str, Any]], tasks: list[str], explained: Collection[str]) -> list[str]:
    """Of tasks whose prompts have several layouts: how many are used, and which ones explain their heads."""
    sentences = []
    for task in tasks:
        found = layouts.all_of(info[task])
        if len(found) == 1:
            continue
        used, rejected = (sum(x) for x in ([f["prompts"] for f in found], info[task]["counts"]["rejected"].values()))
        sizes, lengths = ([f[key] for f in found] for key in ("prompts", "tokens"))
        ranges = [f"{min(x)} to {max(x)}" if min(x) < max(x) else f"{x[0]}" for x in (lengths, sizes)]
        sentences.append(
            f"{words(task).capitalize()}: {used} of the {used + rejected} prompts read are used "
            f"({number(100 * used / (used + rejected), 1)} %), in {len(found)} layouts of {ranges[0]} tokens and "
            f"{ranges[1]} prompts, each with means of its own."
        )
        if task in explained:
            sentences.append(
                f"{words(task).capitalize()}: patching, attribution, logit lens, attention, OV scores and backup read "
                f"the most common layout alone: {sizes[0]} of {used} prompts, of {lengths[0]} tokens."
            )
    return sentences


def unchecked_findings(model: dict[str, Any]) -> list[str]:
    """Where the model's logits were not held against transformers'."""
    skipped = model["compared"].get("skipped")
    return [f"The model was too large to hold its logits against transformers' in {skipped}."] if skipped else []


def prompt_findings(clean: pd.DataFrame, info: dict[str, dict[str, Any]], tasks: list[str]) -> list[str]:
    """Which prompts and fillers were left out."""
    sentences = []
    rejected = {t: info[t]["counts"]["rejected"] for t in tasks if sum(info[t]["counts"]["rejected"].values())}
    for task, reasons in rejected.items():
        why = listing(f"{n} for {words(reason)}" for reason, n in reasons.items() if n)
        sentences.append(f"{words(task).capitalize()}: {count(sum(reasons.values()), 'prompt')} rejected ({why}).")
    shares = clean.drop_duplicates("task").set_index("task")["share_kept"].reindex(tasks)
    filtered = [f"{number(100 * share, 1)} % of {words(task)}" for task, share in shares[shares < 1].items()]
    if filtered:
        sentences.append(f"The filter kept {listing(filtered)} prompts; circuits are searched and evaluated on those.")
    for task in tasks:
        counts = info[task]["counts"]
        if counts["duplicates"]:
            said = f"{count(counts['duplicates'], 'prompt')} repeat others, on the same side of the split"
            sentences.append(f"{words(task).capitalize()}: {said}.")
        if counts["undivided"]:
            said = f"{count(counts['undivided'], 'group')} of prompts could not be divided"
            sentences.append(f"{words(task).capitalize()}: {said}, and the search has all of each.")
    for task in tasks:
        slow = info[task].get("slow_tokenizer")
        if slow and slow["different"]:
            sentences.append(
                f"{words(task).capitalize()}: the fast tokenizer splits {slow['different']} of {slow['compared']} "
                "texts unlike the slow one beside it."
            )
    dropped: dict[str, set[str]] = {}
    for task in tasks:
        for kind, fillers in info[task]["dropped_fillers"].items():
            dropped.setdefault(kind, set()).update(fillers)
    for kind, fillers in dropped.items():
        if fillers:
            sentences.append(f"Not used as {kind}, since not one token of their own: {listing(sorted(fillers))}.")
    return sentences or ["No prompt was rejected, none was filtered out, and every filler could be used."]


def new_to_the_search(info: dict[str, Any]) -> str:
    """What held-out prompts hold that the search never saw; ``info`` is prompts.json."""
    if info["hold_out"] in ("sequences", "templates"):
        return f"{splits.UNITS[info['hold_out']]} that the search never saw"
    text, known = "texts that the search never saw", info["counts"]["known_sequences"]
    if not known:
        return text
    all_known = known == info["counts"]["held_out"]
    return f"{text}, {'but' if all_known else f'{known} of them'} with member sequences that it saw"


def held_out_prompts(clean: pd.DataFrame, info: dict[str, dict[str, Any]], tasks: list[str]) -> str:
    """`144 held-out prompts of member sequences that the search never saw`, of each task where they differ."""
    said: dict[str, list[str]] = {}
    table = clean[clean["split"] == "held_out"].drop_duplicates("task").set_index("task")
    for task in table.index.intersection(tasks):
        kept = round(table.loc[task, "prompts"] * table.loc[task, "share_kept"])
        said.setdefault(f"{kept} held-out prompts of {new_to_the_search(info[task])}", []).append(words(task))
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{text} ({listing(names)})" for text, names in said.items())


def circuit_findings(
    faithfulness: pd.DataFrame, tasks: list[str], threshold: float, order: str, all_heads: int, where: str
) -> list[str]:
    """Size of the compared circuits, and what they keep; ``where``: `held_out_prompts`."""
    rows = {task: pages.circuit_rows(faithfulness, task, threshold, order) for task in tasks}
    sizes = {task: int(table["heads"].iloc[0]) for task, table in rows.items()}
    shares = [
        f"{size} of {all_heads} heads ({100 * size / all_heads:.0f} %) for {words(task)}"
        for task, size in sizes.items()
    ]
    held_out = {
        task: table.loc[("held_out", "percent_of_full")]
        for task, table in rows.items()
        if ("held_out", "percent_of_full") in table.index
    }
    given = [f"{percent(row)} ({words(task)})" for task, row in held_out.items()]
    rest = f"; on {where} they give {listing(given)} of the full model's logit difference" if given else ""
    sentences = [f"The circuits keep {listing(shares)}{rest}."]
    floor = 100 - threshold
    for task, table in rows.items():
        search = table.loc[("search", "percent_of_full")]
        text = (
            f"{words(task).capitalize()}: {count(search['heads'], 'head')} and {count(search['mlps'], 'MLP')} give "
            f"{percent(search)} of the full model's logit difference on the prompts searched on"
        )
        if task not in held_out:
            sentences.append(f"{text}; no prompts were held out.")
            continue
        held, faith = held_out[task], table.loc[("held_out", "faithfulness")]
        text += f", and {percent(held)} on the prompts held out (faithfulness {interval(faith, 2)})."
        sentences.append(
            text
            + {
                "above": f" That is above the floor of {floor:g} %.",
                "around": f" That interval includes the floor of {floor:g} %.",
                "below": f" That is below the floor of {floor:g} %: part of it fits only the prompts searched on.",
            }[against(held, floor)]
        )
    return sentences


def split_findings(prompts: pd.DataFrame, tasks: list[str]) -> list[str]:
    """What the held-out prompts can show: whether their sequences of members are new, or only their texts."""
    sentences = []
    for task in tasks:
        rows = prompts[(prompts["task"] == task) & (prompts["members"].map(len) > 0)]
        search, held_out = (set(map(tuple, rows.loc[rows["split"] == s, "members"])) for s in ("search", "held_out"))
        if not held_out:
            continue
        seen = len(held_out & search)
        text = (
            f"{words(task).capitalize()}: {seen} of the {len(held_out)} member sequences held out were also searched on"
        )
        means = {
            0: ", so these prompts test new sequences, though neighbouring ones share members",
            len(held_out): ", so these prompts test new texts, not new sequences",
        }
        sentences.append(f"{text}{means.get(seen, '')}.")
    return sentences


def overlap_findings(membership: pd.DataFrame, overlap: pd.DataFrame, tasks: list[str]) -> list[str]:
    """What the circuits share, whether chance explains it, and what is in one circuit only."""
    if len(tasks) == 1:
        return [f"Only one task was searched ({words(tasks[0])}), so there is no overlap to report."]
    circuits = {task: _members(membership, task) for task in tasks}
    everything, shared = set.union(*circuits.values()), set.intersection(*circuits.values())
    everyone = "both main tasks" if len(tasks) == 2 else f"all {len(tasks)} main tasks"
    pairs = overlap[(overlap["level"] == "heads") & overlap["circuit_a"].isin(tasks) & overlap["circuit_b"].isin(tasks)]
    beyond = f"{(pairs['p_layer_matched'] < ALPHA).sum()} of {count(len(pairs), 'pair')}"
    if shared:
        verb = "is" if len(shared) == 1 else "are"
        first = (
            f"Of the {count(len(everything), 'component')} in any circuit, {len(shared)} {verb} in the circuits "
            f"of {everyone}: {listing(sorted(shared, key=place))}."
        )
    else:
        first = f"No component is in the circuits of {everyone}."
    sentences = [f"{first} {beyond} of circuits share more heads than chance gives (p < {ALPHA})."]
    sentences += [_pair(row) for _, row in pairs.iterrows()]
    for task in tasks:
        own = circuits[task] - set[str]().union(*(c for t, c in circuits.items() if t != task))
        sentences.append(
            f"In the {words(task)} circuit alone: {listing(sorted(own, key=place))}."
            if own
            else f"Every component of the {words(task)} circuit is in another circuit too."
        )
    return sentences


def _members(membership: pd.DataFrame, circuit: str) -> set[str]:
    return set(membership.loc[membership["circuit"] == circuit, "component"])


def _pair(row: Mapping[str, Any]) -> str:
    names = f"{words(row['circuit_a']).capitalize()} and {words(row['circuit_b'])}"
    text = (
        f"{names} share {count(row['shared'], 'head')} of {row['size_a']:.0f} and {row['size_b']:.0f} "
        f"(Jaccard index {number(row['jaccard'], 2)}; {number(row['expected'], 1)} expected for random heads in the "
        f"same layers). "
    )
    matched, plain = row["p_layer_matched"], row["p_hypergeometric"]
    if pd.isna(matched):
        return text + "No p-value was computed."
    if matched < ALPHA:
        return text + f"That is more than chance gives ({p_value(matched)}, with the heads per layer held fixed)."
    if plain < ALPHA:
        return text + (
            f"That is more than chance gives if layers are ignored ({p_value(plain)}) but not with the heads "
            f"per layer held fixed ({p_value(matched)}): the circuits share layers rather than heads."
        )
    return text + f"Chance explains that ({p_value(matched)}, with the heads per layer held fixed)."


def transfer_findings(cross: pd.DataFrame, tasks: list[str], main_tasks: list[str], threshold: float) -> list[str]:
    """What circuits keep on tasks they were not searched on, and what the shared part does."""
    table = cross[(cross["metric"] == "percent_of_full") & cross["task"].isin(tasks)]
    if len(tasks) == 1:
        return ["Only one task is in the study, so no circuit was evaluated on another one."]
    floor, sentences, carried, tried = 100 - threshold, [], 0, 0
    for circuit in main_tasks:
        rows = table[(table["circuit"] == circuit) & (table["task"] != circuit)]
        groups = grouped(rows, floor)
        carried, tried = carried + len(groups.get("above", [])), tried + len(rows)
        said = [
            f"{verb} {listing(groups[where])}"
            for where, verb in (
                ("above", "keeps more on"),
                ("below", "less on"),
                ("around", "cannot be told from it on"),
            )
            if where in groups
        ]
        sentences.append(f"Kept alone, the {words(circuit)} circuit, against {floor:g} %: {'; '.join(said)}.")
    sentences.insert(
        0,
        f"Kept alone on the other tasks, a task's circuit clearly keeps more than {floor:g} % in "
        f"{carried} of {tried} cases.",
    )
    for circuit, doing in (
        ("shared", "Only the shared components kept"),
        ("all but shared", "Only the shared components ablated"),
        ("union", "All circuits' components kept together"),
    ):
        rows = table[table["circuit"] == circuit].set_index("task")
        if len(rows) and len(main_tasks) > 1:
            low, high = rows["value"].idxmin(), rows["value"].idxmax()
            sentences.append(
                f"{doing}, the model is left with {percent(rows.loc[low])} ({words(low)}) to "
                f"{percent(rows.loc[high])} ({words(high)})."
            )
    return sentences


def control_findings(summary: pd.DataFrame) -> list[str]:
    """Whether the circuits do more than random sets of the same shape."""
    tested = summary[summary["controls"] > 0]
    sentences = []
    if tested.empty:
        sentences.append("No random control was possible, so nothing says that these circuits are special.")
    else:
        parts = [
            f"{(rows['p'] < ALPHA).sum()} of {len(rows)} tests of {question}"
            for question, rows in tested.groupby("question", sort=False)
        ]
        sentences.append(
            f"Circuits do more than random sets with as many heads in every layer (p < {ALPHA}) in {listing(parts)}."
        )
    verdicts: dict[str, list[str]] = {}
    for _, row in tested.iterrows():
        numbers = f"{percent(row)}, random sets {number(row['control_median'], 1)} %, {p_value(row['p'])}"
        verdicts.setdefault(_verdict(row), []).append(f"{words(row['task'])} ({numbers})")
    sentences += [f"{verdict}: {listing(cases)}." for verdict, cases in verdicts.items()]
    for note, rows in summary[summary["controls"] == 0].groupby("note", sort=False):
        names = listing(dict.fromkeys(_control_name(row) for _, row in rows.iterrows()))
        sentences.append(f"Not tested: {names} ({note or 'no controls'}).")
    return sentences


def _verdict(row: Mapping[str, Any]) -> str:
    best_p = 1 / (1 + row["controls"])
    if row["p"] >= ALPHA and best_p >= ALPHA:
        return f"So few sets of this shape exist that p cannot fall below {best_p:.2g}, which decides nothing"
    more, rest = ("more", "") if row["p"] < ALPHA else ("no more", ", so these heads are not special there")
    if row["question"] == "sufficiency":
        return f"With only its heads kept, the circuit keeps {more} than random sets{rest}"
    return f"Ablating the {words(row['circuit'])} heads does {more} harm than ablating random sets{rest}"


def _control_name(row: Mapping[str, Any]) -> str:
    if row["circuit"] == row["task"]:
        return f"{row['question']} of the {words(row['circuit'])} circuit"
    return f"{row['question']} of the {words(row['circuit'])} heads for {words(row['task'])}"


def summary_page(
    tables: dict[str, Any],
    info: dict[str, Any],
    circuits: dict[str, Any],
    model: dict[str, Any],
    settings: dict[str, Any],
    provenance: dict[str, Any],
) -> str:
    """The findings of one model.

    `tables` holds the tables of that name (`clean` is clean_summary.parquet, `cross` cross.parquet, and so on); `info`
    and `circuits` are prompts.json and edge_circuits.json by task; `model` is model.json; `settings` has `title`,
    `tasks`, `main_tasks`, `threshold`, `order`, `labels` and whatever else is to be shown. In a study without edges,
    `edge_areas` is missing and the sections about them are left out; likewise `generation` and `published`, and `roles`
    with all other tables of what heads do where every main task has answers of several tokens. `left_out` is that of
    analyses.json, and what it names has no table.
    """
    tasks, main, threshold, order = (settings[key] for key in ("tasks", "main_tasks", "threshold", "order"))
    explained = set(tables["roles"]["task"]) if "roles" in tables else set()
    all_heads = model["n_layers"] * model["n_heads"]
    faithfulness, cross = tables["faithfulness"], tables["cross"]
    found = {
        "clean": clean_findings(tables["clean"], tasks)
        + answer_findings(info, tasks)
        + layout_findings(info, tasks, explained),
        "circuits": circuit_findings(
            faithfulness, main, threshold, order, all_heads, held_out_prompts(tables["clean"], info, main)
        )
        + split_findings(tables["prompts"], main),
        "overlap": overlap_findings(tables["membership"], tables["overlap"], main),
        "transfer": transfer_findings(cross, tasks, main, threshold),
        "edges": findings.edge_findings(tables["evaluation"], circuits, tables.get("edge_areas"), main),
        "edge overlap": findings.edge_overlap_findings(tables["overlap"], tables["typology"], main),
        "evaluation": findings.evaluation_findings(
            tables["evaluation"], tables["completeness"], tables["minimality"], main
        ),
        "positions": findings.position_findings(tables["positions"], main),
        "heads": head_findings.head_findings(tables, [t for t in main if t in explained], settings["labels"])
        if "roles" in tables
        else [],
        "left out": head_findings.left_out_findings(tables["left_out"]) + unchecked_findings(model),
        "stability": findings.stability_findings(tables["stability_summary"], main),
        "controls": control_findings(tables["controls_summary"]),
        "generation": findings.generation_findings(tables.get("generation")),
        "published": published_findings.published_findings(tables.get("published")),
    }
    # What stands in the short version is not said again, unless it is all that a section has to say.
    details = {name: sentences[1:] for name, sentences in found.items()}
    sections: list[dict[str, Any]] = [
        {
            "title": "The full model on clean and corrupted prompts",
            "sentences": details["clean"],
            "table": pages.clean_table(tables["clean"], info, tasks),
            "note": "Means over all prompts of a task. Logit difference: logit of answer minus incorrect answer.",
        },
        {
            "title": f"Circuits (threshold {threshold:g} %, order {words(order)})",
            "sentences": details["circuits"],
            "table": pages.circuit_table(faithfulness, main, threshold, order, all_heads),
            "note": "% of full: logit difference of the circuit over that of the full model. Faithfulness: the same, "
            "counted from the model with all heads and MLPs ablated.",
        },
        {
            "title": "Edges",
            "sentences": details["edges"],
            "table": pages.areas_table(tables["edge_areas"], main) if "edge_areas" in tables else None,
            "note": "CPR: area under faithfulness over the share of edges, 1 is best. CMD: area between it and 1, 0 is "
            "best. Signed rankings put the edges that help most first, absolute ones those that change most.",
        },
        {
            "title": "The circuits on other metrics",
            "sentences": details["evaluation"],
            "table": pages.evaluation_table(tables["evaluation"], main),
            "note": "Noising: the circuit's components from the corrupted run, all else clean; denoising: the other "
            "way round; both 0 as the corrupted run, 1 as the clean one. Full: nothing ablated; empty: everything.",
        },
        {"title": "Positions", "sentences": details["positions"]},
        {
            "title": "What the heads do",
            "anchor": "heads",
            "sentences": details["heads"],
            "table": head_findings.label_table(tables["roles"], tasks) if "roles" in tables else None,
            "links": _head_links(tables["roles"], model["model"]) if "roles" in tables else [],
            "note": "Labels by the thresholds of heads.labels; a star: another label on another task. The cards of the "
            "heads, their attention patterns and the tokens of the logit lens are pages of their own beside this one, "
            "in the report under 8 Heads.",
        },
        {
            "title": "What the circuits share, and what they do not",
            "sentences": details["overlap"],
            "table": pages.overlap_table(tables["overlap"]),
            "note": "p-values are not corrected for the number of pairs." if len(main) > 2 else "",
        },
        {
            "title": "Edges that the circuits share",
            "sentences": details["edge overlap"],
            "note": "Edges of one component come and go together, so chance shares more of them than counted here, and "
            "the p-values of edges are too small where circuits share components.",
        },
        {
            "title": "From task to task",
            "sentences": details["transfer"],
            "table": pages.cross_table(cross, tasks, main),
            "note": "% of full with 95 % interval. All but shared: the full model, only the shared components ablated.",
        },
        {
            "title": "Stability",
            "sentences": details["stability"],
            "table": pages.stability_table(tables["stability_summary"], main),
            "note": "Jaccard index: mean over pairs of runs [least, largest]. Expected: random circuits with the same "
            "numbers per layer; for edges not computed.",
        },
        {
            "title": "Random controls",
            "sentences": details["controls"],
            "table": pages.controls_table(tables["controls_summary"]),
            "note": "Sufficiency: only the set's heads are kept, with the circuit's MLPs. Necessity: they are ablated.",
        },
        {
            "title": "Generation under ablation",
            "sentences": details["generation"],
            "table": pages.generation_table(tables["generation"]) if "generation" in tables else None,
            "note": "Share of the prompts answered unablated that stay right, token by token. Sensitive prompts, on "
            "which more than half of the random sets fail, are left out of all columns but the last. p-values are not "
            "corrected for the number of tests.",
        },
        {
            "title": "Beside published figures",
            "sentences": details["published"],
            "table": published_findings.published_table(tables["published"]) if "published" in tables else None,
            "note": "Difference: ours minus published, also of values that are not comparable. Tolerances and what "
            "agreement needs: docs/published.md.",
        },
        {"title": "Left out", "sentences": details["left out"]},
        {"title": "Prompts left out", "sentences": prompt_findings(tables["clean"], info, tasks)},
        {
            "title": "Settings",
            "table": {
                "header": ["setting", "value"],
                "rows": [[words(key), _plain(value)] for key, value in settings.items()],
            },
        },
        {
            "title": "Provenance",
            "pre": json.dumps({"model": model, "tables": provenance}, indent=1, ensure_ascii=False),
        },
    ]
    return pages.PAGE.render(
        title=f"{settings['title']}: {model['model']}",
        warning=pages.warning(model),
        lead=f"{model['architecture']}, {model['n_layers']} layers of {count(model['n_heads'], 'head')} and one MLP. "
        f"Brackets hold 95 % bootstrap intervals over prompts; sentences are chosen by rule from the numbers.",
        short=[sentences[0] for sentences in found.values() if sentences],
        sections=[s for s in sections if s.get("sentences") or s.get("table") or s.get("pre")],
    )


def _head_links(roles: pd.DataFrame, model: str) -> list[tuple[str, str]]:
    """(address, name) of every head's card, relative to the summary's folder."""
    return [(f"{model}.heads.html#h{name}", name) for name in sorted(roles["component"].unique(), key=place)]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {content}" for key, content in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
