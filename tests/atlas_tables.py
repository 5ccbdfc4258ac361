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
OF_MODEL += ("consensus_edges", "hypotheses", "member_tests", "unseen", "specificity")
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
