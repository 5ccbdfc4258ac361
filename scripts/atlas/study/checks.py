"""Checks that a schema cannot make: whether the parts of a study fit together."""

from collections import Counter
from pathlib import Path
from typing import Any

from atlas.circuit.kinds import KINDS
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.edges.methods import REPORTED
from atlas.geometry.classes import LEAST
from atlas.geometry.sequences import pairs_of
from atlas.prompts import generator
from atlas.prompts.tasks import expand_members
from atlas.study.random_weights import OF_GGUF
from atlas.study.settings import (
    BY_RULE,
    generation_prompt_sets,
    of_one_token,
    order_names,
    refuse_unknown,
    task_block,
)


def check(config: dict[str, Any]) -> None:
    """Refuse a study whose parts do not fit together; raises StudyError."""
    _check_names(config)
    _check_tasks(config)
    _check_thresholds(config)
    _check_several_tokens(config)
    _check_classes(config)
    _check_pairs(config)
    search, edges = config["search"], config["edges"]
    if sorted(set(edges["sizes"])) != edges["sizes"]:
        raise StudyError(f"edges.sizes: {edges['sizes']} must ascend")
    if edges["methods"] and REPORTED.name not in edges["methods"]:
        raise StudyError(
            f"edges.methods: {REPORTED.name} is missing; it finds the edge circuit that is compared (or set [])"
        )
    for name, block in config["circuits"].items():
        refuse_unknown(f"circuits.{name}.tasks", block.get("tasks", []), config["study"]["tasks"])
    refuse_unknown("comparison.order", [config["comparison"]["order"]], [BY_RULE, *order_names(search["orders"])])
    for name in search["never_test"]:
        Component.parse(name)
    if config["ablation"]["kind"] not in config["scores"]["kinds"]:
        kinds = ", ".join(config["scores"]["kinds"])
        raise StudyError(f"scores.kinds: {config['ablation']['kind']}, the kind of ablation.kind, is not among {kinds}")
    if generation_prompt_sets(config) and not {*config["generation"]["sets"], *config["generation"]["own"]}:
        raise StudyError("generation.sets: no heads to ablate; name some, or set all of generation.prompts to null")
    sets = config["generation"]["sets"]
    taken = {"shared", "union"}.intersection(sets) | set(config["study"]["tasks"] if "circuits" in sets else [])
    for name in taken.intersection(config["generation"]["own"]):
        raise StudyError(f"generation.own.{name}: the study has a head set of this name; choose another")
    if search["relative_tolerance"] is not None and any("gates" in order for order in search["orders"]):
        raise StudyError(
            "search.orders: gates shut all at once, and search.relative_tolerance bounds single removals; set that to "
            "null"
        )
    if search["legacy_mlp_means"] and any("gates" in order for order in search["orders"]):
        raise StudyError(
            "search.legacy_mlp_means: true takes other means for every circuit, and gates one for all; set it to false"
        )
    if search["legacy_mlp_means"] and config["ablation"]["kind"] != "mean":
        raise StudyError("search.legacy_mlp_means: true needs ablation.kind: mean")


def _check_names(config: dict[str, Any]) -> None:
    """The models and tasks that are named are there, once each, and models have a place."""
    study = config["study"]
    refuse_unknown("study.models", study["models"], config["models"])
    refuse_unknown("study.tasks", study["tasks"], config["tasks"])
    refuse_unknown("study.transfer_tasks", study["transfer_tasks"], config["tasks"])
    refuse_unknown("study.unrelated_tasks", study["unrelated_tasks"], config["tasks"])
    of_tasks = study["tasks"] + study["transfer_tasks"] + study["unrelated_tasks"]
    for key, names in (("study.models", study["models"]), ("study.tasks", of_tasks)):
        folded = [name.casefold() for name in names]
        twice = next((name for name in names if folded.count(name.casefold()) > 1 and names.count(name) == 1), None)
        if twice:
            raise StudyError(
                f"{key}: {twice!r} is another name but for its case, which some disks do not tell; rename it"
            )
    for key, others in (("transfer_tasks", ["tasks"]), ("unrelated_tasks", ["tasks", "transfer_tasks"])):
        for other in others:
            both = sorted(set(study[other]) & set(study[key]))
            if both:
                raise StudyError(f"study.{key}: {both[0]!r} is also in study.{other}; name it once")
    for name in study["models"]:
        if config["weights"] != "random":
            _check_source(f"models.{name}", config["models"][name])


def _check_source(where: str, block: dict[str, Any]) -> None:
    """A model can be found: its block names a source, and all that belongs to it."""
    if not {"path", "gguf", "hub"} & set(block):
        raise StudyError(f"{where}: give `path` (a local folder), `gguf` (a GGUF file) or `hub` (a Hugging Face id)")
    surplus = next((key for key in OF_GGUF if key in block and "gguf" not in block), None)
    if surplus:
        raise StudyError(f"{where}.{surplus}: needs `gguf`, the file in the package or on this machine")
    if "package" in block and "sha256" not in block:
        raise StudyError(
            f"{where}.sha256: missing; what a package holds is used only if it has the SHA-256 that is given"
        )
    parts = [block["gguf"]] if isinstance(block.get("gguf"), str) else block.get("gguf", [])
    outside = [part for part in parts if "package" in block and (part.startswith("/") or ".." in part.split("/"))]
    if outside:
        raise StudyError(f"{where}.gguf: {outside[0]!r} is no path within a package")


def _check_tasks(config: dict[str, Any]) -> None:
    """Prompts can be made as each task says, and anew as `stability` says, as far as can be told without a model."""
    study = config["study"]
    for name in [*study["tasks"], *study["transfer_tasks"], *study["unrelated_tasks"]]:
        block = task_block(config, name)
        where, made_by = f"tasks.{name}", generator.name_of(block)
        if "file" in block and made_by != "file":
            raise StudyError(f"{where}.file: prompts come from the generator {made_by!r}; give one of the two")
        unread = next((key for key in generator.of(block).unread if key in config["tasks"][name]), None)
        if unread:
            raise StudyError(f"{where}.{unread}: prompts of the generator {made_by!r} do not read it; take it out")
        generator.of(block).check(name, block)
        hold_out, groups = block["hold_out"], config["ablation"]["groups"]
        if block["held_out_share"] and hold_out == "templates" and groups == "template":
            raise StudyError(
                f"{where}.hold_out: templates leaves no mean for those held out under ablation.groups: template; set "
                "ablation.groups: all, or hold out something else"
            )
        if name in study["tasks"]:
            _check_variants(name, block, config["stability"])
        patched = config["heads"]["patching_corruption"]
        if patched not in ("auto", "own") and "corruptions" in generator.of(block).varies:
            try:
                generator.of(block).check(name, block | {"corruption": patched})
            except StudyError as error:
                raise StudyError(f"heads.patching_corruption: {error}") from None


def _check_variants(name: str, block: dict[str, Any], stability: dict[str, Any]) -> None:
    """Refuse other wordings and corruptions that a task cannot have."""
    source = generator.of(block)
    for key, of_task in (("templates", "templates"), ("corruptions", "corruption")):
        for i, value in enumerate(stability[key] if key in source.varies else []):
            try:
                source.check(name, block | {of_task: value})
            except StudyError as error:
                raise StudyError(f"stability.{key}.{i}: {error}") from None


def _check_several_tokens(config: dict[str, Any]) -> None:
    """Tasks with answers of several tokens are in no stage that reads one."""
    study = config["study"]
    of_tasks = study["tasks"] + study["transfer_tasks"] + study["unrelated_tasks"]
    several = [t for t in of_tasks if not of_one_token(config, [t])]
    searched = [t for t in several if t in study["tasks"]]
    if searched and config["edges"]["methods"]:
        raise StudyError(
            f"study.tasks: {searched[0]!r} is multi_token, and edges are searched on answers of one token alone; "
            "set edges.methods: [], or name it in study.transfer_tasks"
        )
    for key, kind, tasks in (
        ("ablation.kind", config["ablation"]["kind"], several),
        *(("scores.kinds", kind, searched) for kind in config["scores"]["kinds"]),
    ):
        if tasks and KINDS[kind].fitted:
            raise StudyError(
                f"{key}: {kind} is fitted on answers of one token alone, and {tasks[0]!r} is multi_token; leave one of "
                "the two out"
            )
    if searched and any("gates" in order for order in config["search"]["orders"]):
        raise StudyError(
            f"search.orders: gates are learned on answers of one token alone, and {searched[0]!r} is multi_token; "
            "leave one of the two out"
        )
    if several and config["search"]["legacy_mlp_means"]:
        raise StudyError(
            f"search.legacy_mlp_means: true reproduces code for answers of one token, and {several[0]!r} is "
            "multi_token; set it to false"
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


def _check_classes(config: dict[str, Any]) -> None:
    """Members of a class are told apart, and there are enough of them, whatever the tokenizer makes of them."""
    for name, block in config["geometry"]["classes"].items():
        words = expand_members(block["members"]) if block else ()
        at, twice = f"geometry.classes.{name}.members", [word for word, times in Counter(words).items() if times > 1]
        if twice:
            raise StudyError(f"{at}: {twice[0]!r} stands twice; name each member once")
        if block and len(words) < LEAST:
            raise StudyError(f"{at}: {len(words)} are too few to tell their order; give {LEAST} or more, or null")


def _check_pairs(config: dict[str, Any]) -> None:
    """Pairs that are steered between are sequences of the study."""
    wanted, study = config["geometry"]["steering"]["pairs"], config["study"]
    if "steering" in config["geometry"]["analyses"] and wanted != "auto":
        names = of_one_token(config, study["tasks"] + study["transfer_tasks"])
        blocks = {name: task_block(config, name) for name in names}
        pairs_of(wanted, blocks, study["tasks"], config["geometry"]["classes"])


COMPARED = ("patching", "attribution", "lens", "ov")  # of heads.analyses, those that publications have figures of


def check_published(config: dict[str, Any], folder: Path) -> None:
    """Refuse a publication that is not among the folders of ``folder``, or lacks what to compare; raises StudyError."""
    if config["published"] is not None:
        missing = next((name for name in COMPARED if name not in config["heads"]["analyses"]), None)
        if missing:
            raise StudyError(
                f"heads.analyses: {missing} is missing, which `published` compares; add it, or set published: null"
            )
        there = sorted(path.parent.name for path in folder.glob("*/study.json"))
        refuse_unknown("published", [config["published"]], there)
