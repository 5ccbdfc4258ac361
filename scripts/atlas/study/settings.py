"""Checks of a study's configuration that a schema cannot make, and its resolved parts.

Imported by the Snakefile, so nothing heavy may be imported here.
"""

import copy
import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.edges.methods import REPORTED
from atlas.generate import prompts as generation_prompts
from atlas.prompts.tasks import Task, expand_members
from atlas.study.names import filled

COMPARABLE = {  # block -> keys that published figures depend on
    "ablation": ("kind", "groups"),
    "search": ("legacy_mlp_means", "relative_tolerance", "never_test", "visit"),
    "comparison": ("order", "threshold"),
    "generation": ("kind",),
}


def validated(given: object, schema: dict[str, Any], published: Path) -> dict[str, Any]:
    """The configuration that a study runs on, with defaults filled in and everything checked; ``given`` stays as it is.

    ``published``: the folder of publications. Raises StudyError with one line that names the key, the value and what is
    allowed; whatever a YAML or JSON file can hold may be given.
    """
    if not isinstance(given, dict):
        raise StudyError(f"{shown(given)} is no configuration; give keys and values such as study: {{...}}")
    _refuse_odd_text(given, ())
    config = copy.deepcopy(given)
    error = best_match(_STRICT(filled(schema)).iter_errors(config))  # fills in defaults on its way
    if error is not None:
        raise StudyError(explain(error))
    resolved = resolve(config)
    check(resolved)
    check_published(resolved, published)
    return resolved


def _with_defaults(
    validator: Any, properties: dict[str, Any], instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for name, node in properties.items():
            if "default" in node:
                instance.setdefault(name, copy.deepcopy(node["default"]))
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)


def _is_integer(_: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# JSON's integers include 96.0 and its numbers NaN; neither is what a count or a threshold can be
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
_STRICT = validators.extend(Draft202012Validator, {"properties": _with_defaults}, type_checker=_TYPES)


def _refuse_odd_text(value: object, path: tuple[object, ...]) -> None:
    """Refuse keys that are no text, and text that no file and no tokenizer should get."""
    at = ".".join(map(str, path)) or "the configuration"
    if isinstance(value, str):
        odd = next((c for c in value if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"), None)
        if odd is not None:
            raise StudyError(f"{at}: {shown(value)} holds the control character {odd!r}; remove it")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise StudyError(f"{at}: the key {shown(key)} is no text; put it in quotes")
            _refuse_odd_text(key, path)
            _refuse_odd_text(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_odd_text(inner, (*path, i))


def shown(value: object) -> str:
    """A value for a message: on one line, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def explain(error: Any) -> str:
    """One line for a jsonschema ValidationError: the key, the value, and what is allowed."""
    key = ".".join(str(part) for part in error.absolute_path)
    value = shown(error.instance)
    at = f"{key}: " if key else ""
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict) and "properties" in error.schema:
            allowed = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in allowed)
            return f"{at}unknown key {shown(unknown)}; allowed are {', '.join(allowed)}"
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{at}key {missing!r} is missing"
        case "enum":
            return f"{at}{value} is not allowed; one of {', '.join(map(str, error.validator_value))}"
        case "type":
            kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
            quotes = "string" in kinds and not isinstance(error.instance, str | list)
            return f"{at}{value} is of the wrong type; needs {' or '.join(kinds)}{', text in quotes' if quotes else ''}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            schema, bounds = error.schema, []
            for word, sign in (
                ("minimum", ">="),
                ("exclusiveMinimum", ">"),
                ("maximum", "<="),
                ("exclusiveMaximum", "<"),
            ):
                if word in schema:
                    bounds.append(f"{sign} {schema[word]}")
            return f"{at}{value} is out of range; needs {' and '.join(bounds)}"
        case "minItems" | "minProperties":
            return f"{at}{value} has too few entries; needs at least {error.validator_value}"
        case "maxItems" | "maxLength":
            return f"{at}{value} is too long; at most {error.validator_value}"
        case "minLength":
            return f"{at}{value} is too short; at least {error.validator_value}"
        case "uniqueItems":
            return f"{at}{value} has an entry twice; name each once"
        case "pattern":
            said = f"{at}{value} does not match {shown(error.validator_value)}"
            return said + (f"; {error.schema['description']}" if "description" in error.schema else "")
        case "not":
            return f"{at}{value} is reserved; choose another name"
    return f"{at}{value} is not allowed ({error.validator}: {shown(error.validator_value)})"


def order_names(orders: Iterable[Any]) -> dict[str, int | None]:
    """Name of each search order -> its seed, if random: {"layers": None, "random_0": 0}."""
    return {
        o if isinstance(o, str) else f"random_{o['random']}": None if isinstance(o, str) else o["random"]
        for o in orders
    }


def task_block(config: dict[str, Any], task: str) -> dict[str, Any]:
    """A task's block over the defaults in ``prompts``."""
    block: dict[str, Any] = config["prompts"] | config["tasks"][task]
    return block


def of_one_token(config: dict[str, Any], tasks: Iterable[str]) -> list[str]:
    """Those of the tasks whose answers are one token; all but node circuits needs that."""
    return [name for name in tasks if not config["tasks"][name].get("multi_token", False)]


# ---- random weights ------------------------------------------------------------------------------------------
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
        "generation": {"per_text": 1, "controls": 20, "own": {}},
        "statistics": {"bootstrap": 100},
    }
    for key, values in changes.items():
        out[key] |= values
    if out["edges"]["methods"]:
        out["edges"] |= {"methods": ["path_patching", REPORTED.name], "sizes": [0.01, 0.1, 1], "random_draws": 1}
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
    kept = {k: v for k, v in block.items() if k not in ("path", "hub", "revision")}
    return kept | {"architecture": architecture, "tokenizer": tokenizer, "layers": config["layers"]}


# ---- checks --------------------------------------------------------------------------------------------------
def generation_prompt_sets(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> block of the prompt sets that are generated from, with what a set takes from a task written out."""
    found = {}
    for name, block in config["generation"]["prompts"].items():
        if block is None:
            continue
        where = f"generation.prompts.{name}"
        own = {key: value for key, value in block.items() if key != "task"}
        if "task" in block:
            _known(f"{where}.task", [block["task"]], config["tasks"])
            task = config["tasks"][block["task"]]
            if "members" not in task:
                raise StudyError(f"{where}.task: {block['task']!r} has no members; give `members` here")
            own = {key: task[key] for key in ("members", "step", "cyclic") if key in task} | own
        surplus = next((key for key in ("step", "cyclic") if key in own and "members" not in own), None)
        if surplus:
            raise StudyError(f"{where}.{surplus}: needs `members` or `task`")
        if "members" in own and "corrupted" in own:
            raise StudyError(f"{where}.corrupted: corrupted texts are made from `members`; give one of the two")
        if config["generation"]["kind"] == "mean" and not {"members", "corrupted"} & set(own):
            raise StudyError(f"{where}.corrupted: missing; generation.kind: mean needs texts that the means run over")
        generation_prompts.make_set(name, own, 1, 0)
        found[name] = own
    return found


def check(config: dict[str, Any]) -> None:
    """Refuse a study whose parts do not fit together; raises StudyError."""
    study = config["study"]
    _known("study.models", study["models"], config["models"])
    _known("study.tasks", study["tasks"], config["tasks"])
    _known("study.transfer_tasks", study["transfer_tasks"], config["tasks"])
    for key, names in (("study.models", study["models"]), ("study.tasks", study["tasks"] + study["transfer_tasks"])):
        folded = [name.casefold() for name in names]
        twice = next((name for name in names if folded.count(name.casefold()) > 1 and names.count(name) == 1), None)
        if twice:
            raise StudyError(
                f"{key}: {twice!r} is another name but for its case, which some disks do not tell; rename it"
            )
    both = sorted(set(study["tasks"]) & set(study["transfer_tasks"]))
    if both:
        raise StudyError(f"study.transfer_tasks: {both[0]!r} is also in study.tasks; name it once")
    for name in study["models"]:
        if config["weights"] != "random" and not {"path", "hub"} & set(config["models"][name]):
            raise StudyError(f"models.{name}: give `path` (a local folder) or `hub` (a Hugging Face id)")
    for name in [*study["tasks"], *study["transfer_tasks"]]:
        block = task_block(config, name)
        if not {"file", "members"} & set(block):
            raise StudyError(f"tasks.{name}: give `members`, or `file`")
        _check_hold_out(name, block, config["ablation"]["groups"])
        if "file" not in block:
            Task.from_config(name, block)
            if name in study["tasks"]:
                _check_variants(name, block, config["stability"])
    search, edges, comparison = config["search"], config["edges"], config["comparison"]
    _check_thresholds(config)
    several = [t for t in study["tasks"] + study["transfer_tasks"] if not of_one_token(config, [t])]
    searched = [t for t in several if t in study["tasks"]]
    if searched and edges["methods"]:
        raise StudyError(
            f"study.tasks: {searched[0]!r} is multi_token, and edges are searched on answers of one token alone; "
            "set edges.methods: [], or name it in study.transfer_tasks"
        )
    if several and search["legacy_mlp_means"]:
        raise StudyError(
            f"search.legacy_mlp_means: true reproduces code for answers of one token, and {several[0]!r} is "
            "multi_token; set it to false"
        )
    if sorted(set(edges["sizes"])) != edges["sizes"]:
        raise StudyError(f"edges.sizes: {edges['sizes']} must ascend")
    if edges["methods"] and REPORTED.name not in edges["methods"]:
        raise StudyError(
            f"edges.methods: {REPORTED.name} is missing; it finds the edge circuit that is compared (or set [])"
        )
    for name, block in config["circuits"].items():
        _known(f"circuits.{name}.tasks", block.get("tasks", []), study["tasks"])
    _known("comparison.order", [comparison["order"]], order_names(search["orders"]))
    for name in search["never_test"]:
        Component.parse(name)
    if config["ablation"]["kind"] not in config["scores"]["kinds"]:
        known = ", ".join(config["scores"]["kinds"])
        raise StudyError(f"scores.kinds: {config['ablation']['kind']}, the kind of ablation.kind, is not among {known}")
    if generation_prompt_sets(config) and not {*config["generation"]["sets"], *config["generation"]["own"]}:
        raise StudyError("generation.sets: no heads to ablate; name some, or set all of generation.prompts to null")
    if search["legacy_mlp_means"] and config["ablation"]["kind"] != "mean":
        raise StudyError("search.legacy_mlp_means: true needs ablation.kind: mean")


def _check_hold_out(name: str, block: dict[str, Any], groups: str) -> None:
    """Refuse to hold out what a file does not name, or what a mean per template needs; `Task` checks its members."""
    where, hold_out = f"tasks.{name}.hold_out", block["hold_out"]
    if not block["held_out_share"]:
        return
    needed = {"sequences": "members", "templates": "template"}.get(hold_out)
    if "file" in block and needed and not block["file"].get("columns", {}).get(needed):
        raise StudyError(
            f"{where}: {hold_out} of a file needs tasks.{name}.file.columns.{needed}; name it, or set prompts"
        )
    if hold_out == "templates" and groups == "template":
        raise StudyError(
            f"{where}: templates leaves no mean for those held out under ablation.groups: template; set "
            "ablation.groups: all, or hold out something else"
        )


def _check_thresholds(config: dict[str, Any]) -> None:
    """Refuse a study that reads a node circuit at a threshold at which none is searched; names every such key."""
    edges, positions = config["edges"], config["evaluation"]["positions"]
    read = {"comparison.threshold": config["comparison"]["threshold"]}
    if edges["methods"] and edges["start"] == "circuit":
        read["edges.start_threshold"] = edges["start_threshold"]
    read["evaluation.positions.start_threshold"] = positions["start_threshold"]
    searched = config["search"]["thresholds"]
    missing = [f"{key}: {value}" for key, value in read.items() if value not in searched]
    if missing:
        raise StudyError(
            f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not among search.thresholds "
            f"({', '.join(map(str, searched))}); set {'each of them' if len(missing) > 1 else 'it'} to one of these, "
            "with the threshold beside a start_threshold above it, or search at more thresholds"
        )
    if "edges.start_threshold" in read and edges["start_threshold"] >= edges["threshold"]:
        blocks = (task_block(config, task) for task in config["study"]["tasks"])
        if not all(block["allow_negative_clean"] for block in blocks):
            raise StudyError(
                f"edges.threshold: {edges['threshold']} leaves edges nothing to remove from a node circuit at "
                f"edges.start_threshold: {edges['start_threshold']}; raise the one above the other, or set start: full"
            )


def _check_variants(name: str, block: dict[str, Any], stability: dict[str, Any]) -> None:
    """Refuse other wordings and corruptions that a task cannot have."""
    for key, of_task in (("templates", "templates"), ("corruptions", "corruption")):
        for i, value in enumerate(stability[key]):
            try:
                Task.from_config(name, block | {of_task: value})
            except StudyError as error:
                raise StudyError(f"stability.{key}.{i}: {error}") from None


COMPARED = ("patching", "attribution", "lens", "ov")  # of heads.analyses, those that publications have figures of


def check_published(config: dict[str, Any], folder: Path) -> None:
    """Refuse a publication that is not among the folders of ``folder``, or lacks what to compare; raises StudyError."""
    if config["published"] is not None:
        missing = next((name for name in COMPARED if name not in config["heads"]["analyses"]), None)
        if missing:
            raise StudyError(
                f"heads.analyses: {missing} is missing, which `published` compares; add it, or set published: null"
            )
        _known("published", [config["published"]], sorted(path.parent.name for path in folder.glob("*/study.json")))


def comparable(config: dict[str, Any], task: str) -> dict[str, Any]:
    """Dotted key -> value of what decides, for a task, whether published figures can be compared with ours.

    `file`: whether its prompts come from a file; what makes prompts is then None.
    """
    block = task_block(config, task)
    found = {f"{part}.{key}": config[part][key] for part, keys in COMPARABLE.items() for key in keys}
    found |= {f"prompts.{key}": block[key] for key in ("filter", "held_out_share")}
    made = {f"prompts.{key}": block[key] for key in ("templates", "shown", "per_template", "corruption")}
    made |= {"task.step": block.get("step", 1), "task.cyclic": block.get("cyclic", False)}
    made["task.members"] = list(expand_members(block["members"])) if "members" in block else None
    return found | {key: None if "file" in block else value for key, value in made.items()} | {"file": "file" in block}


def _known(key: str, names: Iterable[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise StudyError(f"{key}: {name!r} is unknown; there are {', '.join(known)}")
