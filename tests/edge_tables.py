"""Synthetic tables of edges, evaluation and stability, for the figures: added to the studies of figure_tables."""

import math
from itertools import combinations

import numpy as np
import pandas as pd

from atlas.compare import overlap
from atlas.core.components import Component
from atlas.core.graph import EMBED, LOGITS, Graph
from atlas.core.multiple import corrected, interval_p

GRID = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
METRICS = ("logit_diff", "percent_of_full", "faithfulness", "prob_diff", "kl", "top1", "answer_rank")
FAMILIES = ("orders", "bootstrap", "seeds", "templates", "corruption")
ROLES = ("members", "separators", "last", "bos")


def interval(value, width=0.02):
    return {"value": value, "ci_low": value - width, "ci_high": value + 0.8 * width}


def add(study, edges=100, kv_heads=None, seed=0):
    """Add all tables of docs/artifacts.md above the level of nodes, with circuits of about `edges` edges."""
    rng = np.random.default_rng(seed)
    effects = study.effects[study.main[0]]
    layers, heads = int(effects["layer"].max()) + 1, int(effects["head"].max()) + 1
    study.graph = graph = Graph(layers, heads, kv_heads or heads)
    base = {"model": study.model}
    tables = {name: [] for name in TABLES}
    common = rng.gamma(0.2, 1, len(graph.edges))
    scores, circuits, nodes = {}, {}, {}
    for task in study.main:
        strength = dict(zip(graph.edges, 0.6 * common + rng.gamma(0.15, 0.8, len(graph.edges)), strict=True))
        nodes[task] = sorted(study.membership.loc[study.membership["circuit"] == task, "component"])
        inside = sorted(graph.among(frozenset(map(Component.parse, nodes[task]))))  # in an order that no hash gives
        ranked = sorted(inside, key=lambda e: (e.sender != EMBED, -strength[e]))
        # the strongest edges, some that no path leads on from, and a path to the logits
        kept = set(sorted(ranked, key=lambda e: -strength[e])[:edges])
        kept |= {e for e in inside if e.receiver == LOGITS and e.sender != EMBED and rng.random() < 0.4}
        circuits[task] = sorted(kept)
        scores[task] = {e: strength[e] * (1 if rng.random() < 0.12 else -1) for e in graph.edges}
        _curves(tables, {**base, "task": task}, graph, circuits[task], inside, rng)
        _evaluation(tables, {**base, "task": task}, nodes[task], circuits[task], rng)
        _positions(tables, {**base, "task": task}, nodes[task], rng)
        _roles(tables, {**base, "task": task}, circuits[task], scores[task])
        _stability(tables, {**base, "task": task}, nodes[task], circuits[task], effects, graph, rng)
        _methods(tables, {**base, "task": task}, nodes[task], circuits[task], effects, graph, rng)
        for method, noise in (("eap", 0.3), ("eap_ig", 0.0)):
            tables["edge_scores"] += [
                {
                    **base,
                    "task": task,
                    "method": method,
                    "sender": e.sender,
                    "receiver": e.receiver,
                    **interval(v + noise * rng.normal(), 0.1),
                }
                for e, v in scores[task].items()
            ]
        tables["edge_membership"] += [
            {**base, "circuit": task, "sender": e.sender, "receiver": e.receiver, "value": scores[task][e]}
            for e in circuits[task]
        ]
    for a, b in combinations(study.main, 2):
        x, y = set(circuits[a]), set(circuits[b])
        pair = {**base, "circuit_a": a, "circuit_b": b}
        tables["edge_overlap"].append(
            {
                **pair,
                "level": "edges",
                "size_a": len(x),
                "size_b": len(y),
                "shared": len(x & y),
                "jaccard": len(x & y) / len(x | y),
                "overlap_coefficient": len(x & y) / min(len(x), len(y)),
                "expected": len(x) * len(y) / len(graph.edges),
                "p_hypergeometric": 1e-9,
                "p_layer_matched": 1e-5,
                "ratio": len(x & y) * len(graph.edges) / (len(x) * len(y)),
                "expected_exchanged": 0.4 * len(x & y),
                "p_exchanged": 0.001,
            }
        )
        for level, kind in (("heads", "shared core with branches"), ("edges", "undecided")):
            tables["typology"].append({**pair, "level": level, "type": kind, "reason": "Jaccard below 0.8"})
    for name, rows in tables.items():
        setattr(study, name, pd.DataFrame(rows, columns=None if rows else TABLES[name]))
    rows = study.overlap.to_dict("records") + study.edge_overlap.to_dict("records")
    study.overlap = pd.DataFrame(overlap.together(rows), columns=study.overlap.columns)
    study.minimality["p"] = interval_p(*(study.minimality[c] for c in ("value", "ci_low", "ci_high")))
    study.minimality = corrected(study.minimality, study.minimality["task"] + study.minimality["circuit"])
    study.edge_circuits = {
        task: {
            "task": task,
            "total_edges": len(graph.edges),
            "graph": {"n_layers": layers, "n_heads": heads, "n_kv_heads": graph.n_kv_heads, "parallel": False},
            "circuits": [
                {
                    "method": "iterative_edges",
                    "ranking": "",
                    "setting": study.threshold,
                    "edges": list(map(str, circuits[task])),
                    "nodes": nodes[task],
                    "without_path": sorted(map(str, graph.without_path(circuits[task]))),
                    "dropped": 0,
                    "percent_with_dropped": 81.0,
                    "percent_of_full": 81.0,
                    "faithfulness": 0.8,
                }
            ],
        }
        for task in study.main
    }
    return study


PAIR = ["model", "circuit_a", "circuit_b", "level"]
TABLES = {
    "edge_scores": [],
    "edge_membership": ["model", "circuit", "sender", "receiver", "value"],
    "edge_curves": [],
    "edge_areas": [],
    "evaluation": [],
    "completeness": [],
    "minimality": [],
    "positions": [],
    "edge_roles": [],
    "stability": [],
    "stability_summary": [],
    "methods": [],
    "edge_overlap": [],
    "typology": [*PAIR, "type", "reason"],
}


def _curves(tables, base, graph, circuit, inside, rng):
    total = len(graph.edges)
    quality = {"eap": 60, "eap_ig": 25, "path_patching": 35}
    for split in ("search", "held_out"):
        key = {**base, "split": split}

        def row(method, ranking, setting, n, faith, width, key=key):
            kind = {**key, "method": method, "ranking": ranking, "setting": float(setting), "edges": n}
            kind |= {"share": n / total, "nodes": min(n, graph.n_layers * (graph.n_heads + 1))}
            tables["edge_curves"].append({**kind, "metric": "faithfulness", **interval(faith, width)})
            tables["edge_curves"].append(
                {**kind, "metric": "percent_of_full", **interval(110 * faith - 10, 100 * width)}
            )

        for method, half in quality.items():
            for ranking in ("signed", "absolute"):
                for share in GRID:
                    n = max(1, round(share * total))
                    rise = n / (n + half * (1.6 if ranking == "absolute" else 1)) * (1 + half / total)
                    wild = -2.5 * math.exp(-n / 4) if method == "eap" else 0.0
                    row(method, ranking, n, n, rise + wild + (0.15 * math.sin(3 * share) if share < 1 else 0), 0.04)
                for metric, value in (("cpr", 1 - half / 700), ("cmd", half / 600)):
                    area = {**key, "method": method, "ranking": ranking, "metric": metric}
                    tables["edge_areas"].append({**area, **interval(value, 0.015)})
        for draw in range(5):
            for share in GRID:
                n = max(1, round(share * total))
                row("random", "", draw, n, share**4 + 0.02 * rng.normal() if share < 1 else 1.0, 0.02)
        for metric, value in (("cpr", 0.3), ("cmd", 0.7)):
            tables["edge_areas"].append(
                {**key, "method": "random", "ranking": "", "metric": metric, **interval(value, 0.02)}
            )
        row("iterative_edges", "", 20, len(circuit), 0.82, 0.03)
        for tau, factor in ((0.25, 1.6), (0.5, 1.0), (1.0, 0.6), (2.0, 0.3)):
            row("acdc", "", tau, max(1, int(factor * len(circuit))), 0.97 - 0.12 / factor, 0.04)
        for threshold, factor in ((10, 1.0), (20, 0.8), (40, 0.6)):
            row("node_circuit", "", threshold, max(1, int(factor * len(inside))), 1 - threshold / 100, 0.03)


def _evaluation(tables, base, nodes, circuit, rng):
    names = {"nodes": ("node", len(nodes), -1), "edges": ("edge", len(nodes), len(circuit))}
    names |= {"full": ("node", 54, -1), "empty": ("node", 0, -1)}
    values = {
        "full": (5.3, 100, 1, 0.83, 0, 0.98, 0.02),
        "empty": (-0.1, -2, 0, 0.0, 6.2, 0.05, 14.1),
        "nodes": (4.3, 81, 0.82, 0.61, 0.4, 0.93, 0.3),
        "edges": (4.2, 80, 0.8, 0.55, 0.6, 0.9, 0.5),
    }
    for split in ("search", "held_out"):
        for name, (level, components, edges) in names.items():
            key = {**base, "circuit": name, "level": level, "components": components, "edges": edges, "split": split}
            for metric, value in zip(METRICS, values[name], strict=True):
                spread = 0 if name in ("full", "empty") and metric == "faithfulness" else 0.04 * abs(value) + 0.01
                tables["evaluation"].append({**key, "metric": metric, **interval(value + 0.01 * rng.normal(), spread)})
            if name == "nodes":
                tables["evaluation"].append({**key, "metric": "noising", **interval(0.04, 0.03)})
                tables["evaluation"].append({**key, "metric": "denoising", **interval(0.88, 0.03)})
                tables["evaluation"].append({**key, "metric": "noising_heads", **interval(0.31, 0.03)})
                tables["evaluation"].append({**key, "metric": "denoising_heads", **interval(0.62, 0.03)})
    for circuit_name, members in (("nodes", nodes), ("edges", list(map(str, circuit)))):
        for draw in range(20):
            size = int(rng.integers(1, max(2, len(members))))
            removed = sorted(rng.choice(members, size, replace=False))
            full = 1 - size / len(members) * rng.uniform(0.5, 1)
            f = full - rng.uniform(0, 0.25)
            key = {**base, "circuit": circuit_name, "draw": draw, "removed": " ".join(removed), "size": size}
            tables["completeness"].append({**key, "f_circuit": f, "f_full": full, **interval(abs(f - full), 0.04)})
        for name in members:
            lost = rng.gamma(0.6, 12) - 1
            tables["minimality"].append({**base, "circuit": circuit_name, "name": name, **interval(lost, 1.5)})


def _positions(tables, base, nodes, rng):
    for name in nodes:
        c = Component.parse(name)
        for role, strength in zip(ROLES, (12, 3, 20, 0.4), strict=True):
            value = rng.gamma(0.5, strength) - 1
            tables["positions"].append(
                {
                    **base,
                    "component": name,
                    "layer": c.layer,
                    "head": c.head,
                    "role": role,
                    **interval(value, 1.2),
                    "kept": bool(value > 1),
                }
            )


def _roles(tables, base, circuit, scores):
    """Parts of each edge at two pairs of roles; the first twenty are ablated alone."""
    for number, edge in enumerate(circuit):
        for start, end in (("members", "last"), ("last", "last")):
            row = {**base, "method": "eap_ig", "sender": edge.sender, "receiver": edge.receiver}
            row |= {"start": start, "end": end, **interval(scores[edge] * (0.7 if start == end else 0.3), 0.1)}
            exact = interval(1.5 * row["value"], 0.1) if number < 10 else dict.fromkeys(interval(0), math.nan)
            names = dict(zip(exact, ("exact", "exact_low", "exact_high"), strict=True))
            tables["edge_roles"].append(row | {names[key]: value for key, value in exact.items()})


def _stability(tables, base, nodes, circuit, effects, graph, rng):
    names = {"component": list(effects["component"].unique()), "edge": list(map(str, graph.edges))}
    kept = {"component": nodes, "edge": list(map(str, circuit))}
    for level, members in kept.items():
        for family, runs in zip(FAMILIES, (3, 10, 3, 2, 2), strict=True):
            if level == "edge" and family == "orders":
                continue
            shares = {name: round(runs * rng.beta(6, 1.2)) / runs for name in members}
            others = rng.choice(names[level], min(len(members), len(names[level])), replace=False)
            shares = {name: round(runs * rng.beta(1, 4)) / runs for name in others} | shares
            tables["stability"] += [
                {**base, "level": level, "name": name, "family": family, "share": share, "runs": runs}
                for name, share in shares.items()
                if share > 0
            ]
            tables["stability_summary"] += [
                {
                    **base,
                    "level": part,
                    "family": family,
                    "runs": runs,
                    "size_min": len(members) - 2,
                    "size_max": len(members) + 3,
                    "intersection": sum(s > 1 - 1e-9 for s in shares.values()),
                    "union": sum(s > 0 for s in shares.values()),
                    "jaccard": 0.72,
                    "jaccard_low": 0.6,
                    "jaccard_high": 0.85,
                    "expected": 0.31 if part in ("component", "head") else math.nan,
                }
                for part in (("component", "head", "mlp") if level == "component" else (level,))
            ]


def _methods(tables, base, nodes, circuit, effects, graph, rng):
    labels = {
        "component": ["layers T=20", "ascending effect T=20", "random 0 T=20", "iterative edges T=20", "acdc tau=1"],
        "edge": [
            "iterative edges T=20",
            "acdc tau=1",
            "eap signed",
            "eap absolute",
            "eap_ig signed",
            "eap_ig absolute",
        ],
    }
    pools = {"component": list(effects["component"].unique()), "edge": list(map(str, graph.edges))}
    for level, members in (("component", nodes), ("edge", list(map(str, circuit)))):
        for label in labels[level]:
            extra = rng.choice(pools[level], max(1, len(members) // 4), replace=False)
            found = {name for name in members if rng.random() < 0.8} | set(extra)
            tables["methods"] += [{**base, "level": level, "method": label, "name": name} for name in sorted(found)]
