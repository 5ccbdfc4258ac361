"""Figures and summary page, from synthetic tables of two studies: 6 layers x 8 heads, and an odd, tiny one."""

import math
import subprocess
import sys
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import edge_tables
import head_tables
from atlas.report import pages, style, summary, wording
from atlas.report.figures import (
    circuit_diagram,
    circuit_size,
    clean_accuracy,
    component_effects,
    controls,
    cross_matrix,
    dataset,
    overlap,
    search_trajectory,
)
from conftest import ROOT

SCRIPTS = ROOT / "scripts"

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
COLOURS = {"clean": "#4477AA", "corrupted": "#BBBBBB", "circuit": "#EE6677"}
KINDS = ["mean", "zero", "resample"]


def _interval(value, width):
    return {"value": value, "ci_low": value - width, "ci_high": value + 0.8 * width}


def fake_study(
    layers=6,
    heads=8,
    main=("numerals", "number_words", "months"),
    transfer=("days", "numerals_plus_two", "number_words_decreasing", "spanish_number_words"),
    orders=("layers", "ascending_effect", "random_0"),
    thresholds=(10, 20, 40),
    controls=40,
    model="fake-6x8",
    seed=0,
):
    """All tables of one model, as docs/artifacts.md describes them, with numbers that hang together."""
    rng = np.random.default_rng(seed)
    main, tasks = list(main), [*main, *transfer]
    names = [(f"{la}.{h}", la, h) for la in range(layers) for h in range(heads)]
    names = sorted(names + [(f"m{la}", la, -1) for la in range(layers)], key=lambda c: (c[1], c[2] < 0, c[2]))
    base = {"model": model}
    study = SimpleNamespace(model=model, main=main, tasks=tasks, prompts={}, info={}, trace={}, circuits={}, effects={})

    # One strength for all tasks plus one of each task, so that circuits overlap without being equal.
    common = rng.gamma(0.25, 22, len(names))
    clean, faithfulness, survival, kept = [], [], [], {}
    for t, task in enumerate(tasks):
        study.prompts[task], study.info[task] = _prompts(base, task, t, rng)
        n = len(study.prompts[task])
        for split, share in (("search", 0.5), ("held_out", 0.5), ("all", 1)):
            for run in ("clean", "corrupted"):
                good = run == "clean"
                for metric, value, width in (
                    ("top1", 0.97 - 0.09 * t if good else 0.04, 0.02),
                    ("logit_diff", 5.3 - 0.5 * t if good else -0.3, 0.2),
                ):
                    clean.append(
                        {
                            **base,
                            "task": task,
                            "split": split,
                            "run": run,
                            "metric": metric,
                            **_interval(value, width),
                            "prompts": int(n * share),
                            "share_kept": 1 - 0.01 * t,
                        }
                    )
    for task in main:
        strength = 0.6 * common + rng.gamma(0.2, 14, len(names))
        rows = []
        for kind, factor in zip(KINDS, (1, 1.2, 0.95), strict=True):
            for (name, layer, head), drop in zip(names, strength, strict=True):
                value = 100 - factor * drop * (2.2 if head < 0 else 1) + rng.normal(0, 1)
                row = {**base, "task": task, "component": name, "layer": layer, "head": head, "kind": kind}
                rows.append({**row, "metric": "percent_of_full", **_interval(value, 2 + drop / 20), "clean": 100.0})
                rows.append({**row, "metric": "logit_diff", **_interval(value / 20, 0.1), "clean": 5.0})
        study.effects[task] = pd.DataFrame(rows)
        study.trace[task], circuits, shares = [], [], {}
        for order in orders:
            for threshold in thresholds:
                trace, left = _search(names, strength, order, threshold, rng)
                study.trace[task] += [{**base, "task": task, **row} for row in trace]
                kept[task, order, threshold] = left
                n_heads, n_mlps = sum("." in c for c in left), sum("m" in c for c in left)
                percent = 100 - threshold + rng.uniform(0.2, 3)
                circuits.append(
                    {
                        "order": order,
                        "threshold": threshold,
                        "heads": [c for c in left if "." in c],
                        "mlps": [c for c in left if "m" in c],
                        "percent_of_full": percent,
                        "evaluations": len(trace),
                    }
                )
                for split, shift in (("search", 0), ("held_out", rng.normal(-1.5, 1.5))):
                    row = {
                        **base,
                        "task": task,
                        "order": order,
                        "threshold": threshold,
                        "split": split,
                        "heads": n_heads,
                        "mlps": n_mlps,
                    }
                    faithfulness.append({**row, "metric": "percent_of_full", **_interval(percent + shift, 2)})
                    faithfulness.append(
                        {**row, "metric": "faithfulness", **_interval((percent + shift + 10) / 110, 0.02)}
                    )
                for name in left:
                    shares[threshold, name] = shares.get((threshold, name), 0) + 1 / len(orders)
        survival += [
            {
                **base,
                "task": task,
                "threshold": threshold,
                "component": name,
                "layer": layer,
                "head": head,
                "share": shares[threshold, name],
                "orders": len(orders),
            }
            for threshold in thresholds
            for name, layer, head in names
            if (threshold, name) in shares
        ]
        study.trace[task] = pd.DataFrame(study.trace[task])
        study.circuits[task] = {"model": model, "task": task, "circuits": circuits}
    chosen = {task: kept[task, orders[0], thresholds[min(1, len(thresholds) - 1)]] for task in main}
    study.clean, study.faithfulness = pd.DataFrame(clean), pd.DataFrame(faithfulness)
    study.survival = pd.DataFrame(survival)
    study.threshold, study.order = thresholds[min(1, len(thresholds) - 1)], orders[0]
    _comparison(study, base, chosen, names, controls, rng, main)
    return study


def _prompts(base, task, offset, rng):
    members = MONTHS if task == "months" else [str(i) for i in range(1, 21)]
    objects = ["Basket", "Camera", "Lemon", "Mirror", "Pencil", "Kite"]
    people = ["Ada", "Hugo", "Iris", "Walter", "Zoe"]
    rows = []
    for template, fillers in (
        ("{object} found in {m}.", objects),
        ("{object} packed in {m}.", objects),
        ("{name} arrived in {m}.", people),
    ):
        for row in range(24):
            start = row % (len(members) - 4)
            shown, wrong = members[start : start + 4], list(rng.choice(members, 4))
            chosen = list(rng.permutation(fillers)[:5])

            def text(sequence, template=template, chosen=chosen):
                clauses = [template.replace("{object}", f).replace("{name}", f) for f in chosen]
                full = " ".join(c.replace("{m}", m) for c, m in zip(clauses, sequence, strict=False))
                return f"{full} {clauses[4].split(' {m}')[0]}"

            rows.append(
                {
                    **base,
                    "task": task,
                    "prompt": len(rows),
                    "template": template,
                    "row": row,
                    "split": "search" if row % 2 == 0 else "held_out",
                    "start": start,
                    "text": text(shown),
                    "corrupted_text": text(wrong),
                    "answer": f" {members[start + 4]}",
                    "incorrect": f" {shown[3]}",
                    "members": shown,
                    "corrupted_members": wrong,
                    "fillers": chosen,
                    "answer_in_corrupted": members[start + 4] in wrong,
                }
            )
    reasons = {"another number of tokens": 3} if offset == 1 else {}
    info = {
        "task": task,
        "layout": {},
        "counts": {"prompts": len(rows), "search": 36, "held_out": 36, "rejected": reasons}
        | {"duplicates": 0, "known_sequences": 36, "undivided": 0},
        "hold_out": "prompts",
        "dropped_fillers": {"object": ["Honey"] if offset == 2 else []},
        "seed": 0,
    }
    return pd.DataFrame(rows), info


def _search(names, strength, order, threshold, rng):
    """A trace that looks like the real one: candidates in sweeps, removed while the score stays above the floor."""
    left, lost, rows, sweep = list(names), 0.0, [], 0
    drop = dict(zip((n for n, _, _ in names), strength, strict=True))
    while True:
        sweep, changed = sweep + 1, False
        direction = "backward" if sweep % 2 else "forward"
        for name, layer, head in list(left)[:: -1 if direction == "backward" else 1]:
            cost = 0.5 * drop[name] * (2.2 if head < 0 else 1) + rng.normal(0, 0.4)
            percent = 100 - lost - cost
            removed = percent > 100 - threshold
            if removed:
                lost += cost
                left.remove((name, layer, head))
                changed = True
            rows.append(
                {
                    "order": order,
                    "threshold": threshold,
                    "step": len(rows) + 1,
                    "sweep": sweep,
                    "direction": direction,
                    "component": name,
                    "layer": layer,
                    "head": head,
                    "percent": percent,
                    "removed": removed,
                    "heads": sum(c[2] >= 0 for c in left),
                    "mlps": sum(c[2] < 0 for c in left),
                }
            )
        if not changed or sweep > 5:
            return rows, [c[0] for c in left]


def _comparison(study, base, chosen, names, controls, rng, main):
    shared = sorted(set.intersection(*map(set, chosen.values()))) if len(chosen) > 1 else list(*chosen.values())
    circuits = {**chosen, "shared": shared}
    at = {name: (layer, head) for name, layer, head in names}
    study.membership = pd.DataFrame(
        [
            {**base, "circuit": c, "component": name, "layer": at[name][0], "head": at[name][1]}
            for c, members in circuits.items()
            for name in members
        ],
        columns=["model", "circuit", "component", "layer", "head"],
    )
    rows = []
    for a, b in combinations(chosen, 2):
        for level in ("heads", "mlps", "components"):
            x, y = ({c for c in chosen[t] if level == "components" or ("." in c) == (level == "heads")} for t in (a, b))
            p = float(10 ** rng.uniform(-5, -0.3)) if level == "heads" else math.nan
            n = sum(level == "components" or ("." in c) == (level == "heads") for c in at)
            rows.append(
                {
                    **base,
                    "circuit_a": a,
                    "circuit_b": b,
                    "level": level,
                    "size_a": len(x),
                    "size_b": len(y),
                    "shared": len(x & y),
                    "jaccard": len(x & y) / max(1, len(x | y)),
                    "overlap_coefficient": len(x & y) / max(1, min(len(x), len(y))),
                    "expected": len(x) * len(y) / n,
                    "p_hypergeometric": p / 2,
                    "p_layer_matched": p,
                }
            )
    columns = [
        "model",
        "circuit_a",
        "circuit_b",
        "level",
        "size_a",
        "size_b",
        "shared",
        "jaccard",
        "overlap_coefficient",
        "expected",
        "p_hypergeometric",
        "p_layer_matched",
    ]
    study.overlap = pd.DataFrame(rows, columns=columns)
    rows = []
    for i, circuit in enumerate([*chosen, "shared", "union", "all but shared"]):
        for j, task in enumerate(study.tasks):
            centre = {"shared": 30, "union": 101, "all but shared": 9}.get(circuit, 82 - 13 * abs(i - j))
            value = centre + rng.normal(0, 3)
            row = {**base, "circuit": circuit, "task": task, "split": "held_out", "prompts": 36}
            rows.append({**row, "metric": "percent_of_full", **_interval(value, 4)})
            rows.append({**row, "metric": "faithfulness", **_interval((value + 10) / 110, 0.04)})
            rows.append({**row, "metric": "top1", **_interval(min(1, max(0, value / 100)), 0.03)})
    study.cross = pd.DataFrame(rows)
    draws, summary = [], []
    for question, centre, own in (("sufficiency", 25, 82), ("necessity", 78, 8)):
        for circuit in ["shared", *chosen] if question == "necessity" else chosen:
            for task in study.tasks if circuit == "shared" else [circuit]:
                n = 0 if task == main[-1] and len(main) > 1 else controls
                key = {**base, "question": question, "circuit": circuit, "task": task}
                value, members = own if task in chosen else centre + 2, " ".join(circuits[circuit])
                draws.append({**key, "set": "circuit", "draw": -1, "components": members, **_interval(value, 2.5)})
                values = rng.normal(centre, 15, n)
                draws += [
                    {**key, "set": "control", "draw": d, "components": members, **_interval(v, 2)}
                    for d, v in enumerate(values)
                ]
                extreme = (values >= value).sum() if question == "sufficiency" else (values <= value).sum()
                quantiles = np.percentile(values, [50, 2.5, 97.5]) if n else [math.nan] * 3
                summary.append(
                    {
                        **key,
                        **_interval(value, 2.5),
                        "controls": n,
                        "control_median": quantiles[0],
                        "control_low": quantiles[1],
                        "control_high": quantiles[2],
                        "p": (1 + extreme) / (1 + n) if n else math.nan,
                        "note": "" if n else "no control: layer 3 has too few other heads",
                    }
                )
    study.controls, study.controls_summary = pd.DataFrame(draws), pd.DataFrame(summary)


STUDIES = {
    "6 layers x 8 heads": edge_tables.add(fake_study()),
    "2 layers x 3 heads": edge_tables.add(fake_study(2, 3, ("days",), (), ("layers",), (20,), model="tiny"), edges=12),
}
STUDIES = {name: head_tables.add(made) for name, made in STUDIES.items()}


@pytest.fixture(params=STUDIES, scope="module")
def study(request):
    return STUDIES[request.param]


def draw(figure: str, study):
    """The figure of this name, for the study's last main task where it belongs to one task."""
    task, everything = study.main[-1], pd.concat(study.effects.values())
    of_circuit = {"main_tasks": study.main, "kind": "mean", "colours": COLOURS}
    return {
        "dataset": lambda: dataset.draw(study.prompts[task], study.info[task], COLOURS),
        "clean_accuracy": lambda: clean_accuracy.draw(study.clean, study.tasks, study.main, COLOURS),
        "component_effects": lambda: component_effects.draw(study.effects[task], "mean", "RdBu", COLOURS),
        "search_trajectory": lambda: search_trajectory.draw(study.trace[task], [study.order], COLOURS),
        "circuit_size": lambda: circuit_size.draw(study.faithfulness, study.main, "viridis"),
        "circuit_diagram": lambda: circuit_diagram.draw(study.membership, study.effects[task], task, **of_circuit),
        "shared_diagram": lambda: circuit_diagram.draw(study.membership, everything, "shared", **of_circuit),
        "overlap": lambda: overlap.draw(
            study.membership, study.overlap, study.typology, study.main, COLOURS, "viridis"
        ),
        "cross_matrix": lambda: cross_matrix.draw(study.cross, study.tasks, study.main, "viridis"),
        "controls": lambda: controls.draw(study.controls, study.controls_summary, study.tasks, COLOURS),
    }[figure]()


FIGURES = [
    "dataset",
    "clean_accuracy",
    "component_effects",
    "search_trajectory",
    "circuit_size",
    "circuit_diagram",
    "shared_diagram",
    "overlap",
    "cross_matrix",
    "controls",
]


# ---- all figures ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("figure", FIGURES)
def test_figure_is_written_and_repeats_byte_for_byte(figure, study, tmp_path):
    for name in ("once", "again"):
        style.save(draw(figure, study), tmp_path / f"{name}.svg", tmp_path / f"{name}.png", dpi=50)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.png", "again.svg", "once.png", "once.svg"]
    for kind in ("svg", "png"):
        assert (tmp_path / f"once.{kind}").read_bytes() == (tmp_path / f"again.{kind}").read_bytes()
    svg = (tmp_path / "once.svg").read_text()
    assert "<text" in svg and "<dc:date>" not in svg


def test_a_failed_save_leaves_nothing(tmp_path):
    figure = style.figure(1, 1)
    figure.text(0.5, 0.5, "$\\notacommand$")
    with pytest.raises(ValueError, match="notacommand"):
        style.save(figure, tmp_path / "a.svg", tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_figures_hold_their_provenance(tmp_path):
    about = {"inputs": {"overlap": "0123abcd"}}
    style.save(style.figure(1, 1), tmp_path / "a.svg", tmp_path / "a.png", provenance=about)
    assert "0123abcd" in (tmp_path / "a.svg").read_text()
    assert b"0123abcd" in (tmp_path / "a.png").read_bytes()


def test_plots_and_summary_import_no_torch():
    modules = [p.stem for p in (SCRIPTS / "atlas" / "report" / "figures").glob("*.py") if p.stem != "__init__"]
    code = (
        f"import sys, atlas.report.summary; from atlas.report.figures import {', '.join(modules)}; print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "transformer_lens", "matplotlib.pyplot"} & set(run.stdout.split())


# ---- one by one ----------------------------------------------------------------------------------------------
def test_members_are_marked_where_they_stand():
    text = "May 1 found in 1. Box 11 found in 11. Cup found in"
    marked = dataset.spans(text, ["1", "11"])
    assert [text[a:b] for a, b in marked] == ["1", "11"]
    assert dataset.spans("nothing here", ["May"]) == []


def test_wrapped_lines_keep_every_word_and_every_mark():
    text = " ".join(f"Box found in member{i}." for i in range(9))
    lines = dataset.wrap(text, dataset.spans(text, [f"member{i}" for i in range(9)]), 40)
    assert " ".join(line for line, _ in lines) == text
    assert max(len(line) for line, _ in lines) <= 40
    assert [line[a:b] for line, marks in lines for a, b in marks] == [f"member{i}" for i in range(9)]


def test_clean_accuracy_shows_the_table(study):
    ax = draw("clean_accuracy", study).axes[0]
    table = study.clean[(study.clean["split"] == "all") & (study.clean["metric"] == "top1")]
    for marks, run in zip(ax.collections[1::2], ("clean", "corrupted"), strict=True):
        rows = table[table["run"] == run].set_index("task").loc[study.tasks]
        np.testing.assert_allclose(marks.get_offsets()[:, 0], 100 * rows["value"])


def test_effect_maps_share_a_scale_centred_at_zero(study):
    kinds = study.effects[study.main[-1]]["kind"].nunique()
    meshes = [mesh for ax in draw("component_effects", study).axes[:kinds] for mesh in ax.collections[:2]]
    for mesh in meshes:
        assert mesh.norm.vcenter == 0 and mesh.norm.vmin == -mesh.norm.vmax
        assert mesh.norm.vmax == meshes[0].norm.vmax
        assert mesh.norm(0.0) == 0.5


def test_effect_map_shows_the_table(study):
    effects = study.effects[study.main[-1]]
    ax = draw("component_effects", study).axes[0]
    rows = effects[(effects["kind"] == "mean") & (effects["metric"] == "percent_of_full")]
    for mesh, part in zip(ax.collections[:2], (rows[rows["head"] >= 0], rows[rows["head"] < 0]), strict=True):
        expected = part.sort_values(["layer", "head"])["value"].to_numpy() - 100
        np.testing.assert_allclose(np.asarray(mesh.get_array()).ravel(), expected)


def test_trajectory_separates_kept_from_removed(study):
    trace = study.trace[study.main[-1]]
    for i, threshold in enumerate(sorted(trace["threshold"].unique())):
        ax = draw("search_trajectory", study).axes[2 * i]
        rows = trace[(trace["threshold"] == threshold) & (trace["order"] == study.order)]
        for marks, removed in zip(ax.collections[:2], (True, False), strict=True):
            np.testing.assert_allclose(marks.get_offsets()[:, 1], rows.loc[rows["removed"] == removed, "percent"])
        assert ax.lines[0].get_ydata()[0] == 100 - threshold


def test_circuit_size_has_one_mark_for_each_circuit_and_split(study):
    figure = draw("circuit_size", study)
    rows = study.faithfulness[
        (study.faithfulness["task"] == study.main[0]) & (study.faithfulness["metric"] == "percent_of_full")
    ]
    marks = [c for c in figure.axes[0].collections if hasattr(c, "get_sizes")]
    assert sorted(m.get_offsets()[0, 1] for m in marks) == pytest.approx(sorted(rows["value"]))
    hollow = [m for m in marks if m.get_facecolor()[0, :3].min() == 1]
    assert len(hollow) == (rows["split"] == "search").sum()


def test_kinship_counts_the_circuits_that_hold_a_component():
    rows = [("a", "0.0"), ("b", "0.0"), ("c", "0.0"), ("a", "m1"), ("b", "m1"), ("a", "1.2"), ("shared", "0.0")]
    membership = pd.DataFrame(rows, columns=["circuit", "component"])
    assert circuit_diagram.kinship(membership, "a", ["a", "b", "c"]) == {"0.0": "all", "1.2": "only", "m1": "some"}
    assert circuit_diagram.kinship(membership, "shared", ["a", "b", "c"]) == {"0.0": "all"}
    assert circuit_diagram.kinship(membership, "a", ["a"]) == {"0.0": "only", "1.2": "only", "m1": "only"}


def test_diagram_names_every_component_once_and_draws_no_edges(study):
    ax = draw("circuit_diagram", study).axes[0]
    texts = [t.get_text() for t in ax.texts]
    for component in study.effects[study.main[-1]]["component"].unique():
        assert texts.count(component) == 1
    layers = study.effects[study.main[-1]]["layer"].nunique()
    assert len(ax.lines) == layers  # the guides of the layers, all horizontal
    assert all(len(set(line.get_ydata())) == 1 for line in ax.lines)


def test_node_area_grows_with_the_drop():
    small, middle, large = (circuit_diagram.radius(share, 0.25) for share in (0, 0.5, 1))
    assert middle**2 - small**2 == pytest.approx(large**2 - middle**2)
    assert circuit_diagram.radius(-3, 0.25) == small and circuit_diagram.radius(9, 0.25) == large


def test_empty_shared_circuit_is_drawn_and_listed():
    study = STUDIES["6 layers x 8 heads"]
    lone = study.membership[study.membership["circuit"] != "shared"].copy()
    lone["component"] = lone["circuit"].map({t: f"{i}.0" for i, t in enumerate(study.main)})
    lone = lone.drop_duplicates(["circuit", "component"])
    effects = pd.concat(study.effects.values())
    figure = circuit_diagram.draw(lone, effects, "shared", study.main, "mean", COLOURS)
    assert any("empty" in t.get_text() for t in figure.axes[0].texts)
    figure = overlap.draw(lone, study.overlap, study.typology, study.main, COLOURS, "viridis")
    assert "none" in [t.get_text() for ax in figure.axes for t in ax.texts]


def test_intersections_hold_every_component_once(study):
    groups = overlap.intersections(study.membership, study.main)
    listed = [c for _, components in groups for c in components]
    held = study.membership[study.membership["circuit"].isin(study.main)]
    assert sorted(listed) == sorted(held["component"].unique())
    for tasks, components in groups:
        for component in components:
            assert set(held.loc[held["component"] == component, "circuit"]) == set(tasks)


def test_cross_matrix_prints_the_table(study):
    table = cross_matrix.values(study.cross)
    texts = [t.get_text() for t in draw("cross_matrix", study).axes[0].texts]
    assert texts[::2] == [wording.number(v) for v in table["value"]]
    assert texts[1::2] == [
        f"[{wording.number(a)}, {wording.number(b)}]" for a, b in zip(table["ci_low"], table["ci_high"], strict=True)
    ]


def test_controls_show_every_draw_and_say_why_there_are_none(study):
    figure = draw("controls", study)
    shown = sum(len(c.get_offsets()) for ax in figure.axes for c in ax.collections if c.get_label() == "random control")
    assert shown == (study.controls["set"] == "control").sum()
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert texts.count("no controls") == (study.controls_summary["controls"] == 0).sum()
    assert any("layer 3" in t for t in texts) == (study.controls_summary["controls"] == 0).any()


def test_controls_show_each_circuit_ablated_on_its_own_task(study):
    figure = draw("controls", study)
    labels = [[t.get_text() for t in ax.get_yticklabels()] for ax in figure.axes]
    assert labels[1][: len(study.main)] == [wording.words(task) for task in study.main]
    assert all(label.startswith("shared") for label in labels[1][len(study.main) :])


def test_pairs_are_compared_at_every_level_and_their_type_is_named(study):
    figure = draw("overlap", study)
    titles = [ax.get_title("left") for ax in figure.axes]
    if len(study.main) == 1:
        assert not any("Jaccard" in title for title in titles)
        return
    assert titles[-3:] == ["Heads: Jaccard index", "MLPs", "Edges"]
    rows = study.overlap[study.overlap["level"] == "edges"].sort_values("shared")
    texts = [t.get_text().split("\n") for t in figure.axes[-1].texts]
    assert sorted(int(t[1].split()[0]) for t in texts) == list(rows["shared"])
    assert {t[-1] for t in texts} == {"undecided"}


def test_effects_of_another_kind_stand_in():
    effects = STUDIES["2 layers x 3 heads"].effects["days"]
    assert style.one_kind(effects, "mean_clean") == "mean"
    assert component_effects.draw(effects, "mean_clean", "RdBu", COLOURS).axes[0].get_title("left") == ("mean ablation")


# ---- summary -------------------------------------------------------------------------------------------------
def pair(**changes):
    row = {
        "circuit_a": "a",
        "circuit_b": "b",
        "level": "heads",
        "size_a": 5,
        "size_b": 6,
        "shared": 3,
        "jaccard": 0.375,
        "expected": 1.0,
        "p_hypergeometric": 0.001,
        "p_layer_matched": 0.002,
    }
    return pd.DataFrame([row | changes])


def members(**circuits):
    return pd.DataFrame(
        [(c, name) for c, names in circuits.items() for name in names], columns=["circuit", "component"]
    )


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ({"p_layer_matched": 0.002}, "That is more than chance gives (p = 0.002"),
        ({"p_layer_matched": 0.4}, "if layers are ignored (p = 0.001) but not"),
        ({"p_layer_matched": 0.4, "p_hypergeometric": 0.3}, "Chance explains that (p = 0.4"),
        ({"p_layer_matched": math.nan, "p_hypergeometric": math.nan}, "No p-value was computed"),
    ],
)
def test_overlap_sentence_follows_the_p_values(p, said):
    sentences = summary.overlap_findings(members(a=["0.1", "m0"], b=["0.1"]), pair(**p), ["a", "b"])
    assert sentences[0].startswith("Of the 2 components in any circuit, 1 is in the circuits of both main tasks: 0.1.")
    assert said in sentences[1]
    assert sentences[2:] == [
        "In the a circuit alone: m0.",
        "Every component of the b circuit is in another circuit too.",
    ]


def test_overlap_sentences_without_shared_components_and_with_one_task():
    sentences = summary.overlap_findings(members(a=["0.1"], b=["0.2"]), pair(p_layer_matched=1.0), ["a", "b"])
    assert sentences[0].startswith("No component is in the circuits of both main tasks. 0 of 1 pair")
    nothing = pd.DataFrame(columns=["model", "circuit_a", "circuit_b", "level"])
    assert summary.overlap_findings(members(a=["0.1"]), nothing, ["a"]) == [
        "Only one task was searched (a), so there is no overlap to report."
    ]


@pytest.mark.parametrize(
    ("value", "said"), [(90, "above the floor"), (80, "includes the floor"), (70, "below the floor")]
)
def test_circuit_sentence_compares_held_out_prompts_with_the_floor(value, said):
    key = {"task": "a", "order": "layers", "threshold": 20, "heads": 4, "mlps": 1}
    rows = [
        {**key, "split": split, "metric": metric, **_interval(v, 2)}
        for split, metric, v in (
            ("search", "percent_of_full", 82),
            ("held_out", "percent_of_full", value),
            ("held_out", "faithfulness", 0.8),
        )
    ]
    where = "9 held-out prompts of wordings that the search never saw"
    first, second = summary.circuit_findings(pd.DataFrame(rows), ["a"], 20, "layers", 48, where)
    assert "4 of 48 heads (8 %) for a" in first and f"; on {where} they give {value}.0 %" in first
    assert said in second and "4 heads and 1 MLP give 82.0 %" in second
    only_search = summary.circuit_findings(pd.DataFrame(rows[:1]), ["a"], 20, "layers", 48, "")
    assert only_search[1].endswith("no prompts were held out.")


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (
            [["1", "2"]],
            ["A: 1 of the 1 member sequences held out were also searched on, so these prompts test new texts"],
        ),
        ([["1", "2"], ["3", "4"]], ["A: 1 of the 2 member sequences held out were also searched on."]),
        (
            [["3", "4"]],
            ["A: 0 of the 1 member sequences held out were also searched on, so these prompts test new seq"],
        ),
        ([], []),
    ],
)
def test_summary_says_whether_held_out_sequences_are_new(held_out, said):
    rows = [("a", "search", ["1", "2"])] + [("a", "held_out", members) for members in held_out]
    sentences = summary.split_findings(pd.DataFrame(rows, columns=["task", "split", "members"]), ["a"])
    assert len(sentences) == len(said)
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, said, strict=True))


def control(**changes):
    row = {
        "question": "sufficiency",
        "circuit": "a",
        "task": "a",
        **_interval(82, 2),
        "controls": 100,
        "control_median": 20.0,
        "control_low": 5.0,
        "control_high": 40.0,
        "p": 0.0099,
        "note": "",
    }
    return pd.DataFrame([row | changes])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "keeps more than random sets: a (82.0 % [80.0, 83.6], random sets 20.0 %, p = 0.0099)"),
        ({"p": 0.6}, "keeps no more than random sets, so these heads are not special there"),
        ({"p": 0.11, "controls": 8}, "p cannot fall below 0.11, which decides nothing"),
        ({"question": "necessity", "circuit": "shared"}, "Ablating the shared heads does more harm"),
        ({"question": "necessity", "circuit": "shared", "p": 0.5}, "does no more harm than ablating random sets, so"),
    ],
)
def test_control_sentence_follows_p(changes, said):
    assert said in summary.control_findings(control(**changes))[1]


def test_control_sentences_without_controls():
    none = {"controls": 0, "p": math.nan, "control_median": math.nan, "control_low": math.nan, "control_high": math.nan}
    sentences = summary.control_findings(control(**none, note="no control: layer 2 has too few other heads"))
    assert sentences == [
        "No random control was possible, so nothing says that these circuits are special.",
        "Not tested: sufficiency of the a circuit (no control: layer 2 has too few other heads).",
    ]


def test_components_are_listed_by_layer():
    assert sorted(["m1", "10.0", "m0", "0.10", "0.2"], key=wording.place) == ["0.2", "0.10", "m0", "m1", "10.0"]


def test_left_out_prompts_are_reported():
    study = STUDIES["6 layers x 8 heads"]
    said = " ".join(summary.prompt_findings(study.clean, study.info, study.tasks))
    assert "Number words: 3 prompts rejected (3 for another number of tokens)." in said
    assert "99.0 % of number words" in said and "Not used as object" in said
    tiny = STUDIES["2 layers x 3 heads"]
    assert summary.prompt_findings(tiny.clean, tiny.info, tiny.tasks)[0].startswith("No prompt was rejected")


def test_pages_need_nothing_from_outside(study):
    names = ["clean", "faithfulness", "membership", "overlap", "cross", "controls_summary"]
    names += ["edge_areas", "evaluation", "completeness", "minimality", "positions", "stability_summary", "typology"]
    names += ["roles", "attribution", "patching", "lens", "lens_lead", "lens_increments", "detectors", "backup"]
    tables = {name: getattr(study, name) for name in names} | {"prompts": pd.concat(study.prompts.values())}
    layers, heads = (study.effects[study.main[0]][key].max() + 1 for key in ("layer", "head"))
    model = {"model": study.model, "architecture": "GPT2LMHeadModel", "n_layers": int(layers), "n_heads": int(heads)}
    model["compared"] = {"dtypes": ["float32"], "tokens": 128}
    settings = {
        "title": "A & B",
        "tasks": study.tasks,
        "main_tasks": study.main,
        "threshold": study.threshold,
        "order": study.order,
        "labels": head_tables.THRESHOLDS,
    }
    page = summary.summary_page(tables | {"left_out": {}}, study.info, study.edge_circuits, model, settings, {})
    assert "A &amp; B" in page and "The edge circuits keep" in page
    assert '<h2 id="heads">What the heads do</h2>' in page and f'href="{study.model}.heads.html#h' in page
    for html in (page, pages.tables_page({k: tables[k] for k in ("clean", "overlap", "cross")}, "Tables")):
        assert "http" not in html and "src=" not in html and ">nan" not in html
        assert html.count("<table>") == html.count("</table>")
