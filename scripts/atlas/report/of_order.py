"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import NODE_CIRCUITS, Shown, Table, look, of_geometry

OF_ORDER = "9 Order"
EXPLAINED_TASKS = {"main_tasks": "derived.explained_main_tasks"}

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry("directions", "direction_next", "direction_ablations", "neurons", "neuron_sets"),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "directions",
        "directions of heads",
        OF_ORDER,
        tables=of_geometry("directions", "direction_next", "direction_ablations"),
        settings=EXPLAINED_TASKS | look("circuit", "diverging"),
        message="Draw the directions of heads of {wildcards.model}",
        circuits=(NODE_CIRCUITS,),
    ),
    Shown(
        "neurons",
        "neurons of MLPs",
        OF_ORDER,
        tables=of_geometry("neurons", "neuron_sets", "neuron_members"),
        settings=EXPLAINED_TASKS | look("circuit", "diverging"),
        message="Draw the neurons of MLPs of {wildcards.model}",
        circuits=(NODE_CIRCUITS,),
    ),
)
