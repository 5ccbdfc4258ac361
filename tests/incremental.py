"""What runs again after which change of a finished study: the table behind docs/incremental.md and its tests.

The study is the smoke preset with one transfer task (study.py): one model, two main tasks, one transfer task.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atlas.report import contents, shown
from study import ROOT, Study

Jobs = dict[str, int]  # rule -> number of jobs

WRITTEN = {"write_summary": 1, "write_atlas": 1}
AFTER_EVALUATION = {"gather_evaluations": 1, "plot_cross_matrix": 1, "plot_controls": 1} | WRITTEN
AFTER_COMPARISON = {"plot_circuit_diagram": 3, "plot_edge_diagram": 3, "plot_overlap": 1, "plot_methods": 1}
AFTER_COMPARISON |= {"plot_patching": 2, "plot_patching_scatter": 1, "plot_attribution": 1, "plot_attention": 1}
AFTER_COMPARISON |= {"plot_detectors": 1, "plot_ov": 1, "write_head_pages": 1} | WRITTEN
AFTER_COMPARISON |= {"compose_heads": 1, "plot_composition": 1}
AFTER_ASSESSMENT = {"plot_edge_curves": 1, "plot_evaluation": 1, "plot_positions": 1} | WRITTEN
TRUST = {"test_circuits": 2, "evaluate_unseen": 2, "evaluate_elsewhere": 2, "gather_trust": 1}
AFTER_STABILITY = {"plot_stability": 1, "gather_consensus": 1, "evaluate_consensus": 3} | TRUST | WRITTEN
AFTER_LABELS = {"label_heads": 1, "plot_edge_diagram": 3, "write_head_pages": 1} | WRITTEN


def explained(heads: int) -> Jobs:
    """What follows new explanations of so many tasks' heads: every task's heads see the prompts of all tasks."""
    return {"explain_heads": heads, "plot_attention": 1, "plot_ov": 1, "plot_backup": 1} | AFTER_LABELS


def of_main_tasks(n: int) -> Jobs:
    """What follows new edge circuits of n of the two main tasks, or new node circuits, one task at a time."""
    own = {"assess_circuits": n, "search_stability": n, "export_circuits": n, "compare_circuits": 1}
    own |= {"score_edge_roles": n, "plot_edge_roles": 1}
    return own | AFTER_ASSESSMENT | AFTER_STABILITY | AFTER_COMPARISON


def after_choice(n: int) -> Jobs:
    """What follows the choice of circuits of n main tasks; every task is evaluated on every main circuit."""
    own = {"search_edges": n, "evaluate_circuits": 3, "plot_search_trajectory": n, "plot_circuit_size": 1}
    own |= {"gather_circuits": 1, "generate": 1, "plot_generation": 1, "trace_prompts": 3}
    return own | of_main_tasks(n) | AFTER_EVALUATION | explained(3)


def after_search(n: int) -> Jobs:
    """What follows the node searches of n main tasks."""
    return {"choose_circuit": n} | after_choice(n)


PROMPTS = {"make_prompts": 1, "score_clean": 1, "cache_activations": 1, "plot_dataset": 1, "plot_clean_accuracy": 1}
PROMPTS |= {"explain_task": 1, "score_roles": 1, "gather_prompts": 1, "write_data_page": 1, "trace_prompts": 1}
OF_A_TRANSFER_TASK = PROMPTS | {"evaluate_circuits": 1, "evaluate_consensus": 1} | AFTER_EVALUATION
# the circuit diagrams of a main task and of what is shared show its effects, the third its membership
OF_A_MAIN_TASK = PROMPTS | {"score_components": 1, "search_nodes": 1, "plot_component_effects": 1, "plot_lens": 1}
OF_A_MAIN_TASK |= {"plot_estimates": 1}
OF_A_MAIN_TASK |= after_search(1)
# Of a study of one model, two main tasks and three tasks: how many there are of what figures are drawn for
NUMBER = {shown.MODEL: 1, shown.TASK: 3, shown.MAIN: 2, shown.EXPLAINED_MAIN: 2, shown.CIRCUIT: 3}
# The smoke study is compared with no publication and leaves order out (tests/workflow/test_geometry_study.py)
SHOWN = {
    rule: rows
    for rule, rows in contents.BY_RULE.items()
    if rule != "plot_published" and rows[0].category != contents.OF_ORDER
}
MADE = {rule: NUMBER[rows[0].of] for rule, rows in SHOWN.items()}
FIGURES = {rule: n for rule, n in MADE.items() if rule.startswith("plot_")}
PAGES = {rule: n for rule, n in MADE.items() if rule.startswith("write_")} | {"write_atlas": 1}
ALL = FIGURES | PAGES | {"check_model": 1, "check_analyses": 1, "make_prompts": 3, "score_clean": 3}
ALL |= {"cache_activations": 3, "evaluate_circuits": 3}
ALL |= {"explain_task": 3, "explain_heads": 3, "score_roles": 3}
ALL |= {"score_components": 2, "search_nodes": 2, "search_edges": 2, "score_edge_roles": 2}
ALL |= {"assess_circuits": 2, "search_stability": 2, "export_circuits": 2, "detect_heads": 1, "generate": 1}
ALL |= {"compare_circuits": 1, "gather_evaluations": 1, "gather_circuits": 1, "gather_prompts": 1, "label_heads": 1}
ALL |= TRUST
ALL |= {"compose_heads": 1, "trace_prompts": 3, "choose_circuit": 2, "gather_consensus": 1, "evaluate_consensus": 3}


@dataclass(frozen=True)
class Change:
    """A change and the jobs that it makes necessary.

    config: changes the configuration. edit: a file to which a line is added. upgrade: a package of which another
    version is found. touch: files get new times. elsewhere: what would run after the project, or a part of it, went to
    another folder, of a study and an empty folder.
    """

    kind: str
    what: str
    jobs: Jobs
    config: Callable[[dict], object] | None = None
    edit: str = ""
    upgrade: str = ""
    touch: tuple[str, ...] = ()
    elsewhere: Callable[[Study, Path], Jobs] | None = None

    def would_run(self, study: Study, scratch) -> Jobs:
        """What a dry run of the changed study announces; the study is then as before."""
        if self.config:
            return study.with_config(self.config)
        if self.edit:
            return study.with_edit(self.edit)
        if self.upgrade:
            about = scratch / f"{self.upgrade}-99.0.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {self.upgrade}\nVersion: 99.0\n")
            return study.would_run(path=[scratch])
        if self.elsewhere:
            return self.elsewhere(study, scratch)
        for name in self.touch:
            (study.folder / name).touch()
        return study.would_run()


def setting(*path, value) -> Callable[[dict], None]:
    """Sets config[path[0]][path[1]]... to a value."""

    def change(config: dict) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def letters(where: str) -> Callable[[dict], None]:
    def change(config: dict) -> None:
        config["tasks"]["letters"] = {"members": list("ABCDEFGHIJKLMNOP")}
        config["study"][where].append("letters")

    return change


# ---- the project, or its model, in another folder -----------------------------------------------------------
def copied(study: Study, scratch: Path) -> Jobs:
    """`cp -a`: times are kept."""
    shutil.copytree(study.folder, scratch / "copy", symlinks=True)
    return study.at(scratch / "copy").would_run()


def moved(study: Study, scratch: Path) -> Jobs:
    """Nothing is left where it was, while the dry run looks."""
    before, after = study.folder, scratch / "moved"
    before.rename(after)
    try:
        return study.at(after).would_run()
    finally:
        after.rename(before)


def checked_out(study: Study, scratch: Path) -> Jobs:
    """A checkout with new times, and in it a copy of the results and of what Snakemake knows of them."""
    made = Study(scratch / "checkout")
    for file in made.folder.rglob("*"):
        file.touch()
    for name in ("results", ".snakemake"):
        shutil.copytree(study.folder / name, made.folder / name)
    return made.would_run()


def results_linked(study: Study, scratch: Path) -> Jobs:
    """The results on another disk, and a link to them where they were."""
    before, after = study.folder / "results", scratch / "results"
    before.rename(after)
    before.symlink_to(after)
    try:
        return study.would_run()
    finally:
        before.unlink()
        after.rename(before)


def with_model(study: Study, folder: Path) -> Jobs:
    return study.with_config(setting("models", "ladder-6x8", "path", value=str(folder)))


def model_moved(study: Study, scratch: Path) -> Jobs:
    """The configuration names the checkpoint's new folder; its files have new times."""
    shutil.copytree(study.model, scratch / "model", copy_function=shutil.copyfile)
    return with_model(study, scratch / "model")


def model_swapped(study: Study, scratch: Path) -> Jobs:
    """One byte of the weights is another."""
    shutil.copytree(study.model, scratch / "model")
    weights = scratch / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return with_model(study, scratch / "model")


def second_model(config: dict) -> None:
    config["models"]["again"] = config["models"]["ladder-6x8"]
    config["study"]["models"] = ["ladder-6x8", "again"]


ADDED_MAIN = {"make_prompts": 1, "score_clean": 1, "cache_activations": 1, "score_components": 1, "search_nodes": 1}
ADDED_MAIN |= {"search_edges": 1, "assess_circuits": 1, "search_stability": 1, "export_circuits": 1, "explain_task": 1}
ADDED_MAIN |= {"evaluate_circuits": 4, "explain_heads": 4, "trace_prompts": 4, "score_roles": 1, "generate": 1}
ADDED_MAIN |= {"test_circuits": 3, "evaluate_unseen": 3, "evaluate_elsewhere": 3, "gather_trust": 1}
ADDED_MAIN |= {"score_edge_roles": 1, "choose_circuit": 1, "gather_consensus": 1, "evaluate_consensus": 4}
ADDED_MAIN |= dict.fromkeys(
    [
        "compose_heads",
        "compare_circuits",
        "gather_circuits",
        "gather_prompts",
        "gather_evaluations",
        "label_heads",
        *PAGES,
    ],
    1,
)
# of the figures of single tasks only the new task's; and those of all circuits and what they share
ADDED_MAIN |= FIGURES | {
    "plot_dataset": 1,
    "plot_component_effects": 1,
    "plot_search_trajectory": 1,
    "plot_estimates": 1,
}
ADDED_MAIN |= {"plot_patching": 3, "plot_circuit_diagram": 4, "plot_edge_diagram": 4}

CHANGES = [
    Change("nothing", "the study again", {}),
    Change(
        "nothing",
        "a checkout: new times, the same content",
        {},
        touch=(
            *("config.yaml", "scripts/atlas/prompts/tasks.py", "scripts/search_nodes.py", "rules/circuits.smk"),
            "resources/models/ladder-6x8/model.safetensors",
        ),
    ),
    Change("nothing", "the project copied (`cp -a`)", {}, elsewhere=copied),
    Change("nothing", "the project moved", {}, elsewhere=moved),
    Change("nothing", "a checkout elsewhere, with `results/` and `.snakemake/` copied", {}, elsewhere=checked_out),
    Change("nothing", "`results/` on another disk, linked", {}, elsewhere=results_linked),
    Change("nothing", "the checkpoint moved, and its new folder configured", {}, elsewhere=model_moved),
    Change(
        "style",
        "a colour (`figures.corrupted`)",
        {"plot_dataset": 3, "plot_clean_accuracy": 1, "plot_lens": 1},
        setting("figures", "corrupted", value="#999999"),
    ),
    Change("style", "the resolution (`figures.dpi`)", FIGURES, setting("figures", "dpi", value=200)),
    Change("style", "the title (`study.title`)", PAGES, setting("study", "title", value="T")),
    Change("style", "the code of one figure", {"plot_stability": 1}, edit="scripts/atlas/report/figures/stability.py"),
    Change("style", "the caption of one figure", {"plot_stability": 1}, edit="report/stability.rst"),
    Change("style", "the code of the head pages", {"write_head_pages": 1}, edit="scripts/atlas/report/head_cards.py"),
    Change("style", "the code of the atlas page", {"write_atlas": 1}, edit="scripts/atlas/report/atlas/page.py"),
    Change("style", "the app of the atlas page", {"write_atlas": 1}, edit="scripts/atlas/report/atlas/bundle.js"),
    Change(
        "atlas", "more prompts to look at", {"trace_prompts": 3, "write_atlas": 1}, setting("atlas", "prompts", value=8)
    ),
    Change("style", "the code of the summary", {"write_summary": 1}, edit="scripts/atlas/report/summary.py"),
    Change("style", "the script of all figures", FIGURES, edit="scripts/plot.py"),
    Change(
        "threshold",
        "another floor (`search.thresholds`)",
        {"search_nodes": 2} | after_search(2),
        setting("search", "thresholds", value=[20, 30]),
    ),
    Change(
        "choice",
        "the circuits of one order (`comparison.order`)",
        {"choose_circuit": 2} | after_choice(2),
        setting("comparison", "order", value="layers"),
    ),
    Change(
        "library edited",
        "the choice of what is reported (`choice.py`)",
        {"choose_circuit": 2} | after_choice(2),
        edit="scripts/atlas/circuit/choice.py",
    ),
    Change(
        "library edited",
        "consensus (`consensus.py`)",
        {"gather_consensus": 1, "evaluate_consensus": 3} | TRUST | WRITTEN,
        edit="scripts/atlas/compare/consensus.py",
    ),
    Change(
        "threshold",
        "the floor of edge circuits (`edges.threshold`)",
        {"search_edges": 2} | of_main_tasks(2),
        setting("edges", "threshold", value=45),
    ),
    Change(
        "threshold",
        "a label's (`heads.labels.copy`)",
        AFTER_LABELS | {"plot_detectors": 1},
        setting("heads", "labels", "copy", value=0.4),
    ),
    Change(
        "analyses",
        "one left out (`heads.analyses` without backup heads)",
        {"check_analyses": 1} | WRITTEN,
        setting("heads", "analyses", value=["patching", "attribution", "lens", "attention", "detectors", "ov"]),
    ),
    Change("edges", "points of EAP-IG", {"search_edges": 2} | of_main_tasks(2), setting("edges", "points", value=3)),
    Change(
        "stability",
        "one more resample",
        {"search_stability": 2} | AFTER_STABILITY,
        setting("stability", "bootstrap", value=2),
    ),
    Change(
        "generation",
        "one more prompt set",
        {"generate": 1, "plot_generation": 1, "write_summary": 1},
        setting("generation", "prompts", "letters", value={"texts": [["A B C", "D"]]}),
    ),
    Change(
        "publication",
        "figures to compare with (`published`)",
        {"compare_published": 1, "plot_published": 1, "write_summary": 1},
        setting("published", value="gpt2-small"),
    ),
    Change(
        "seed",
        "of a transfer task's prompts",
        OF_A_TRANSFER_TASK | explained(3),
        setting("tasks", "days", "seed", value=1),
    ),
    Change(
        "seed",
        "of a transfer task's prompts, and backup heads left out (`heads.analyses`): both at once",
        {job: n for job, n in (OF_A_TRANSFER_TASK | explained(3)).items() if job != "plot_backup"}
        | {"check_analyses": 1},
        lambda config: (
            setting("tasks", "days", "seed", value=1)(config),
            setting("heads", "analyses", value=["patching", "attribution", "lens", "attention", "detectors", "ov"])(
                config
            ),
        ),
    ),
    Change("seed", "of a main task's prompts", OF_A_MAIN_TASK, setting("tasks", "numerals", "seed", value=1)),
    Change("task added", "a transfer task", OF_A_TRANSFER_TASK | explained(4), letters("transfer_tasks")),
    Change("task added", "a main task", ADDED_MAIN, letters("tasks")),
    Change(
        "task edited",
        "members of a transfer task",
        OF_A_TRANSFER_TASK | explained(3),
        setting("tasks", "days", "step", value=-1),
    ),
    Change("task edited", "members of a main task", OF_A_MAIN_TASK, setting("tasks", "numerals", "step", value=2)),
    Change("model swapped", "another checkpoint under the same name", ALL, elsewhere=model_swapped),
    Change("library upgraded", "torch", ALL, upgrade="torch"),
    Change("library upgraded", "transformers", ALL, upgrade="transformers"),
    Change("library upgraded", "matplotlib", FIGURES | {"write_head_pages": 1}, upgrade="matplotlib"),
    Change("library upgraded", "pandas", ALL, upgrade="pandas"),
    Change(
        "library edited",
        "the node search (`search.py`)",
        {"search_nodes": 2} | after_search(2),
        edit="scripts/atlas/circuit/search.py",
    ),
    Change(
        "library edited",
        "the edge search (`searches.py`)",
        {"search_edges": 2} | of_main_tasks(2),
        edit="scripts/atlas/edges/searches.py",
    ),
    Change(
        "library edited",
        "curves (`curves.py`)",
        {"assess_circuits": 2} | AFTER_ASSESSMENT,
        edit="scripts/atlas/edges/curves.py",
    ),
    Change(
        "library edited",
        "overlap (`overlap.py`)",
        {"compare_circuits": 1} | AFTER_COMPARISON,
        edit="scripts/atlas/compare/overlap.py",
    ),
    Change(
        "library edited",
        "chance (`chance.py`)",
        {"compare_circuits": 1, "search_stability": 2} | AFTER_COMPARISON | AFTER_STABILITY,
        edit="scripts/atlas/core/chance.py",
    ),
    Change(
        "library edited",
        "backup heads (`backup.py`)",
        {"explain_heads": 3, "plot_attention": 1, "plot_ov": 1, "plot_backup": 1} | AFTER_LABELS,
        edit="scripts/atlas/heads/backup.py",
    ),
    Change("library edited", "a module that no job of the study uses", {}, edit="scripts/atlas/shipped/training.py"),
]

PAGE = """# What runs again

Every job knows what it depends on: its inputs, the settings it reads, the content of its script and of the modules of
`scripts/atlas` that this imports, and the versions of the packages that these import. A change reruns the jobs that
depend on it, and what depends on their results, and no other. Of the files that a user gives (checkpoints, prompts,
circuits) the content counts, never the folder or the time; of a file above 64 MiB its size and time stand for it, which
copies keep. Times decide for results alone. So a checkout, a copy or a move reruns nothing.

This table is made from `tests/incremental.py` (`make docs`); `tests/workflow/test_incremental.py` holds each row
against a dry run of a finished study, so that both numbers and names are what Snakemake announces. The study has one
model, two main tasks and one transfer task: {all} jobs. The number before a rule is how many of its jobs run; no number
means one. It leaves
order out (`geometry.analyses`): there a setting of one analysis reruns its jobs, its figures and the pages
(`tests/workflow/test_geometry_study.py`).

| change | of what | jobs | rules |
|---|---|---|---|
"""


def page() -> str:
    rows = []
    for change in CHANGES:
        rules = ", ".join(f"{n} `{rule}`" if n > 1 else f"`{rule}`" for rule, n in sorted(change.jobs.items()))
        rules = "nothing" if not change.jobs else "everything" if change.jobs == ALL else rules
        rows.append(f"| {change.kind} | {change.what} | {sum(change.jobs.values())} | {rules} |")
    return PAGE.format(all=sum(ALL.values())) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "incremental.md").write_text(page())
