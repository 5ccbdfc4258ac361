"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import NODE_CIRCUITS, Shown, Table, compared, look, of_geometry

OF_ORDER = "9 Order"

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry("successors"),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "successors",
        "successor heads",
        OF_ORDER,
        tables=of_geometry("successors") | compared("membership"),
        settings={"main_tasks": "study.tasks"} | look("sequential"),
        message="Draw successor heads of {wildcards.model}",
        circuits=(NODE_CIRCUITS,),
    ),
)
