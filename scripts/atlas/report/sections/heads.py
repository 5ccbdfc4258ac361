"""What the heads of the circuits do: their labels, and the evidence of every analysis that the study makes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from atlas.core.multiple import ALPHA, holm
from atlas.heads.labels import LABELS, UNLABELLED
from atlas.report import role_words
from atlas.report.lens_page import point_name
from atlas.report.pages import Section
from atlas.report.sections.study import Study, led, prompts_of, surely
from atlas.report.wording import count, interval, listing, number, percent, place, words

HALF = 0.5  # of the way from the corrupted to the clean score
NAMED = 3  # heads that a sentence names
LEAST = 0.01  # logits; smaller changes of a head's attribution are not counted as backup


def label_findings(roles: pd.DataFrame, main: list[str], floors: dict[str, Any], prompts: str) -> list[str]:
    """What the heads of the circuits are called, which have no role and why, and which are called differently from task
    to task; then the model's other heads."""
    inside, outside = roles[roles["circuits"] != ""], roles[roles["circuits"] == ""]
    if inside.empty:
        return ["No circuit holds a head, so there is none to explain."]
    names = sorted(inside["component"].unique(), key=place)
    of_main = inside[inside["task"].isin(main)]
    parts, labelled = _by_label(of_main, main)
    total = f"the {count(len(names), 'head')} in any circuit"
    if parts:
        verb = "has" if len(labelled) == 1 else "have"
        first = f"Of {total}, {len(labelled)} {verb} a role on a main task, beyond random heads ({prompts}): "
        first += f"{'; '.join(parts)}."
    else:
        first = f"None of {total} has a role on a main task, beyond random heads ({prompts})."
    sentences = [first, _rule(of_main)]
    sentences += _unlabelled(of_main[~of_main["component"].isin(labelled)])
    sentences += _differences(of_main, "main tasks")
    others = inside[~inside["task"].isin(main)]
    if len(others):
        both = _different(inside) - _different(of_main)
        if both:
            verb = "is" if len(both) == 1 else "are"
            named = listing(sorted(both, key=place))
            sentences.append(f"Counting the other tasks, {named} {verb} called differently on some of them too.")
    if len(outside):
        rest = outside[outside["task"].isin(main) & (outside["label"] != UNLABELLED)]
        held = rest.groupby("label")["component"].nunique()
        kinds = listing(f"{label} {held[label]}" for label in LABELS if label in held) or "none"
        sentences.append(
            f"Of the {count(outside['component'].nunique(), 'head')} in no circuit, "
            f"{rest['component'].nunique()} have a role on a main task ({kinds})."
        )
    never = [label for label in LABELS if label not in floors]
    if never:
        sentences.append(f"No floor is set for {listing(never)}, so no head can be called that.")
    return sentences


def _by_label(roles: pd.DataFrame, main: list[str]) -> tuple[list[str], set[str]]:
    """(`copy: 0.1 (all main tasks) and 1.2 (months)` for each label, the heads that have one)."""
    parts, labelled = [], set()
    for label in LABELS:
        held = roles[roles["label"] == label].groupby("component")["task"].agg(list)
        if len(held):
            heads = [f"{name} ({_tasks(held[name], main)})" for name in sorted(held.index, key=place)]
            parts.append(f"{label}: {listing(heads)}")
            labelled |= set(held.index)
    return parts, labelled


def _rule(roles: pd.DataFrame) -> str:
    """What a role is, or that none was tested."""
    if roles["p"].isna().all():
        return "No role was tested: random heads, against which roles are tested, need a model with a live engine."
    return (
        "A role is a score that random heads of this model do not reach (p < 0.05, corrected over all its heads), that "
        "lies above the same score with members shuffled, and above its floor."
    )


def _unlabelled(roles: pd.DataFrame) -> list[str]:
    """The heads that have no role on any main task, each with what its nearest score lacks."""
    why: dict[str, list[str]] = {}
    for name in sorted(roles["component"].unique(), key=place):
        own = roles[roles["component"] == name].sort_values("p_holm", kind="stable")
        why.setdefault(role_words.lacking(own.iloc[0].to_dict()), []).append(name)
    parts = [f"{listing(names)} ({reason})" for reason, names in why.items()]
    return [f"Unlabelled on every main task: {'; '.join(parts)}."] if parts else []


def _tasks(tasks: list[str], main: list[str]) -> str:
    return "all main tasks" if len(tasks) == len(main) > 1 else listing(map(words, tasks))


def _different(roles: pd.DataFrame) -> set[str]:
    labels = roles.groupby("component")["label"].nunique()
    return set(labels.index[labels > 1])


def _differences(roles: pd.DataFrame, where: str) -> list[str]:
    """One sentence for each head that has several labels, or one that says that there is none."""
    if roles["task"].nunique() < 2:
        return []
    sentences = []
    for name in sorted(_different(roles), key=place):
        held = roles[roles["component"] == name].groupby("label", sort=False)["task"].agg(list)
        parts = [f"{label} on {listing(map(words, tasks))}" for label, tasks in held.items()]
        sentences.append(f"{name} is not called the same on all {where}: {listing(parts)}.")
    return sentences or [f"No head is called differently on different {where}."]


def _known(row: Mapping[str, Any]) -> str:
    """The label of one head on one task with its score and nulls, or how near it comes to a label."""
    evidence = role_words.evidence(row)
    said = f" ({evidence}; {role_words.null(row)})" if evidence else ""
    if row["label"] != UNLABELLED:
        return f"it is called {row['label']} there{said}"
    return f"it has no label there: {role_words.lacking(row)}{said}"


def evidence_findings(roles: pd.DataFrame, attribution: pd.DataFrame | None, tasks: list[str]) -> list[str]:
    """The head that matters most on each task, with what is known of it; and what writes for and against the answer."""
    sentences = []
    for task in tasks:
        own = roles[(roles["task"] == task) & roles["effect"].notna() & (roles["circuits"] != "")]
        if len(own):
            row = own.loc[own["effect"].idxmax()]
            sentences.append(
                f"{words(task).capitalize()}: ablating {row['component']} costs most of all heads of the circuits, "
                f"{number(row['effect'], 1)} points of % of full; {_known(row)}."
            )
        rows = None
        if attribution is not None:
            of_heads = (attribution["part"] == "head") & (attribution["head"] >= 0)
            rows = attribution[(attribution["task"] == task) & of_heads]
        if rows is not None and len(rows):
            parts = []
            for sign, verb in ((1, "for"), (-1, "against")):
                sure = rows[surely(rows) & (sign * rows["value"] > 0)]
                top = sure.assign(size=sure["value"].abs()).nlargest(NAMED, "size")
                names = listing(f"{r['name']} {interval(r, 2)}" for _, r in top.iterrows()) or "none surely"
                parts.append(f"{verb} the answer, {names}")
            sentences.append(f"{words(task).capitalize()}, heads that write most {'; '.join(parts)} (logits).")
    return sentences


def patching_findings(patching: pd.DataFrame, tasks: list[str]) -> list[str]:
    """From which layer on the last position alone decides, and which heads' outputs patching finds."""
    sentences = []
    for task in tasks:
        rows = patching[patching["task"] == task]
        stream = rows[(rows["site"] == "resid_pre") & (rows["position"] == rows["position"].max())]
        parts = []
        for direction, verb in (("denoising", "restores"), ("noising", "takes")):
            own = stream[stream["direction"] == direction].sort_values("layer")
            done = own["value"] >= HALF if direction == "denoising" else own["value"] <= 1 - HALF
            since = next((layer for layer in own["layer"] if done[own["layer"] >= layer].all()), None)
            where = f"from layer {since} on" if since is not None else "at no layer"
            parts.append(f"{verb} at least half of the score {where}")
        text = f"{words(task).capitalize()}: patching the residual stream at the last position alone {listing(parts)}"
        z = rows[(rows["site"] == "z") & (rows["direction"] == "noising")]
        costly = z[surely(z, 1) & (z["value"] < 1)]
        top = costly.assign(lost=1 - costly["value"]).nlargest(NAMED, "lost")
        heads = [f"{r.layer}.{r.head} ({number(100 * r.lost, 0)} %)" for r in top.itertuples()]
        found = f"; corrupted outputs of single heads that cost most: {listing(heads)}" if heads else ""
        sentences.append(f"{text}{found or '; no corrupted output of a single head surely costs anything'}.")
    return sentences


def lens_findings(lens: pd.DataFrame, lead: pd.DataFrame, increments: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Where the answer comes to lead, and within which block an earlier member gives way to it."""
    sentences = []
    for task in tasks:
        own, table = lead[lead["task"] == task], lens[(lens["task"] == task) & (lens["lens"] == "norm")]
        names = dict(zip(table["point"], table["name"], strict=True))
        stays = own.loc[own["stays"] >= 0, "stays"]
        text = f"{words(task).capitalize()}: "
        if len(stays):
            half = int(stays.sort_values().iloc[(len(stays) - 1) // 2])
            text += (
                f"by the logit lens the answer leads to the end on {len(stays)} of {count(len(own), 'prompt')}, on "
                f"half of these from the point {point_name(names[half])} on"
            )
        else:
            text += "the answer is the model's first choice on no prompt"
        steps = increments[(increments["task"] == task) & (increments["lens"] == "norm")]
        top = steps.loc[steps["share"].idxmax()] if len(steps) else None
        if top is not None and top["share"] > 0:
            row = {"value": top["share"], "ci_low": top["ci_low"], "ci_high": top["ci_high"]}
            text += (
                f"; an earlier member gives way to it most often within block {int(top['from_point']) // 2}, on "
                f"{percent(row, 100)} of the prompts"
            )
        elif top is not None:
            text += "; within no block does an earlier member give way to it"
        sentences.append(f"{text}.")
    return sentences


def detector_findings(detectors: pd.DataFrame, floors: dict[str, Any]) -> list[str]:
    """Heads with a general pattern of attention, which random heads do not have."""
    parts = []
    for detector, label in (("previous", "previous token"), ("duplicate", "duplicate"), ("induction", "induction")):
        rows = detectors[detectors["detector"] == detector]
        if rows.empty or label not in floors:
            continue
        held = rows[(rows["value"] >= floors[label]) & (holm(rows["p"]) < ALPHA)]
        names = [f"{r.layer}.{r.head}" for r in held.itertuples()]
        top = rows.loc[rows["value"].idxmax()]
        largest = f"{top['layer']}.{top['head']} {interval(top, 2)}"
        parts.append(f"{label}: {listing(names)}" if names else f"{label}: none (largest {largest})")
    return [f"On repeated random tokens, of all heads of the model: {'; '.join(parts)}."] if parts else []


def backup_findings(backup: pd.DataFrame, tasks: list[str]) -> list[str]:
    """Heads whose direct attribution surely rises when another one is ablated at the last position."""
    sentences = []
    for task in tasks:
        rows = backup[backup["task"] == task]
        name = rows["layer"].astype(str) + "." + rows["head"].astype(str)
        others = rows.assign(name=name)[name != rows["ablated"]]
        if others.empty:
            continue
        rises = others[(others["p_holm"] < ALPHA) & (others["change"] >= LEAST)]
        text = f"{words(task).capitalize()}: "
        if rises.empty:
            sentences.append(f"{text}no head surely writes more for the answer when a head of a circuit is ablated.")
            continue
        top = rises.loc[rises["change"].idxmax()]
        row = {key.removeprefix("change_"): top[key] for key in ("change_ci_low", "change_ci_high")}
        text += (
            f"{count(rises['name'].nunique(), 'head')} surely {'writes' if rises['name'].nunique() == 1 else 'write'} "
            f"more for the answer when some head of a circuit is ablated at the last position; most, {top['name']} "
            f"without {top['ablated']}, by {interval(row | {'value': top['change']}, 2)} logits"
        )
        ratio = f" (the final norm's scale is then {number(top['scale_ratio'], 2)} times what it was)"
        sentences.append(f"{text}{ratio if abs(top['scale_ratio'] - 1) >= 0.05 else ''}.")
    return sentences


def findings(tables: dict[str, Any], main: list[str], floors: dict[str, Any], prompts: str) -> list[str]:
    """Everything above that the study makes, of these ``prompts``; the first sentence stands in the short version."""
    found = label_findings(tables["roles"], main, floors, prompts)
    found += evidence_findings(tables["roles"], tables.get("attribution"), main)
    found += patching_findings(tables["patching"], main) if "patching" in tables else []
    if "lens" in tables:
        found += lens_findings(tables["lens"], tables["lens_lead"], tables["lens_increments"], main)
    found += detector_findings(tables["detectors"], floors) if "detectors" in tables else []
    return found + (backup_findings(tables["backup"], main) if "backup" in tables else [])


def table(roles: pd.DataFrame, tasks: list[str]) -> dict[str, Any] | None:
    """Every head of a circuit with its label on every task; a star where they differ."""
    roles = roles[roles["circuits"] != ""]
    differs = set(roles.loc[roles["differs"], "component"])
    wide = roles.pivot(index="component", columns="task", values="label").reindex(columns=tasks)
    rows = [
        [f"head {name}{' *' if name in differs else ''}", *wide.loc[name].fillna("\u2013")]
        for name in sorted(wide.index, key=place)
    ]
    return {"header": ["head", *map(words, tasks)], "rows": rows} if rows else None


def links(roles: pd.DataFrame, model: str) -> list[tuple[str, str]]:
    """(address, name) of the card of every head of a circuit, relative to the summary's folder."""
    names = roles.loc[roles["circuits"] != "", "component"].unique()
    return [(f"{model}.heads.html#h{name}", name) for name in sorted(names, key=place)]


def section(study: Study) -> Section:
    """Labels of heads and what they rest on; empty where no heads are explained."""
    roles = study.tables.get("roles")
    if roles is None:
        return Section(title="What the heads do")
    explained = [task for task in study.main if task in study.explained]
    return Section(
        title="What the heads do",
        anchor="heads",
        **led(findings(study.tables, explained, study.settings["labels"], prompts_of(study.tables["cross"]))),
        table=table(roles, study.tasks),
        links=links(roles, study.model["model"]),
        note="Labels by tests against random heads and shuffled members, with the floors of heads.labels; a star: "
        "another label on another task. The cards of the heads, their attention patterns and the tokens of the logit "
        "lens are pages of their own beside this one, in the report under 8 Heads.",
    )
