"""``weights: random``: the same study on models of the same architecture that were never trained."""

import copy
from typing import Any

from atlas.core.errors import StudyError
from atlas.edges.methods import REPORTED

OF_GGUF = ("gguf", "package", "sha256", "licence", "accept_licence")  # keys of a model's block


def resolve(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a study runs on: with ``weights: random`` the one rewritten for it, else itself."""
    if config["weights"] == "random":
        return with_random_weights(config)
    for key in ("layers", "tokenizer"):
        if config[key] is not None:
            raise StudyError(f"{key}: {config[key]!r} is read with weights: random only; leave it out")
    return config


def with_random_weights(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of the configuration that runs every stage on models of the same architecture with random weights.

    Their names end in `-random` and the title says so too. Every model reads `architecture` and `tokenizer`. A random
    model's mean logit difference is nearly nothing, of either sign: no prompt is filtered out and no score refused. The
    rest keeps it short: as few prompts as balanced first members allow, none held out (so that circuits are assessed
    where they were found), one search by `bisect`, edges among the components of its circuit alone, few controls and
    resamples.
    """
    out, threshold = copy.deepcopy(config), config["comparison"]["threshold"]
    study = out["study"]
    if all(name.endswith("-random") for name in study["models"]):  # rewritten before: a module is read more than once
        return out
    study["title"] = f"Random weights, no findings: {study['title']}"
    out["models"] = {f"{name}-random": _random_model(name, config) for name in study["models"] if name in out["models"]}
    study["models"] = [f"{name}-random" for name in study["models"]]
    prompts = {"per_template": 1, "held_out_share": 0, "filter": None, "allow_negative_clean": True}
    for name, block in out["tasks"].items():
        out["tasks"][name] = {k: v for k, v in block.items() if k not in prompts}
    changes = {
        "prompts": prompts,
        "scores": {"kinds": [config["ablation"]["kind"]], "metrics": ["logit_diff"]},
        "search": {
            "thresholds": [threshold],
            "orders": ["bisect"],
            "relative_tolerance": None,
            "never_test": ["0.0", "m0"],  # a circuit that is never empty gives every later stage work
            "legacy_mlp_means": False,
        },
        "edges": {"start": "circuit", "start_threshold": threshold, "threshold": threshold, "path_patching": "start"},
        "evaluation": {"completeness": 2, "positions": {"start_threshold": threshold, "threshold": threshold}},
        "stability": {"bootstrap": 1, "seeds": [], "templates": [], "corruptions": [], "edges": None},
        "comparison": {"order": "bisect", "controls": 20},
        "trust": {"controls": 20, "permutations": 99, "per_template": 1},
        "generation": {"per_text": 1, "controls": 20, "own": {}},
        "statistics": {"bootstrap": 100},
    }
    for key, values in changes.items():
        out[key] |= values
    if out["edges"]["methods"]:
        out["edges"] |= {"methods": ["path_patching", REPORTED.name], "sizes": [0.01, 0.1, 1], "random_draws": 1}
        out["edges"] |= {"roles": {"method": None, "exact": 0}}
    return out | {"circuits": {}, "layers": None, "tokenizer": None}


def _random_model(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A model's block for ``weights: random``: `architecture`, `tokenizer` and `layers` instead of a checkpoint."""
    block = config["models"][name]
    folder = block.get("path")
    architecture = block.get("architecture") or (f"{folder}/config.json" if folder else None)
    tokenizer = config["tokenizer"] or block.get("tokenizer") or folder or block.get("hub")
    if architecture is None:
        raise StudyError(
            f"models.{name}.architecture: missing; weights: random needs the config.json of an architecture"
        )
    if tokenizer is None:
        raise StudyError(f"models.{name}.tokenizer: missing; give a folder or hub id, or --config tokenizer=/folder")
    kept = {k: v for k, v in block.items() if k not in ("path", "hub", "revision", *OF_GGUF)}
    return kept | {"architecture": architecture, "tokenizer": tokenizer, "layers": config["layers"]}
