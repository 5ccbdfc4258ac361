"""Published figures beside those of a study: our value, the published one, the difference, and a stated tolerance.

A publication is a folder (resources/published/<name>). `study.json` says for each figure what it is, how close our
value has to come and why, and which settings agreement needs; `values.csv` holds the values; `completions.json`, where
there is one, what the published model wrote. They speak of tasks by their published names; `study.json` says which of
our tasks and circuits these are.

Nothing is compared silently. Where a setting is another than agreement needs, or the model has random weights, both
values and their difference are shown, `within` stays empty and the note says why (`not comparable`). What the study did
not compute has a row without our value (`not computed`).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.compare.published_figures import FIGURES, HEADED, OURS
from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.store.artifacts import digest

KEYS = ["figure", "task", "item"]
COLUMNS = ["figure", "title", "unit", "task", "item", *OURS, "published", "difference", "tolerance", "within"]
COLUMNS += ["status", "note"]
COMPARED, NOT_COMPARABLE, NOT_COMPUTED = ("compared", "not comparable", "not computed")
OTHERS = "on other prompts than the published ones"
MISSING_TEXT = "no such prompt and head set here, or the unablated model already gives another answer"
RANDOM = "the model has random weights"
LAYERED = re.compile(r"(?:m|attn |resid_pre |resid_mid |block )?(\d+)(?:[.@]\d+)?")  # items that name a layer


# ---- what was published --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Published:
    """A publication: `about` is study.json, `values` has figure, task, item and published; both with our names."""

    about: dict[str, Any]
    values: pd.DataFrame
    completions: list[dict[str, Any]]


def read(folder: Path | str) -> Published:
    """The publication in a folder, its tasks and items under the names that a study of ours gives them."""
    folder = Path(folder)
    about = json.loads((folder / "study.json").read_text())
    unknown = sorted(set(about["figures"]) - set(FIGURES))
    if unknown:
        raise StudyError(f"{folder / 'study.json'}: figures.{unknown[0]} is unknown; one of {', '.join(FIGURES)}")
    named = about["tasks"]
    for block in (about, *about["figures"].values()):
        for key in ("members", "prompts", "instances"):
            if key in block:
                block[key] = {named[task]: content for task, content in block[key].items()}
    values = pd.DataFrame(columns=[*KEYS, "published"])
    if (folder / "values.csv").is_file():
        values = pd.read_csv(folder / "values.csv", dtype={"item": str}).rename(columns={"value": "published"})
    values["task"] = [named[task] for task in values["task"]]
    items = {name: spec.get("items", {}) for name, spec in about["figures"].items()}
    values["item"] = [items[f].get(item, item) for f, item in zip(values["figure"], values["item"], strict=True)]
    written = folder / "completions.json"
    return Published(about, values, json.loads(written.read_text()) if written.is_file() else [])


# ---- what a study has ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Studied:
    """What decides whether figures can be compared.

    `model` is model.json; `settings`: task -> dotted key -> value; `prompts`: task -> `digest`, `count`, `instances`
    (member x place in different sequences of members); `layouts`: task -> `tokens`, `member_positions`.
    """

    model: dict[str, Any]
    settings: dict[str, dict[str, Any]]
    prompts: dict[str, dict[str, Any]]
    layouts: dict[str, dict[str, Any]]


def prompts_of(frame: pd.DataFrame) -> dict[str, Any]:
    """Digest, number and instances of a task's prompts (prompts.parquet)."""
    frame = frame.sort_values("prompt")
    columns = [frame[name] for name in ("text", "corrupted_text", "answer", "incorrect")]
    sequences = {tuple(members) for members in frame["members"]}
    return {
        "digest": digest([list(row) for row in zip(*columns, strict=True)]),
        "count": len(frame),
        "instances": sum(map(len, sequences)),
    }


def layout_of(info: dict[str, Any]) -> dict[str, Any]:
    """What a publication says of its layout, of the most common one of prompts.json."""
    layout = Layout.of(info["layout"])
    return {"tokens": layout.tokens, "member_positions": layout.member_positions}


# ---- comparison ----------------------------------------------------------------------------------------------
def compare(published: Published, tables: dict[str, Any], studied: Studied, threshold: float) -> pd.DataFrame:
    """A row for every published value, and for what was published but is not computed (columns: COLUMNS).

    `tables`: membership, cross and, of all main tasks together, choice, evaluation, minimality, effects
    (component_effects), clean (clean_summary), ov, lens_increments, attribution, patching; `generation` (see `written`)
    where the study has it. `ours_low`, `ours_high`: 95 % interval over prompts, where there is one.
    """
    chosen, rows = {"threshold": threshold}, []
    other = _other_circuits(published, tables)
    for name, spec in published.about["figures"].items():
        values = published.values[published.values["figure"] == name]
        ours = FIGURES[name](tables, chosen)
        for task, wanted in values.groupby("task", sort=False):
            rows += _of_task(name, spec, task, wanted, ours[ours["task"] == task], published, studied, other)
    if published.completions:
        rows += _completions(published, tables.get("generation"), studied)
    for entry in published.about["not_computed"]:
        task = published.about["tasks"].get(entry["task"], entry["task"])
        row = {"figure": entry["figure"], "title": entry["title"], "unit": "", "task": task, "item": entry["item"]}
        rows.append(row | {"status": NOT_COMPUTED, "note": entry["reason"]})
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys((*OURS, "published", "difference", "tolerance"), float) | {"within": "boolean"})


def _of_task(
    name: str,
    spec: dict[str, Any],
    task: str,
    wanted: pd.DataFrame,
    ours: pd.DataFrame,
    published: Published,
    studied: Studied,
    other: dict[str, int],
) -> list[dict[str, Any]]:
    """The rows of one figure and task."""
    known = wanted.set_index("item")["published"].to_dict()
    mine = ours.set_index("item")[OURS].to_dict("index")
    items = [*known, *(item for item in mine if "absent" in spec and item not in known)]
    record = is_record(spec, task, published.about, studied)
    reasons = disagreements(spec, task, published.about, studied)
    tolerance = spec["tolerance"]["record" if record else "made"]
    rows = []
    for item in items:
        value, blank = known.get(item, spec.get("absent")), dict.fromkeys(OURS, float("nan"))
        row = {"figure": name, "title": spec["title"], "unit": spec["unit"], "task": task, "item": item}
        row |= {"published": value, "tolerance": tolerance}
        missing = absent(item, spec, task, published.about, studied)
        if not missing and item not in mine and "ours_absent" in spec:
            mine[item] = blank | {"ours": spec["ours_absent"]}
        if missing or item not in mine:
            rows.append(row | {"status": NOT_COMPUTED, "note": missing or spec["missing"]})
            continue
        row |= mine[item]
        row["difference"] = row["ours"] - value
        row |= {"status": NOT_COMPARABLE if reasons else COMPARED}
        if reasons:
            row["note"] = f"not comparable because {'; '.join(reasons)}"
        else:
            notes = [] if record else [OTHERS]
            if spec.get("differs") and other.get(item, other.get(task)):  # in the cross matrix items are circuits
                apart = other.get(item, other.get(task))
                notes.append(f"our circuit differs from the published one in {apart} of their components")
            row |= {"within": bool(abs(row["difference"]) <= tolerance + 1e-9), "note": "; ".join(notes)}
        rows.append(row)
    return rows


def is_record(spec: dict[str, Any], task: str, about: dict[str, Any], studied: Studied) -> bool:
    """Were the study's prompts of a task those that the figure was published for?"""
    wanted, ours = (prompts.get(task, {}).get("digest") for prompts in (about["prompts"], studied.prompts))
    return spec.get("prompts_of_record", True) and wanted is not None and ours == wanted


def disagreements(spec: dict[str, Any], task: str, about: dict[str, Any], studied: Studied) -> list[str]:
    """Why a task's values cannot be held against the published ones; empty where they can."""
    if task not in studied.settings:
        return []  # nothing is computed, which the rows say
    found = other_model(about, studied)
    settings, needs = studied.settings[task], dict(spec["needs"])
    if not is_record(spec, task, about, studied):
        needs |= spec["made"]
        if "prompts.per_template" in spec["made"]:  # the published figure is of this study's members too
            needs["task.members"] = about["members"][task]
        if settings["file"] and spec["made"]:
            found.append("the prompts come from a file and are not those of record")
            needs = dict(spec["needs"])
    found += other_settings(needs, settings)
    wanted, have = spec.get("layout"), studied.layouts[task]
    if wanted and any(have[key] != wanted[key] for key in wanted):
        found.append(f"prompts have {_places(have)}, the published ones {_places(wanted)}")
    wanted, have = spec.get("instances", {}).get(task), studied.prompts[task]["instances"]
    if wanted not in (None, have):
        found.append(f"members make {have} instances, the published ones {wanted}")
    return found


def other_model(about: dict[str, Any], studied: Studied) -> list[str]:
    """Why the model is not the published one, as far as its description tells."""
    model, name = studied.model, about["model"]["name"]
    sizes = {key: wanted for key, wanted in about["model"].items() if key != "name" and model[key] != wanted}
    found = [RANDOM] if model.get("random_weights") else []
    return found + [f"the model has {key} {model[key]}, {name} {wanted}" for key, wanted in sizes.items()]


def other_settings(needs: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Which settings are others than agreement needs; lists and blocks without their content."""
    found = []
    for key, wanted in needs.items():
        if settings[key] != wanted:
            simple = isinstance(wanted, (bool, int, float, str)) or wanted is None
            values = f"{json.dumps(settings[key])}, agreement needs {json.dumps(wanted)}"
            found.append(f"{key} is {values}" if simple else f"{key} is not as published")
    return found


def _places(layout: dict[str, Any]) -> str:
    return f"{layout['tokens']} tokens with members at {', '.join(map(str, layout['member_positions']))}"


def absent(item: str, spec: dict[str, Any], task: str, about: dict[str, Any], studied: Studied) -> str:
    """Why this study cannot have an item; empty where it can."""
    if task not in studied.settings:
        return f"the study has no main task {task}"
    layered, headed = LAYERED.fullmatch(item), HEADED.fullmatch(item)
    if layered and int(layered[1]) >= studied.model["n_layers"]:
        return f"the model has only {studied.model['n_layers']} layers"
    if headed and int(headed[1]) >= studied.model["n_heads"]:
        return f"the model has only {studied.model['n_heads']} heads a layer"
    layout, have = spec.get("layout", {}), studied.layouts[task]
    if spec.get("positional") and any(have[key] != layout[key] for key in layout):
        return f"positions do not correspond: prompts have {_places(have)}, the published ones {_places(layout)}"
    return ""


def _other_circuits(published: Published, tables: dict[str, Any]) -> dict[str, int]:
    """Task -> number of components that are in our circuit or the published one, not in both."""
    values, found = published.values[published.values["figure"] == "circuit"], {}
    for task, wanted in values.groupby("task", sort=False):
        ours = tables["membership"].loc[tables["membership"]["circuit"] == task, "component"]
        found[task] = len(set(ours) ^ set(wanted["item"]))
    return found


# ---- what the model wrote ------------------------------------------------------------------------------------
def _completions(published: Published, written: pd.DataFrame | None, studied: Studied) -> list[dict[str, Any]]:
    """A row for every published completion: 1 where ours begins like it, as far as the shorter of the two goes.

    Spaces are left out on both sides, since the published texts were joined from tokens without them. ``written`` is
    made by `written`.
    """
    ours = {} if written is None else {(row.text, row.heads): row.output for row in written.itertuples()}
    spec, settings = published.about["completions"], next(iter(studied.settings.values()))
    reasons, rows = other_model(published.about, studied) + other_settings(spec["needs"], settings), []
    for entry in published.completions:
        row = {"figure": "completions", "title": spec["title"], "unit": "", "task": entry["set"]}
        row |= {"item": f"{entry['heads'] or 'unablated'}: {entry['text']}", "published": 1, "tolerance": 0}
        output = ours.get((entry["text"], entry["heads"]))
        if output is None:
            rows.append(row | {"status": NOT_COMPUTED, "note": MISSING_TEXT})
            continue
        same = float(begins_alike(output, entry["written"]))
        row |= {"ours": same, "difference": same - 1}
        row["status"] = NOT_COMPARABLE if reasons else COMPARED
        said = "" if same else f"ours {output!r}, published {entry['written']!r}"
        if reasons:
            row["note"] = "; ".join(filter(None, [f"not comparable because {'; '.join(reasons)}", said]))
        else:
            row |= {"within": bool(same), "note": said}
        rows.append(row)
    return rows


def begins_alike(first: str, second: str) -> bool:
    """Does one text begin with the other, spaces apart? An empty text is like none; line ends count."""
    first, second = (text.replace(" ", "") for text in (first, second))
    return bool(first and second) and (first.startswith(second) or second.startswith(first))


def written(prompts: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """What the model wrote (text, heads, output): unablated, and under every head set, random sets apart.

    `prompts` and `outputs` are the tables of that name of generation under ablation.
    """
    plain = prompts[prompts["status"] != "rejected"].assign(heads="")
    ablated = outputs[outputs["draw"] < 0].merge(prompts[["set", "prompt", "text"]], on=["set", "prompt"])
    return pd.concat([table[["text", "heads", "output"]] for table in (plain, ablated)], ignore_index=True)
