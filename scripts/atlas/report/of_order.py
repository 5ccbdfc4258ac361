"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import NODE_CIRCUITS, Shown, Table, look, of_geometry

OF_ORDER = "9 Order"

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry("steering", "steering_side_effects", "steering_samples"),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "steering",
        "steering",
        OF_ORDER,
        tables=of_geometry("steering", "steering_side_effects"),
        settings=look("clean", "circuit", "sequential"),
        message="Draw steering of {wildcards.model} from one sequence to another",
        circuits=(NODE_CIRCUITS,),
    ),
)
