"""Synthetic tables of what heads do, for the figures and pages: added to the studies of figure_tables."""

import numpy as np
import pandas as pd

from atlas.core.components import Component
from atlas.core.multiple import corrected, interval_p
from atlas.heads import labels
from atlas.report import maps
from edge_tables import interval

MEMBERS = 4
CLAUSE = 5  # tokens of a clause; the member is its fourth
TOKENS = CLAUSE * MEMBERS + 3
AT = [CLAUSE * i + 3 for i in range(MEMBERS)]
THRESHOLDS = {label: 0.5 for label in labels.LABELS} | {"inhibitor": 0.1, "same-type detector": 0.2}  # floors
THRESHOLDS |= {"successor": 0.25, "copy": 0.25, "suppressor": 0.1, "answer writer": 0.1}
K = 5
PROMPTS = (3, 8)
DETECTED = ("previous", "induction", "duplicate")


def add(study, kv_heads=None, members=True, seed=0):
    """Add the tables of docs/artifacts.md about heads; without ``members`` as for prompts of unknown layout."""
    rng = np.random.default_rng(seed)
    effects = study.effects[study.main[0]]
    layers, heads = int(effects["layer"].max()) + 1, int(effects["head"].max()) + 1
    everything = [(layer, head) for layer in range(layers) for head in range(heads)]
    union = maps.union_heads(study.membership, study.main)
    found = {name: [] for name in (*COLUMNS, "patching", "attribution", "lens", "lens_tokens", "lens_lead")}
    found |= {"lens_increments": [], "attention": [], "role_scores": [], "mlp_answers": [], "mlp_tokens": []}
    strength = {at: rng.gamma(0.3, 0.5) for at in everything}  # of a head in all tasks
    study.patterns = {}
    for task in study.tasks:
        base = {"model": study.model, "task": task}
        _patching(found["patching"], base, layers, heads, kv_heads or heads, strength, rng)
        _attribution(found["attribution"], base, layers, heads, rng)
        _lens(found, base, layers, rng)
        _attention(found, base, everything, members, rng)
        if members:
            _ov(found["ov"], base, everything, [t for t in study.tasks if t != task], rng)
        _backup(found["backup"], base, everything, union, rng)
        _role_scores(found["role_scores"], base, everything, members, rng)
        _mlps(found, base, layers, rng)
        study.patterns[task] = _patterns(base, union, rng)
    study.detectors = pd.DataFrame(
        [
            {"model": study.model, "detector": d, "layer": la, "head": h, **interval(min(0.98, rng.gamma(0.4, 0.25)))}
            | {"null_low": 0.01, "null_high": 0.06}
            for d in ("previous", "duplicate", "induction")
            for la, h in everything
        ]
    )
    study.detectors["p"] = np.where(study.detectors["value"] > 0.3, 1e-4, 0.3)
    for name, rows in found.items():
        table = pd.DataFrame(rows, columns=None if rows else ["model", "task", *COLUMNS[name]])
        table = backup_tests(table) if name == "backup" else table
        setattr(study, "members" if name == "attention_members" else name, table)
    study.roles, study.role_tests = _roles(study, everything)
    return study


COLUMNS = {
    "attention_members": ["variant", "layer", "head", "statistic", "value", "ci_low", "ci_high"],
    "backup": [
        "ablated",
        "layer",
        "head",
        "before",
        "after",
        "change",
        "change_ci_low",
        "change_ci_high",
        "scale_ratio",
    ],
    "ov": ["norm", "layer", "head", "score", "k", "value", "ci_low", "ci_high", "baseline", "instances"],
}


def _roles(study, everything):
    """By the job's own function, of the tables above."""
    circuits = {
        task: frozenset(map(Component.parse, maps.circuit_heads(study.membership, task))) for task in study.main
    }
    tables = {}
    for task in study.tasks:
        of_task = {name: getattr(study, name) for name in ("patching", "attribution", "ov", "role_scores")}
        of_task |= {"attention_members": study.members}
        tables[task] = {name: table[table["task"] == task] for name, table in of_task.items()}
        tables[task]["detectors"] = study.detectors
        if task in study.effects:
            table = study.effects[task]
            tables[task]["component_effects"] = table[table["kind"] == "mean"]
    made = labels.label_tasks(circuits, [Component(*at) for at in everything], tables, K, THRESHOLDS)
    return tuple(made[name].assign(model=study.model) for name in ("roles", "role_tests"))


def _role_scores(rows, base, everything, members, rng):
    """A tenth of the scores are more than random heads reach; of what heads write, half of these than when shuffled."""
    written = ("ov next", "ov copy", "in place next", "in place copy", "attribution", "against", "suppression")
    scores = [score for of_label in labels.SCORES.values() for score in of_label if score not in DETECTED]
    without = ("attribution", "against", "last to self", "last to first token")
    for score in scores if members else without:
        for layer, head in everything:
            sure = rng.uniform() < 0.1
            value = rng.uniform(0.05, 0.9) if sure else rng.uniform(0, 0.3)
            row = {**base, "score": score, "layer": layer, "head": head, **interval(value)}
            row |= {"null_low": 0.01, "null_high": 0.31, "p": 1e-5 if sure else rng.uniform(0.1, 1)}
            high = value - 0.02 if rng.uniform() < 0.5 else value + 0.05
            ends = {"shuffled_low": 0.0, "shuffled_high": high} if score in written else {}
            rows.append(row | {"shuffled_low": np.nan, "shuffled_high": np.nan} | ends)


def _mlps(found, base, layers, rng):
    for layer in range(layers):
        own = {**base, "component": f"m{layer}", "layer": layer}
        for answer in (None, " five", " six", " <b>"):
            share = interval(rng.normal(0, 0.2), 0.05)
            shares = {"share": share["value"], "share_low": share["ci_low"], "share_high": share["ci_high"]}
            value = interval(rng.normal(0, 1))
            found["mlp_answers"].append({**own, "answer": answer, "prompts": 12, **value, **shares})
        for end, sign in (("top", 1), ("bottom", -1)):
            for place in range(1, 7):
                token = {"token": f" t{place}", "token_id": place, "logit": sign * (9.0 - place)}
                found["mlp_tokens"].append({**own, "end": end, "place": place, **token})


def _patching(rows, base, layers, heads, kv_heads, strength, rng):
    roles_ = ["separators"] * TOKENS
    roles_[-1] = "last"
    for number, position in enumerate(AT, 1):
        roles_[position] = f"member {number}"
    for direction, start, sign in (("denoising", 0, 1), ("noising", 1, -1)):
        for layer in range(layers):
            for site in ("resid_pre", "attn_out", "mlp_out"):
                for position, role in enumerate(roles_):
                    moved = (layer + 1) / layers if role == "last" else 0.6 * (role != "separators") / (1 + layer)
                    value = start + sign * moved * (1 if site == "resid_pre" else 0.3)
                    key = {"direction": direction, "site": site, "layer": layer, "head": -1, "position": position}
                    rows.append({**base, **key, "role": role, **interval(value), "corruption": "shifted"})
            for site in ("z", "q", "k", "v", "pattern"):
                n = kv_heads if site in "kv" else heads
                for head in range(n):
                    share = {"z": 1, "v": 0.7, "pattern": 0.4}.get(site, 0.1)
                    value = start + sign * share * strength[layer, head * heads // n] + 0.02 * rng.normal()
                    key = {"direction": direction, "site": site, "layer": layer, "head": head, "position": -1}
                    rows.append({**base, **key, "role": "all", **interval(value), "corruption": "shifted"})


def _attribution(rows, base, layers, heads, rng):
    def row(part, name, value, layer=-1, head=-1):
        rows.append({**base, "part": part, "name": name, "layer": layer, "head": head, **interval(value)})

    by_head = rng.normal(0, 0.3, (layers, heads))
    mlps, total = rng.gamma(1, 1.5, layers), 0.1
    for layer in range(layers):
        row("accumulated", f"resid_pre {layer}", total, layer)
        row("accumulated", f"resid_mid {layer}", total + by_head[layer].sum(), layer)
        total += by_head[layer].sum() + mlps[layer]
    row("accumulated", "resid_post", total, layers - 1)
    for part in ("write", "head"):
        row(part, "embed", 0.08)
        row(part, "positions", 0.02)
        for layer in range(layers):
            if part == "write":
                row(part, f"attn {layer}", by_head[layer].sum(), layer)
            else:
                for head, value in enumerate(by_head[layer]):
                    row(part, f"{layer}.{head}", value, layer, head)
            row(part, f"bias {layer}", 0.0, layer)
            row(part, f"m{layer}", mlps[layer], layer)
        row(part, "final norm bias", 0.03)
        row(part, "unembedding bias", -0.01)


def _lens(found, base, layers, rng):
    names = [f"{p} {layer}" for layer in range(layers) for p in ("resid_pre", "resid_mid")] + ["resid_post"]
    n = len(names)
    for lens in ("norm", "raw"):
        for point, name in enumerate(names):
            share = max(0.0, (point - 2) / (n - 3))
            key = {**base, "lens": lens, "point": point, "name": name}
            found["lens"].append({**key, **interval(8 * share**2, 0.3), "top1": share, "rank": 20 * (1 - share)})
        for point in range(0, n - 1, 2):
            share = float(rng.uniform(0, 0.4))
            key = {**base, "lens": lens, "from_point": point, "to_point": point + 2, "prompts": 12}
            bounds = {"ci_low": 0.8 * share, "ci_high": min(1.0, 1.2 * share)}
            found["lens_increments"].append({**key, "share": share, **bounds})
    for prompt in range(12):
        first = int(rng.integers(2, n))
        stays = -1 if prompt == 0 else int(rng.integers(first, n))
        named = {"leads_name": names[first], "stays_name": names[stays] if stays >= 0 else "never"}
        found["lens_lead"].append({**base, "prompt": prompt, "leads": first, "stays": stays, **named})
        for point, name in enumerate(names):
            for place in range(1, 4):
                key = {**base, "prompt": prompt, "point": point, "name": name, "place": place, "token_id": place}
                token = {"token": [" <b>", " two", "\n"][place - 1], "logit": 9.0 - place}
                found["lens_tokens"].append({**key, **token, "answer_place": max(1, 9 - point)})


def _attention(found, base, everything, members, rng):
    queries = [f"member {k}" for k in range(1, MEMBERS + 1)] if members else []
    for variant in ("in order", "shuffled", "interleaved", "words") if members else ("in order",):
        for layer, head in everything:
            own = {**base, "variant": variant, "layer": layer, "head": head}
            for q, query in enumerate([*queries, "last"]):
                keys = [*queries[: q if query != "last" else MEMBERS], "separators", "self"]
                for key, weight in zip(keys, rng.dirichlet(np.full(len(keys), 0.4)), strict=True):
                    found["attention"].append({**own, "query_role": query, "key_role": key, **interval(weight)})
            names = ["previous member weight", "previous member is the maximum", "member to members"]
            names += ["last to members", "last to last member", "last member is the maximum"]
            names += ["member to own type", "member to other type"] if variant == "interleaved" else []
            for statistic in names if members else ():
                found["attention_members"].append({**own, "statistic": statistic, **interval(float(rng.uniform(0, 1)))})


def _ov(rows, base, everything, others, rng):
    scores = {"own": ["copy", "next", "previous", "next_next", *(f"cross:{t}" for t in others[:2])]}
    scores |= {"block1": ["copy", "next"], "in place": ["copy", "next"]}
    for norm, names in scores.items():
        for layer, head in everything:
            key = {**base, "norm": norm, "layer": layer, "head": head, "instances": 48}
            for score in names:
                value = 0.05 if score.startswith("cross:") else min(1.0, rng.gamma(0.3, 0.5))
                for k in (1, K):
                    rows.append({**key, "score": score, "k": k, **interval(value * k / K), "baseline": 0.04})
            rows.append({**key, "score": "next over copy", "k": 0, **interval(rng.uniform(0, 1)), "baseline": 0.5})


def _backup(rows, base, everything, union, rng):
    for ablated in union:
        ratio = 1 + 0.1 * rng.normal()
        for layer, head in everything:
            before, change = 0.3 * rng.normal(), 0.04 * rng.normal()
            row = {**base, "ablated": ablated, "layer": layer, "head": head}
            for name, value in {"before": before, "after": before + change, "change": change}.items():
                row |= {name if k == "value" else f"{name}_{k}": v for k, v in interval(value, 0.01).items()}
            rows.append({**row, "scale_ratio": ratio, "logit_diff_change": -0.2})


def backup_tests(table):
    """With the columns that a job adds: p of no change, of all heads but the ablated one, and corrected."""
    others = table["layer"].astype(str) + "." + table["head"].astype(str) != table["ablated"]
    p = interval_p(*(table[f"change{end}"] for end in ("", "_ci_low", "_ci_high")))
    return corrected(table.assign(p=pd.Series(p, table.index, dtype=float).where(others)), table["task"])


def _patterns(base, union, rng):
    def pattern():
        return [[round(x, 3) for x in rng.dirichlet(np.full(q + 1, 0.5)).tolist()] for q in range(6)]

    examples = [
        {
            "prompt": prompt,
            "tokens": ["Box", " in", " </script>", ".", "\n", " in"],
            "patterns": {h: pattern() for h in union},
        }
        for prompt in PROMPTS
    ]
    return {**base, "heads": union, "notes": {}, "examples": examples}
