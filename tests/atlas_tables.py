"""The files of synthetic studies (figure_tables) as the atlas page reads them, for tests of its data."""

from pathlib import Path

import numpy as np
import pandas as pd

from atlas.core.components import Component, all_components
from atlas.heads import traces
from atlas.report import shown
from atlas.report.atlas.study import Settings
from atlas.report.atlas.tables import TABLES, Inputs
from atlas.store import artifacts

OF_TASK = ("edge_scores", "positions", "faithfulness", "choice", "patching", "attribution", "ov", "backup")
OF_TASK += ("consensus_tests",)
OF_MODEL = ("roles", "overlap", "cross", "controls_summary", "consensus", "shared", "shared_members")
OF_MODEL += ("membership", "consensus_edges", "hypotheses", "member_tests", "unseen", "specificity")
TOKENS = ["Box", " in", " </script><!--", ".", "\n\u2028", " in"]
ROLES = ["separators", "separators", "member 1", "separators", "separators", "last"]
PROMPTS = 5


def sizes_of(study) -> tuple[int, int]:
    """Layers and heads of a layer."""
    effects = study.effects[study.main[0]]
    return int(effects["layer"].max()) + 1, int(effects["head"].max()) + 1


def trace(study, task, several=False, seed=0) -> dict:
    """As `traces.json`: with ``several``, of a task with answers of several tokens."""
    rng, (layers, heads) = np.random.default_rng(seed), sizes_of(study)
    every = all_components(layers, heads)
    shown_heads = [c for c in every if not c.is_mlp][::2]
    prompts = []
    for number in range(PROMPTS):
        entry = {"prompt": 7 * number, "template": "t", "split": "search", "tokens": TOKENS, "corrupted": TOKENS[::-1]}
        entry |= {"roles": ROLES, "answer": " May", "incorrect": " April", "clean": rng.normal()}
        if task in study.main:
            entry["ablated"] = {kind: rng.normal(size=len(every)).tolist() for kind in ("mean", "zero")}
        if not several:
            weights = rng.dirichlet(np.ones(6), (len(shown_heads), 6))
            entry |= {"top": [[" May", 9.0], [" April", 3.25]], "attribution": rng.normal(size=len(every)).tolist()}
            entry |= {"rest": [["embed", 0.5], ["final norm bias", -0.125]], "attention": traces.packed(weights)}
            entry["lens"] = {"points": ["resid_pre 0", "resid_post"], "value": [0.1, 2.0], "top": [[" a"], [" May"]]}
        prompts.append(entry)
    written = {str(c): {"top": [[" x", 1.23456]], "bottom": [[" y", -1.0]]} for c in every}
    return {
        "split": "search" if task in study.main else "held_out",
        "prompts_of": 40,
        "parts": [] if several else list(traces.PARTS),
        "several_tokens": several,
        "heads": [] if several else list(map(str, shown_heads)),
        "written": {} if several else written,
        "prompts": prompts,
    }


def write(study, folder: Path, several=(), without=(), left_out=None, parallel=False) -> dict[str, list[str]]:
    """Write a study's files below ``folder``/results; name -> files, as a rule gives them.

    several: tasks with answers of several tokens; without: tables that the study does not make.
    """
    layers, heads = sizes_of(study)
    place = folder / "results" / study.model
    model = {"model": study.model, "architecture": "Fake", "n_layers": layers, "n_heads": heads}
    model |= {"n_kv_heads": getattr(study, "graph", None).n_kv_heads if hasattr(study, "graph") else heads}
    artifacts.write_json(model | {"parallel_blocks": parallel}, place / "model.json", {})
    artifacts.write_json({"made": [], "left_out": left_out or {}}, place / "analyses.json", {})
    explained = [task for task in study.tasks if task not in several]
    tasks = {shown.TASK: study.tasks, shown.MAIN: study.main, shown.EXPLAINED: explained}

    def table(frame: pd.DataFrame, file: str) -> None:
        artifacts.write_table(frame, place / file, {})

    if hasattr(study, "detectors"):
        table(study.detectors, "detectors.parquet")
    for name, frame in getattr(study, "geometry", {}).items():
        table(frame, f"geometry/{name}.parquet")
    for name in OF_MODEL:
        if hasattr(study, name):
            table(getattr(study, name), f"comparison/{name}.parquet")
    for task in study.tasks:
        artifacts.write_json({"task": task, **study.info[task]}, place / task / "prompts.json", {})
        table(study.clean[study.clean["task"] == task], f"{task}/clean_summary.parquet")
        artifacts.write_json({"task": task, **trace(study, task, task in several)}, place / task / "traces.json", {})
        for name in OF_TASK:
            if hasattr(study, name):
                table(of_task(study, name, task), f"{task}/{name}.parquet")
    for task in study.main:
        chosen = [
            {key: c[key] for key in ("order", "threshold", "heads", "mlps")} | {"dropped": ["0.0"]}
            for c in study.circuits[task]["circuits"]
            if c["order"] == study.order
        ]
        artifacts.write_json({"task": task, "circuits": chosen}, place / task / "chosen.json", {})
        artifacts.write_json(study.circuits[task], place / task / "circuits.json", {})
        table(study.trace[task], f"{task}/trace.parquet")
        table(study.effects[task], f"{task}/component_effects.parquet")
        if hasattr(study, "edge_circuits"):
            artifacts.write_json(study.edge_circuits[task], place / task / "edge_circuits.json", {})
    files = {}
    for name, one in TABLES.items():
        of = [None] if one.of == shown.MODEL else tasks[one.of]
        paths = [place / (one.file if task is None else f"{task}/{one.file}") for task in of]
        if name not in without and paths and all(path.is_file() for path in paths):
            files[name] = list(map(str, paths))
    return files


def of_task(study, name, task) -> pd.DataFrame:
    """A task's rows of a table of all."""
    frame = getattr(study, name)
    return frame[frame["task"] == task] if "task" in frame else frame


# ---- how order is represented --------------------------------------------------------------------------------
MONTHS = ("January", "February", "April", "May", "June", "December")  # March has several tokens, say
PLACES = (0, 1, 3, 4, 5, 11)
NUMERALS = tuple(map(str, range(7)))


def successors(layers: int, heads: int, classes=("months", "numerals"), seed=0) -> pd.DataFrame:
    """As successors.parquet: heads of layer 0 only without MLP 0, and a row without a head."""
    rng, rows = np.random.default_rng(seed), []
    for name in classes:
        for source in ("mlp0", "without_mlp0"):
            for target in ("next", "previous"):
                places = [(i, j) for i in range(source == "mlp0", layers) for j in range(heads)]
                of = {"model": "m", "class": name, "input": source, "target": target, "members": 6}
                for layer, head in [*places, (-1, -1)]:
                    value, p = rng.random(), rng.choice([0.0099, 0.31])
                    own = {"layer": layer, "head": head, "value": value, "p": p, "p_holm": min(1, 3 * p)}
                    rows.append(of | own | {"random_median": 0.1, "random_hi": 0.21 if layer >= 0 else 0.4})
    return pd.DataFrame(rows)


def pca(points: int, seed=0) -> pd.DataFrame:
    """As pca.parquet: months at themselves and at the answers of a task, numerals at themselves."""
    rng, rows = np.random.default_rng(seed), []
    for name, at, task in (("months", "member", ""), ("months", "answer", "months"), ("numerals", "member", "")):
        words, places = (MONTHS, PLACES) if name == "months" else (NUMERALS, range(len(NUMERALS)))
        for point in range(points):
            of = {"model": "m", "class": name, "at": at, "task": task, "point": point}
            of |= {"share1": 0.51234, "share2": 0.25, "share3": 0.125 / (point + 1)}
            for word, place in zip(words, places, strict=True):
                rows.append(of | {"place": place, "word": word} | {f"pc{i}": 30 * rng.normal() for i in (1, 2, 3)})
    return pd.DataFrame(rows)


def shapes(points: int, best: int, seed=0) -> pd.DataFrame:
    """As shapes.parquet of the same; the circle of months, and the line of numerals, stand out most at ``best``."""
    rng, rows = np.random.default_rng(seed), []
    for name, at, task in (("months", "member", ""), ("months", "answer", "months"), ("numerals", "member", "")):
        for shape, null in (("line", "random orders"), ("circle", "random orders"), ("helix", "random periods")):
            control = shape == "circle" and name != "months"
            of = {"model": "m", "class": name, "at": at, "task": task, "shape": shape, "null": null}
            for point in range(points):
                own = 0.9 if point == best else 0.2 * rng.random()
                row = {"point": point, "control": control, "members": 6, "value": own, "value_fit": 1.0}
                row |= {"null_mean": 0.0, "null_low": -0.3, "null_high": 0.3, "bound": np.nan, "p": 0.005, "tests": 9}
                rows.append(of | row | {"p_holm": 0.045 if point == best else 1.0})
    return pd.DataFrame(rows)


def inputs_of(studies, folder: Path, **options) -> Inputs:
    """Of studies of the same tasks, as models of one study."""
    found = [write(study, folder, **options) for study in studies]
    study = studies[0]
    explained = [task for task in study.tasks if task not in options.get("several", ())]
    tasks = {shown.TASK: study.tasks, shown.MAIN: study.main, shown.EXPLAINED: explained}
    files = {name: [path for own in found for path in own[name]] for name in found[0]}
    return Inputs(files, [s.model for s in studies], tasks)


def settings_of(study, megabytes=12.0) -> Settings:
    """As the configuration of a synthetic study gives them."""
    circuits = study.circuits[study.main[0]]["circuits"]
    return Settings(
        title="A <study>",
        kind="mean",
        threshold=study.threshold,
        thresholds=list(dict.fromkeys(c["threshold"] for c in circuits)),
        orders=list(dict.fromkeys(c["order"] for c in circuits)),
        labels={"copy": 0.5, "successor": 0.5},
        k=5,
        megabytes=megabytes,
    )


def component_of(layers: int, heads: int, number: int) -> Component:
    """The component of a number, by hand."""
    layer, head = divmod(number, heads + 1)
    return Component(layer) if head == heads else Component(layer, head)
