"""Synthetic tables of whole studies, as docs/artifacts.md describes them: for tests of figures, pages and sentences."""

import calendar
import functools
import math
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd

import edge_tables
import head_tables
import trust_tables
from atlas.circuit import verdicts
from atlas.compare import consensus, overlap
from atlas.core.components import parse
from edge_tables import interval

MONTHS = list(calendar.month_name)[1:]

COLOURS = {"clean": "#4477AA", "corrupted": "#BBBBBB", "circuit": "#EE6677"}

KINDS = ["mean", "zero", "resample"]


class FakeStudy(SimpleNamespace):
    """Tables of one model by name. Hashed by identity, so that a drawing of it can be kept."""

    __hash__ = object.__hash__


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
    study = FakeStudy(model=model, main=main, tasks=tasks, prompts={}, info={}, trace={}, circuits={}, effects={})

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
                            **interval(value, width),
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
                rows.append({**row, "metric": "percent_of_full", **interval(value, 2 + drop / 20), "clean": 100.0})
                rows.append({**row, "metric": "logit_diff", **interval(value / 20, 0.1), "clean": 5.0})
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
                    faithfulness.append({**row, "metric": "percent_of_full", **interval(percent + shift, 2)})
                    faithfulness.append(
                        {**row, "metric": "faithfulness", **interval((percent + shift + 10) / 110, 0.02)}
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
    study.choice = _choice(study.faithfulness, study.order)
    _comparison(study, base, chosen, names, controls, rng, main)
    _consensus(study, base, kept, controls, rng, (layers, heads))
    trust_tables.add(study, base, chosen, names, controls, np.random.default_rng(seed))
    return study


def _choice(faithfulness, order):
    """Every circuit as it was found; that of one order is reported, less a head that it does not name among its own."""
    reported = faithfulness["order"] == order
    found = faithfulness.assign(candidate=["left" if yes else "found" for yes in reported], passes=True)
    found = found.assign(dropped=["9.9" if yes else "" for yes in reported], reported=reported)
    found["searched"] = found["threshold"]
    return found.assign(optimism=np.where(reported, 0.2, np.nan), chosen_again=np.where(reported, 0.8, np.nan))


def _consensus(study, base, kept, controls, rng, sizes):
    """What the searches of every order agree on, and each of them again less a member, as on other prompts."""
    searches = {}
    for task in study.main:
        own = {("orders", o): frozenset(map(parse, kept[task, o, study.threshold])) for t, o, _ in kept if t == task}
        less = {("bootstrap", name): circuit - {min(circuit)} for (_, name), circuit in own.items() if circuit}
        searches[task] = own | less
    agreed = [{"task": t} | row for t, own in searches.items() for row in consensus.agreement(own)]
    study.consensus = pd.DataFrame(agreed).assign(**base)
    shared = consensus.shared_rows(searches, *sizes)
    study.shared = pd.DataFrame(shared, columns=list(consensus.SHARED_COLUMNS)).assign(**base)
    members = consensus.member_rows(searches)
    study.shared_members = pd.DataFrame(members, columns=list(consensus.MEMBER_COLUMNS)).assign(**base)
    scores, tests = [], []
    for task in study.tasks:
        for circuit in ("shared", *(("core", "core and contingent") if task in study.main else ())):
            row = {**base, "task": task, "circuit": circuit, "split": "held_out"}
            scores.append({**row, "metric": "percent_of_full", **interval(70, 4)})
            scores.append({**row, "metric": "faithfulness", **interval(0.7, 0.04)})
            question = "necessity" if circuit == "shared" else "sufficiency"
            n = 0 if task == study.main[-1] and len(study.main) > 1 else controls
            row |= {"question": question, **interval(70, 4), "controls": n, "p": 1 / (1 + n) if n else math.nan}
            row |= {"control_low": 20, "control_high": 40} if n else {"control_low": math.nan, "control_high": math.nan}
            tests.append(row | {"control_median": 30 if n else math.nan, "note": "" if n else "no control"})
    study.consensus_scores, study.consensus_tests = pd.DataFrame(scores), pd.DataFrame(tests)


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
                    "p_exchanged": math.nan,
                }
            )
    columns = ["model", *(c for c in overlap.COLUMNS if c != "p_smallest")]
    study.overlap = pd.DataFrame(overlap.together(rows), columns=columns)
    rows = []
    for i, circuit in enumerate([*chosen, "shared", "union", "all but shared"]):
        for j, task in enumerate(study.tasks):
            centre = {"shared": 30, "union": 101, "all but shared": 9}.get(circuit, 82 - 13 * abs(i - j))
            value = centre + rng.normal(0, 3)
            row = {**base, "circuit": circuit, "task": task, "split": "held_out", "prompts": 36}
            rows.append({**row, "metric": "percent_of_full", **interval(value, 4)})
            rows.append({**row, "metric": "faithfulness", **interval((value + 10) / 110, 0.04)})
            rows.append({**row, "metric": "top1", **interval(min(1, max(0, value / 100)), 0.03)})
    study.cross = pd.DataFrame(rows)
    draws, summary = [], []
    for question, centre, own in (("sufficiency", 25, 82), ("necessity", 78, 8)):
        for circuit in ["shared", *chosen] if question == "necessity" else chosen:
            for task in study.tasks if circuit == "shared" else [circuit]:
                n = 0 if task == main[-1] and len(main) > 1 else controls
                key = {**base, "question": question, "circuit": circuit, "task": task}
                value, members = own if task in chosen else centre + 2, " ".join(circuits[circuit])
                draws.append({**key, "set": "circuit", "draw": -1, "components": members, **interval(value, 2.5)})
                values = rng.normal(centre, 15, n)
                draws += [
                    {**key, "set": "control", "draw": d, "components": members, **interval(v, 2)}
                    for d, v in enumerate(values)
                ]
                extreme = (values >= value).sum() if question == "sufficiency" else (values <= value).sum()
                quantiles = np.percentile(values, [50, 2.5, 97.5]) if n else [math.nan] * 3
                summary.append(
                    {
                        **key,
                        **interval(value, 2.5),
                        "controls": n,
                        "control_median": quantiles[0],
                        "control_low": quantiles[1],
                        "control_high": quantiles[2],
                        "p": (1 + extreme) / (1 + n) if n else math.nan,
                        "note": "" if n else "no control: layer 3 has too few other heads",
                    }
                )
    study.controls = pd.DataFrame(draws)
    study.controls_summary = verdicts.of_controls(pd.DataFrame(summary), study.controls)


def more(layers, heads, tasks, members=True, kv_heads=None, **options):
    """A study of main tasks alone with every table; without ``members`` as for prompts of unknown layout."""
    made = edge_tables.add(fake_study(layers, heads, tasks, (), **options), edges=30, kv_heads=kv_heads)
    return head_tables.add(made, kv_heads, members)


def tiny(edges=12, **options):
    return edge_tables.add(fake_study(2, 3, ("days",), (), ("layers",), (20,), **options), edges)


def without_heads():
    """A study whose circuit holds MLPs alone."""
    made = tiny(edges=8, model="mlps")
    made.membership = made.membership[made.membership["component"].str.startswith("m")]
    return head_tables.add(made)


MAKERS = {
    "6 layers x 8 heads": lambda: head_tables.add(edge_tables.add(fake_study())),
    "2 layers x 3 heads": lambda: head_tables.add(tiny(model="tiny")),
    "shared keys and values": lambda: more(3, 4, ("days", "months"), kv_heads=2, model="grouped"),
    "members unknown": lambda: more(2, 3, ("days",), members=False, model="unknown-layout"),
    "no heads in the circuit": without_heads,
}
LARGE, SMALL, GROUPED, UNKNOWN, HEADLESS = MAKERS


@functools.cache
def study_of(name: str) -> FakeStudy:
    """The study of this name, made once for all tests."""
    return MAKERS[name]()
