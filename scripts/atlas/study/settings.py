"""What follows from a checked configuration: the parts of a study, as its rules and its checks read them.

Imported by the Snakefile, so nothing heavy may be imported here.
"""

from collections.abc import Collection, Iterable
from typing import Any

from atlas.core.errors import StudyError
from atlas.generate.prompts import make_set
from atlas.prompts import generator
from atlas.prompts.tasks import expand_members

COMPARABLE = {  # block -> keys that published figures depend on
    "ablation": ("kind", "groups"),
    "search": ("legacy_mlp_means", "relative_tolerance", "never_test", "visit"),
    "comparison": ("order", "threshold"),
    "generation": ("kind",),
}


def order_names(orders: Iterable[Any]) -> dict[str, int | None]:
    """Name of each search order -> its seed, if random: {"layers": None, "random_0": 0}."""
    return {
        o if isinstance(o, str) else f"random_{o['random']}": None if isinstance(o, str) else o["random"]
        for o in orders
    }


BY_RULE = "reported"  # in place of an order in `comparison.order`


def fixed_order(config: dict[str, Any]) -> str | None:
    """The search order whose circuits are reported as they were found; None where a rule chooses (`circuit.choice`)."""
    order: str = config["comparison"]["order"]
    return None if order == BY_RULE else order


def task_block(config: dict[str, Any], task: str) -> dict[str, Any]:
    """A task's block over the defaults in ``prompts``."""
    block: dict[str, Any] = config["prompts"] | config["tasks"][task]
    return block


def of_one_token(config: dict[str, Any], tasks: Iterable[str]) -> list[str]:
    """Those of the tasks whose answers are one token; all but node circuits needs that."""
    return [name for name in tasks if not config["tasks"][name].get("multi_token", False)]


def generation_prompt_sets(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> block of the prompt sets that are generated from, with what a set takes from a task written out."""
    found = {}
    for name, block in config["generation"]["prompts"].items():
        if block is None:
            continue
        where = f"generation.prompts.{name}"
        own = {key: value for key, value in block.items() if key != "task"}
        if "task" in block:
            refuse_unknown(f"{where}.task", [block["task"]], config["tasks"])
            task = config["tasks"][block["task"]]
            if "members" not in task:
                raise StudyError(f"{where}.task: {block['task']!r} has no members; give `members` here")
            own = {key: task[key] for key in ("members", "step", "cyclic") if key in task} | own
            if isinstance(own.get("step"), list):
                raise StudyError(
                    f"{where}.task: {block['task']!r} has several steps; give `members` and one `step` here"
                )
        surplus = next((key for key in ("step", "cyclic") if key in own and "members" not in own), None)
        if surplus:
            raise StudyError(f"{where}.{surplus}: needs `members` or `task`")
        if "members" in own and "corrupted" in own:
            raise StudyError(f"{where}.corrupted: corrupted texts are made from `members`; give one of the two")
        if config["generation"]["kind"] == "mean" and not {"members", "corrupted"} & set(own):
            raise StudyError(f"{where}.corrupted: missing; generation.kind: mean needs texts that the means run over")
        make_set(name, own, 1, 0)
        found[name] = own
    return found


def comparable(config: dict[str, Any], task: str) -> dict[str, Any]:
    """Dotted key -> value of what decides, for a task, whether published figures can be compared with ours.

    `file`: whether its prompts come from a file; what makes prompts is None where they do not come from members.
    """
    block = task_block(config, task)
    found = {f"{part}.{key}": config[part][key] for part, keys in COMPARABLE.items() for key in keys}
    found |= {f"prompts.{key}": block[key] for key in ("filter", "held_out_share")}
    made = {f"prompts.{key}": block[key] for key in ("templates", "shown", "per_template", "corruption")}
    made |= {"task.step": block.get("step", 1), "task.cyclic": block.get("cyclic", False)}
    made["task.members"] = list(expand_members(block["members"])) if "members" in block else None
    by_members = generator.name_of(block) == "members"
    return found | {k: value if by_members else None for k, value in made.items()} | {"file": "file" in block}


def refuse_unknown(key: str, names: Iterable[str], there: Collection[str]) -> None:
    """Raise StudyError, with what is ``there``, where a name under ``key`` of the configuration is not."""
    for name in names:
        if name not in there:
            raise StudyError(f"{key}: {name!r} is unknown; there are {', '.join(there)}")
