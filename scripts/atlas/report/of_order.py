"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import Shown, Table, look, of_geometry

OF_ORDER = "9 Order"

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry("probes", "tuned_lens", "tuned_lens_training"),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "probes",
        "index probes across classes",
        OF_ORDER,
        tables=of_geometry("probes"),
        settings=look("clean", "corrupted", "circuit", "diverging"),
        message="Draw index probes of {wildcards.model}",
    ),
    Shown(
        "tuned_lens",
        "tuned lens",
        OF_ORDER,
        tables=of_geometry("tuned_lens"),
        settings={"main_tasks": "derived.explained_main_tasks"} | look("clean", "circuit"),
        message="Draw the tuned lens of {wildcards.model}",
    ),
)
