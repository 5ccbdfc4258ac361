"""Checks of a study's configuration that a schema cannot make, and its resolved parts.

Imported by the Snakefile, so nothing heavy may be imported here.
"""

from atlas.components import Component
from atlas.errors import StudyError
from atlas.tasks import Task


def explain(error) -> str:
    """One line for a jsonschema ValidationError: the key, the value, and what is allowed."""
    key = ".".join(str(part) for part in error.absolute_path)
    value = repr(error.instance)
    value = value if len(value) <= 60 else value[:57] + "..."
    at = f"{key}: " if key else ""
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict) and "properties" in error.schema:
            allowed = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in allowed)
            return f"{at}unknown key {unknown!r}; allowed are {', '.join(allowed)}"
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{at}key {missing!r} is missing"
        case "enum":
            return f"{at}{value} is not allowed; one of {', '.join(map(str, error.validator_value))}"
        case "type":
            kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
            return f"{at}{value} is of the wrong type; needs {' or '.join(kinds)}"
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
        case "pattern":
            return f"{at}{value} does not match {error.validator_value}; {error.schema.get('description', '')}".rstrip(
                "; "
            )
        case "not":
            return f"{at}{value} is reserved; choose another name"
    return f"{at}{error.message}"


def order_names(orders) -> dict[str, int | None]:
    """Name of each search order -> its seed, if random: {"layers": None, "random_0": 0}."""
    return {
        o if isinstance(o, str) else f"random_{o['random']}": None if isinstance(o, str) else o["random"]
        for o in orders
    }


def task_block(config: dict, task: str) -> dict:
    """A task's block over the defaults in ``prompts``."""
    return config["prompts"] | config["tasks"][task]


def check(config: dict) -> None:
    """Refuse a study whose parts do not fit together; raises StudyError."""
    study = config["study"]
    _known("study.models", study["models"], config["models"])
    _known("study.tasks", study["tasks"], config["tasks"])
    _known("study.transfer_tasks", study["transfer_tasks"], config["tasks"])
    both = sorted(set(study["tasks"]) & set(study["transfer_tasks"]))
    if both:
        raise StudyError(f"study.transfer_tasks: {both[0]!r} is also in study.tasks; name it once")
    for name in study["models"]:
        if not {"path", "hub"} & set(config["models"][name]):
            raise StudyError(f"models.{name}: give `path` (a local folder) or `hub` (a Hugging Face id)")
    for name in [*study["tasks"], *study["transfer_tasks"]]:
        block = task_block(config, name)
        if ("file" in block) == ("members" in block):
            raise StudyError(f"tasks.{name}: give either `members` or `file`")
        if "members" in block:
            Task.from_config(name, block)
    search, edges, comparison = config["search"], config["edges"], config["comparison"]
    for key, value in (
        ("comparison.threshold", comparison["threshold"]),
        ("edges.start_threshold", edges["start_threshold"]),
        ("evaluation.positions.start_threshold", config["evaluation"]["positions"]["start_threshold"]),
    ):
        if value not in search["thresholds"]:
            known = ", ".join(map(str, search["thresholds"]))
            raise StudyError(f"{key}: {value} is not among search.thresholds ({known})")
    if sorted(set(edges["sizes"])) != edges["sizes"]:
        raise StudyError(f"edges.sizes: {edges['sizes']} must ascend")
    if edges["methods"] and "iterative_edges" not in edges["methods"]:
        raise StudyError(
            "edges.methods: iterative_edges is missing; it finds the edge circuit that is compared (or set [])"
        )
    for name, block in config["circuits"].items():
        _known(f"circuits.{name}.tasks", block.get("tasks", []), study["tasks"])
    _known("comparison.order", [comparison["order"]], order_names(search["orders"]))
    for name in search["never_test"]:
        Component.parse(name)
    if config["ablation"]["kind"] not in config["scores"]["kinds"]:
        known = ", ".join(config["scores"]["kinds"])
        raise StudyError(f"scores.kinds: {config['ablation']['kind']}, the kind of ablation.kind, is not among {known}")
    if search["legacy_mlp_means"] and config["ablation"]["kind"] != "mean":
        raise StudyError("search.legacy_mlp_means: true needs ablation.kind: mean")


def _known(key: str, names, known) -> None:
    for name in names:
        if name not in known:
            raise StudyError(f"{key}: {name!r} is unknown; there are {', '.join(known)}")
