"""What a figure or page of a study is: its file, its tables and settings, and when a study has it.

Read by Snakemake in every job: nothing heavy is imported here. Which figures and pages there are, contents.py says.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from atlas.edges.methods import CHOICES, REPORTED

# What there is one of: a figure is drawn, and a table made, for each of these
MODEL, CIRCUIT = "model", "circuit"  # a circuit is that of a main task, or what all of these share
TASK, MAIN, EXPLAINED, EXPLAINED_MAIN = "task", "main task", "explained task", "explained main task"
OWN = "its own"  # of tables: the task, or the tasks of the circuit, that the figure is drawn for
SHARED = "shared"

# Which circuits a figure or page shows; `Shown.note` says which these are. NAMED: several, each with its name beside it
NODE_CIRCUITS, EDGE_CIRCUITS, SITE_CIRCUITS = "node circuits", "edge circuits", "position-level circuits"
NAMED = "named"
CHOSEN = "reported"  # in place of an order: the choice among them all

# Settings that many of them take. EXPLAINED_TASKS: of the main tasks, those that heads are explained on
MAIN_TASKS, EXPLAINED_TASKS = {"main_tasks": "study.tasks"}, {"main_tasks": "derived.explained_main_tasks"}
KIND = {"kind": "ablation.kind"}

# What not every study has, beside the analyses of heads by their names (`heads.analyses`)
EDGES, GENERATION, PUBLICATION, HEADS = "edges", "generation", "published", "heads"

# Table -> what makes it, where not every study has it
MADE_BY = dict.fromkeys(("edge_circuits", "edge_scores", "edge_curves", "edge_areas"), EDGES)
EDGE_ROLES, ESTIMATES = "edge_roles", "estimates"
MADE_BY |= {EDGE_ROLES: EDGE_ROLES} | dict.fromkeys(("node_attribution", "node_accuracy"), ESTIMATES)
MADE_BY |= dict.fromkeys(("comparison/composition", "comparison/composition_edges"), EDGES)
MADE_BY |= {name: name for name in ("patching", "attribution", "detectors", "ov", "backup")}
MADE_BY |= dict.fromkeys(("attention", "attention_members", "patterns"), "attention")
MADE_BY |= dict.fromkeys(("lens", "lens_tokens", "lens_lead", "lens_increments"), "lens")
MADE_BY |= {"generation/summary": GENERATION, "comparison/published": PUBLICATION, "comparison/roles": HEADS}
MADE_BY |= {"comparison/role_tests": HEADS, "role_scores": HEADS}
MADE_BY |= dict.fromkeys(("mlp_answers", "mlp_tokens"), "attribution")

# How order is represented (`geometry.analyses`): analysis -> its tables, below geometry/ of a model
GEOMETRY: dict[str, tuple[str, ...]] = {
    "successors": ("successors",),
    "shapes": ("pca", "shapes", "displacements", "shape_patches"),
    "probes": ("probes",),
    "tuned_lens": ("tuned_lens", "tuned_lens_training"),
    "directions": ("directions", "direction_next", "direction_ablations", "direction_members"),
    "neurons": ("neurons", "neuron_sets", "neuron_members"),
    "features": (
        "features",
        "feature_members",
        "feature_activity",
        "feature_indices",
        "feature_tests",
        "feature_heads",
        "feature_effects",
    ),
    "steering": ("steering", "steering_side_effects", "steering_samples"),
}
MADE_BY |= {f"geometry/{name}": analysis for analysis, names in GEOMETRY.items() for name in names}


@dataclass(frozen=True)
class Table:
    """A table, or a JSON file, of the results."""

    file: str  # below the folder of its model, or of its task
    of: str = MODEL  # what there is one of

    @property
    def made_by(self) -> str | None:
        """What a study must have for it to be made; None where every study makes it."""
        return MADE_BY.get(self.file.rpartition(".")[0])


def of(kind: str, *names: str) -> dict[str, Table]:
    """Tables named by their files, of every task of a kind."""
    return {name: Table(f"{name}.parquet", kind) for name in names}


def compared(*names: str) -> dict[str, Table]:
    """Tables named by their files, of all circuits of a model."""
    return {name: Table(f"comparison/{name}.parquet") for name in names}


def of_geometry(*names: str) -> dict[str, Table]:
    """Tables named by their files, of how a model represents order."""
    return {name: Table(f"geometry/{name}.parquet") for name in names}


def look(*names: str) -> dict[str, str]:
    """Colours, and maps of colours."""
    return {name: f"figures.{name}" for name in names}


@dataclass(frozen=True)
class Study:
    """What of a study decides which figures and pages it has."""

    models: list[str]
    main_tasks: list[str]  # those that circuits are searched for
    tasks: list[str]  # these, and those that circuits are only evaluated on
    explained: list[str]  # those of all tasks whose answers are one token: what heads do is read there
    analyses: list[str]  # of heads
    has: frozenset[str]  # of EDGES, GENERATION, PUBLICATION
    settings: dict[str, Any]  # blocks of keys: the configuration, and what follows from it

    def tasks_of(self, kind: str) -> list[str]:
        both = [task for task in self.main_tasks if task in self.explained]
        return {TASK: self.tasks, MAIN: self.main_tasks, EXPLAINED: self.explained, EXPLAINED_MAIN: both}[kind]

    def makes(self, part: str | None) -> bool:
        """Whether it has what makes a table (`Table.made_by`). What heads do is shown on main tasks, or not at all."""
        if part is None or part in self.has:
            return True
        return bool(self.tasks_of(EXPLAINED_MAIN) and (self.analyses if part == HEADS else part in self.analyses))

    def setting(self, key: str) -> Any:
        """The value of a dotted key."""
        return functools.reduce(lambda block, name: block[name], key.split("."), self.settings)


def named(kind: str, study: Study) -> str:
    """A kind of circuits with what makes them those of this study: `node circuits: T = 20 %, order layers`."""
    order = str(study.setting("comparison.order")).replace("_", " ")
    order = "chosen by rule for each task" if order == CHOSEN else order
    if kind == NODE_CIRCUITS:
        return f"{kind}: T = {study.setting('comparison.threshold'):g} %, order {order}"
    if kind == SITE_CIRCUITS:
        start, end = (study.setting(f"evaluation.positions.{key}") for key in ("start_threshold", "threshold"))
        return f"{kind}: from the node circuit at T = {start:g} %, order {order}, down to T = {end:g} %"
    by_rule = "chosen by rule for each task" if study.setting("edges.choice") == CHOICES[0] else REPORTED.title
    return f"{kind}: T = {study.setting('edges.threshold'):g} %, {by_rule}"


@dataclass(frozen=True)
class Shown:
    """A figure or page."""

    name: str  # in file names; that of its module in figures/
    title: str  # in the menu of the report
    category: str
    tables: dict[str, Table]  # argument of the module's `draw` (of a page: `page`), and name of the rule's input
    also: dict[str, Table] = field(default_factory=dict)  # the same of tables that a figure takes where they are made
    settings: dict[str, str] = field(default_factory=dict)  # argument, and name of the rule's param -> dotted key
    message: str = ""  # of its job
    of: str = MODEL  # what there is one of
    needs: str | None = None  # what a study must have, beside what makes a figure's tables
    rule: str = ""  # that makes it; without one, a rule of its own
    caption: str = ""  # in report/; without one, that of its name
    page: bool = False  # HTML; a figure is SVG and PNG
    circuits: tuple[str, ...] = ()  # kinds of them that it shows
    column: str = "figure"  # of its title in the menu; one named otherwise is of all tasks, and says so by its title

    @property
    def made_by(self) -> str:
        """The name of the rule that draws or writes it."""
        return self.rule or f"plot_{self.name}"

    @property
    def wildcard(self) -> str:
        """The rule's wildcard beside the model: `circuit`, `task`, or none."""
        return {MODEL: "", CIRCUIT: "circuit"}.get(self.of, "task")

    @property
    def path(self) -> str:
        """Pattern of its file; a figure's PNG lies beside it."""
        before = f"{{{self.wildcard}}}." if self.wildcard else ""
        return f"results/figures/{{model}}/{{model}}.{before}{self.name}.{'html' if self.page else 'svg'}"

    @property
    def caption_file(self) -> str:
        return f"report/{self.caption or self.name}.rst"

    @property
    def labels(self) -> dict[str, str]:
        """Its line in the menu of the report."""
        task = {"task": f"{{{self.wildcard}}}" if self.wildcard else "all"} if self.column == "figure" else {}
        return {"model": "{model}", **task, self.column: self.title}

    def note(self, study: Study) -> str:
        """Which circuits it shows, for a line below it; empty where it shows none, or names them itself."""
        without = {NAMED} if EDGES in study.has else {NAMED, EDGE_CIRCUITS}
        said = "; ".join(named(kind, study) for kind in self.circuits if kind not in without)
        return said[:1].upper() + said[1:]

    def is_shown(self, study: Study) -> bool:
        """Whether a study has it: a figure needs all of its tables, a page takes those that are made."""
        tables = () if self.page else self.tables.values()
        return all(study.makes(part) for part in (self.needs, *(table.made_by for table in tables)))

    def files(self, study: Study) -> list[str]:
        """All there are of it in a study; of a figure, as SVG."""
        names = {"": [""], "circuit": [*study.main_tasks, SHARED]}.get(self.wildcard) or study.tasks_of(self.of)
        models = study.models if self.is_shown(study) else []
        return [self.path.format(model=model, task=name, circuit=name) for model in models for name in names]


def made(tables: dict[str, Table], study: Study) -> dict[str, Table]:
    """Those of the tables that a study makes."""
    return {name: table for name, table in tables.items() if study.makes(table.made_by)}


def places(
    tables: dict[str, Table], study: Study, model: str, task: str = "", circuit: str = ""
) -> dict[str, str | list[str]]:
    """Name -> the file of each table, or its files of several tasks, for a figure or page of a model.

    ``task``, ``circuit``: those of the figure, where it is drawn for each. The shared circuit is one of all main tasks.
    """
    found: dict[str, str | list[str]] = {}
    for name, table in tables.items():
        if table.of == MODEL or (table.of == OWN and task):
            found[name] = "/".join(("results", model, *([task] if table.of == OWN else []), table.file))
        else:
            own = study.main_tasks if circuit == SHARED else [circuit]
            tasks = own if table.of == OWN else study.tasks_of(table.of)
            found[name] = [f"results/{model}/{each}/{table.file}" for each in tasks]
    return found
