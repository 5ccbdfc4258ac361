"""Made-up data of an atlas page, of any size, as `atlas.report.atlas.page` describes them; equal in every run."""

import base64
import json

import numpy as np

from atlas.report.atlas import page
from atlas.report.atlas.packing import rounded, text

MEMBERS = {
    "numerals": ["1", "2", "3", "4", "5", "6", "7", "8"],
    "number_words": ["one", "two", "three", "four", "five", "six", "seven", "eight"],
    "months": ["January", "February", "March", "April", "May", "June", "July", "August"],
    "days": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday"],
}
TARGETS = ("next", "previous", "next-without-mlp0")
ROLES = ["previous token", "induction", "successor", "copy", "same-type detector"]


def html(data: dict) -> str:
    """The page of these data, as the workflow writes it."""
    parts = {name: (page.FOLDER / file).read_text() for name, file in page.PARTS.items()}
    return page.filled((page.FOLDER / "page.html").read_text(), page.escaped(data["title"]), text(data), parts)


def study(n_layers=6, n_heads=8, seed=0, models=("ladder-6x8",), edges=400, prompts=4) -> dict:
    """Data of a study of three searched tasks and one that is only evaluated."""
    made = [
        _model(name, n_layers, n_heads, np.random.default_rng([seed, i]), edges, prompts)
        for i, name in enumerate(models)
    ]
    note = ["These data are made up.", f"Prompts are a sample: {prompts} of 96 of each task."]
    return json.loads(
        json.dumps({"version": 1, "title": "A made-up study", "note": note, "models": made, "between": []})
    )


def _numbers(values) -> list:
    return [rounded(value) for value in values]


def _intervals(rng, values, width) -> dict:
    spread = width * (0.5 + rng.random(len(values)))
    return {"value": _numbers(values), "low": _numbers(values - spread), "high": _numbers(values + spread)}


def _model(name, n_layers, n_heads, rng, edges, prompts) -> dict:
    size = n_layers * (n_heads + 1)
    strength = np.abs(rng.standard_t(2, size)) * np.where(np.arange(size) % (n_heads + 1) == n_heads, 8, 4)
    tasks = [_task(task, n_layers, n_heads, rng, strength, edges, prompts) for task in MEMBERS]
    main = [task for task in tasks if task["main"]]
    held = [set(next(c for c in task["circuits"] if c["reported"])["members"]) for task in main]
    shared = sorted(set.intersection(*held))
    mlps = [i for i in shared if i % (n_heads + 1) == n_heads]
    return {
        "name": name,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_heads,
        "parallel": False,
        "source": "Llama architecture, made-up weights.",
        "warning": "",
        "kind": "mean",
        "threshold": 20,
        "thresholds": [10, 20],
        "orders": ["layers", "random_0"],
        "labels": {"successor": 0.5},
        "detectors": {
            kind: [None if i % (n_heads + 1) == n_heads else rounded(v) for i, v in enumerate(rng.random(size) ** 4)]
            for kind in ("induction", "previous token")
        },
        "tasks": tasks,
        "order": _order(n_layers, n_heads, np.random.default_rng([n_layers, n_heads])),
        "compare": {
            "overlap": [
                {
                    "a": a["name"],
                    "b": b["name"],
                    "level": "heads",
                    "sizes": [len(held[i]), len(held[j])],
                    "shared": len(held[i] & held[j]),
                    "expected": rounded(len(held[i]) * len(held[j]) / size),
                    "p": 0.0004,
                    "p_holm": 0.0012,
                    "jaccard": rounded(len(held[i] & held[j]) / len(held[i] | held[j])),
                }
                for i, a in enumerate(main)
                for j, b in enumerate(main)
                if i < j
            ],
            "cross": [
                {
                    "circuit": a["name"],
                    "task": b["name"],
                    "split": "held_out",
                    "value": rounded(v),
                    "low": rounded(v - 4),
                    "high": rounded(v + 3),
                }
                for a in main
                for b in tasks
                for v in [rng.uniform(20, 95)]
            ],
            "controls": [
                {
                    "question": question,
                    "circuit": task["name"],
                    "task": task["name"],
                    "value": rounded(v),
                    "low": rounded(v - 4),
                    "high": rounded(v + 4),
                    "median": rounded(rng.uniform(-5, 20)),
                    "control_low": -20,
                    "control_high": 40,
                    "controls": 100,
                    "p": 0.0099,
                    "p_holm": 0.03,
                    "state": "decided",
                    "reason": "",
                }
                for task in main
                for question, v in (("sufficiency", rng.uniform(80, 95)), ("necessity", rng.uniform(-20, 10)))
            ],
            "shared": {
                "tasks": [task["name"] for task in main],
                "heads": [i for i in shared if i not in mlps],
                "mlps": mlps,
                "expected": 1.5,
                "p": 0.001,
                "p_holm": 0.001,
                "share": [None] * size,
                "sentence": f"The cores of all 3 tasks share {len(shared) - len(mlps)} heads.",
            },
        },
    }


def _order(n_layers, n_heads, rng) -> dict:
    """Successor scores of two classes, circles of one of them, a line of the other, findings."""
    size = n_layers * (n_heads + 1)
    mlp = np.arange(size) % (n_heads + 1) == n_heads

    def scores(name, target) -> dict:
        values = np.where(rng.random(size) < 0.06, rng.uniform(0.6, 1, size), rng.random(size) ** 2 / 4)
        p = np.where(values > 0.5, 0.005, 1)
        first = (np.arange(size) <= n_heads) & ("without" not in target)  # layer 0 comes before MLP 0
        return {
            "class": name,
            "target": target,
            "group": "without MLP 0" if "without" in target else "after MLP 0",
            "words": f"{target.split('-')[0]} member",
            "centre": 0,
            "about": "Share of members whose target the head raises most of its class.",
            "members": len(MEMBERS[name]),
            "value": [None if m else rounded(v) for m, v in zip(mlp | first, values, strict=True)],
            "p": [None if m else rounded(v) for m, v in zip(mlp | first, p, strict=True)],
            "sure": [int(i) for i in np.flatnonzero(~mlp & ~first & (values > 0.5))],
            "random": {"median": 0.1, "high": 0.25},
            "alone": {"value": 0.125, "p": 0.31},
        }

    points = sorted({0, *np.linspace(0, n_layers, min(9, n_layers + 1)).round().astype(int).tolist()})

    def layout(name, at) -> dict:
        words, turn = MEMBERS[name], 2 * np.pi * np.arange(len(MEMBERS[name])) / len(MEMBERS[name])
        flat = np.stack([np.cos(turn), np.sin(turn), np.arange(len(words)) / len(words)], 1)
        if name == "numerals":
            flat = flat[:, [2, 1, 0]]
        cloud = [3 * (k + 1) * flat + rng.normal(0, 0.9, flat.shape) for k in range(len(points))]
        joined = [[k, k + 1, 1] for k in range(len(words) - 1)]
        return {
            "class": name,
            "at": at,
            "where": {"member": "at the member"}.get(at, "as the answer of days"),
            "best": points[-2],
            "members": words,
            "joined": joined + ([[len(words) - 1, 0, 0]] if name == "months" else []),
            "points": points,
            "coordinates": [[_numbers(row) for row in one.round(3)] for one in cloud],
            "explained": [[0.41, 0.233, 0.08] for _ in points],
        }

    def shape(name, at, title) -> dict:
        value = np.clip(np.linspace(0.2, 0.95, n_layers + 1) + rng.normal(0, 0.06, n_layers + 1), 0, 1)
        return {
            "class": name,
            "at": at,
            "shape": f"{title.lower()}:random-orders",
            "words": title.lower(),
            "about": "Band: 95 % of random orders.",
            "title": title,
            "points": list(range(n_layers + 1)),
            "value": _numbers(value),
            "null_low": _numbers(np.full(n_layers + 1, 0.02)),
            "null_high": _numbers(np.full(n_layers + 1, 0.46) + rng.random(n_layers + 1) / 20),
            "p": _numbers(np.where(value > 0.6, 0.004, 0.4)),
        }

    shown = ("months", "numerals")
    header = ["from", "to", "success", "random directions"]
    return {
        "classes": [{"name": name, "words": name.replace("_", " ")} for name in (*shown, "number_words")],
        "successors": {
            "rows": [scores(name, target) for name in (*shown, "number_words") for target in TARGETS],
        },
        "layouts": [layout(name, at) for name in shown for at in ("member", "answer:days")],
        "shapes": [
            shape(name, at, title)
            for name, titles in (("months", ("Circle",)), ("numerals", ("Line", "Helix")))
            for at in ("member", "answer:days")
            for title in titles
        ],
        "parts": [
            {
                "name": "successors",
                "title": "Successor heads",
                "sentences": [
                    "Head 2.1 raises the next month of 8 of 8 months.",
                    "None raises previous ones.",
                    "Third.",
                ],
                "tables": [],
            },
            {
                "name": "steering",
                "title": "Steering",
                "sentences": ["Numerals become months on 61 % of prompts; random directions 2 %."],
                "tables": [
                    {
                        "title": "Best cells",
                        "header": header,
                        "rows": [["numerals", "months", "0.61", "0.02"], ["months", "numerals", "0.4", "0.01"]],
                        "note": "Held-out prompts.",
                        "open": True,
                    }
                ],
            },
            {
                "name": "neurons",
                "title": "Neurons",
                "sentences": [],
                "tables": [{"title": "Neurons", "header": ["neuron", "effect"], "rows": [["m3.17", "0.4"]]}],
            },
        ],
    }


def _task(name, n_layers, n_heads, rng, strength, n_edges, n_prompts) -> dict:
    size, main = len(strength), name != "days"
    lost = strength * rng.uniform(0.6, 1.4, size)
    order = np.argsort(-lost, kind="stable")
    mlp = np.arange(size) % (n_heads + 1) == n_heads
    share = np.clip(lost / np.sort(lost)[-max(6, size // 8)] - rng.random(size) * 0.3, 0, 1)
    task = {
        "name": name,
        "words": name.replace("_", " "),
        "main": main,
        "metric": "logit_diff",
        "full": [4.218, 4.102, 4.331],
        "prompts_of": 96,
        "several_tokens": False,
        "attribution": _intervals(rng, rng.normal(0, 0.3, size) * lost / 5, 0.05),
        "patching": {
            way: [None if m else rounded(v) for m, v in zip(mlp, rng.normal(0, 0.2, size), strict=True)]
            for way in ("denoising", "noising")
        },
        "ov": {kind: _intervals(rng, rng.random(size) ** 3, 0.05) for kind in ("next", "copy")},
        "backup": [
            [int(order[0]), int(order[k]), rounded(v), rounded(v - 0.1), rounded(v + 0.1), 0.01]
            for k, v in ((3, 0.4), (5, -0.2))
        ],
        "roles": [
            {
                "id": int(i),
                "label": ROLES[k % 5],
                "labels": [ROLES[k % 5]],
                "evidence": f"score {rng.random():.2f}",
                "null": "applies from 0.5 on",
                "differs": False,
                "values": {},
            }
            for k, i in enumerate(i for i in order[: max(5, size // 10)] if not mlp[i])
        ],
        "tokens": {
            str(i): {
                "top": [
                    [f" {word}", rounded(v)]
                    for word, v in zip(MEMBERS[name][:5], -np.sort(-rng.random(5)), strict=True)
                ],
                "bottom": [[" the", -0.4]],
            }
            for i in order[:12]
        },
        "prompts": [
            _prompt(k, name, n_layers, n_heads, rng, lost, [int(i) for i in order if not mlp[i]][:16])
            for k in range(n_prompts)
        ],
    }
    keys = ("circuits", "traces", "effects", "positions", "edges", "share", "class", "runs")
    if not main:
        return task | dict.fromkeys(keys)
    percents = 100 - np.where(rng.random(size) < 0.2, -0.4, 1) * lost
    kept = {10: sorted(map(int, order[: max(6, size // 5)])), 20: sorted(map(int, order[: max(5, size // 8)]))}
    circuits = [
        {
            "label": label,
            "order": "layers" if label == "reported" else label,
            "threshold": t,
            "searched": t,
            "members": members,
            "dropped": [],
            "split": "held_out",
            "percent": _numbers([100 - t + 3.2, 100 - t - 1.1, 100 - t + 6.4]),
            "reported": label == "reported" and t == 20,
        }
        for label in ("reported", "layers", "random_0")
        for t, members in kept.items()
    ]
    traces = [
        {"order": o, "threshold": t, "steps": _steps(rng, kept[t], size, t)}
        for o in ("layers", "random_0")
        for t in kept
    ]
    classes = np.where(share >= 0.9, "core", np.where(share >= 0.1, "contingent", "noise"))
    return task | {
        "circuits": circuits,
        "traces": traces,
        "effects": {
            kind: _intervals(rng, percents + rng.normal(0, 1, size), 1.5) for kind in ("mean", "zero", "resample")
        },
        "positions": {
            "roles": ["member_1", "member_4", "last"],
            **{
                key: [
                    [rounded(v) if i in kept[20] else None for i, v in enumerate(rng.normal(shift, 2, size))]
                    for _ in range(3)
                ]
                for key, shift in (("value", 5), ("low", 0), ("high", 10), ("kept", 0))
            },
        },
        "share": _numbers(share),
        "class": classes.tolist(),
        "runs": 12,
        "edges": _edges(rng, kept[10], n_heads, n_edges),
    }


def _steps(rng, members, size, threshold) -> list:
    steps, percent = [], 100.0
    for i in range(size - 1, -1, -1):
        if i in members:
            steps.append([[i], rounded(100 - threshold - rng.uniform(0.5, 20)), 0])
        else:
            percent = max(100 - threshold + 0.3, percent + rng.normal(-0.4, 1.2))
            steps.append([[i], rounded(percent), 1])
    return steps


def _edges(rng, members, n_heads, most) -> dict:
    layer = {i: i // (n_heads + 1) for i in members}
    pairs = [(-1, b) for b in members] + [(a, -2) for a in members]
    pairs += [
        (a, b)
        for a in members
        for b in members
        if layer[a] < layer[b] or (layer[a] == layer[b] and b % (n_heads + 1) == n_heads and a < b)
    ]
    edges = [(a, b, port) for a, b in pairs for port in ("qkv" if b >= 0 and b % (n_heads + 1) < n_heads else [""])]
    values = rng.standard_t(2, len(edges)) * 0.1 - 0.03
    order = np.argsort(-np.abs(values), kind="stable")[:most]
    rows = [(*edges[i], values[i]) for i in order]
    columns = dict(zip(("sender", "receiver", "port"), map(list, list(zip(*rows, strict=True))[:3]), strict=True))
    ranked = np.array([row[3] for row in rows])
    return {
        "method": "path patching",
        "total": 20000,
        "scored": len(edges),
        "inside": len(rows) // 3,
        "left_out": "",
        **columns,
        **_intervals(rng, ranked, 0.01),
        "circuit": [int(i < len(rows) // 3) for i in range(len(rows))],
    }


def _prompt(k, name, n_layers, n_heads, rng, lost, heads) -> dict:
    words = MEMBERS[name][k % 3 : k % 3 + 5]
    fillers = ["Apple", "Bell", "Boat", "Lamp", "Ring"]
    tokens = [
        piece
        for word, filler in zip(words[:4], fillers, strict=False)
        for piece in (filler, " found", " in", f" {word}", ".")
    ]
    tokens += [" Ring", " found", " in"]
    roles = [role for i in range(4) for role in ("filler", "other", "other", f"member_{i + 1}", "stop")] + [
        "filler",
        "other",
        "last",
    ]
    size = len(tokens)
    weights = []
    for _ in heads:
        raw = np.tril(rng.random((size, size)) ** 6)
        weights.append((raw / raw.sum(1, keepdims=True))[np.tril_indices(size)])
    clean = float(rng.uniform(3, 5))
    points = ["embed", *(f"{part} {layer}" for layer in range(n_layers) for part in ("attn", "mlp"))]
    values = np.sort(rng.normal(0, 1, len(points))) * clean / 2
    values[-1] = clean
    return {
        "prompt": k * 7,
        "split": "search",
        "template": 0,
        "tokens": tokens,
        "roles": roles,
        "answer": f" {words[4]}",
        "incorrect": f" {words[3]}",
        "corrupted": [
            f" {MEMBERS[name][-1 - i // 5]}" if role.startswith("member") else t
            for i, (t, role) in enumerate(zip(tokens, roles, strict=True))
        ],
        "clean": rounded(clean),
        "ablated": {
            kind: _numbers(clean - lost * clean / 100 + rng.normal(0, 0.05, len(lost))) for kind in ("mean", "zero")
        },
        "attribution": _numbers(rng.normal(0, 0.05, len(lost)) * lost),
        "rest": [["embeddings", 0.1]],
        "top": [[f" {words[4]}", rounded(12 + clean)], [f" {words[3]}", 12.0], [" the", 8.1]],
        "lens": {"points": points, "value": _numbers(values), "top": [[" the", " a", f" {words[4]}"] for _ in points]},
        "attention": {
            "heads": heads,
            "bits": base64.b64encode(np.round(np.concatenate(weights) * 255).astype(np.uint8).tobytes()).decode(),
        },
    }
