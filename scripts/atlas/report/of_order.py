"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import Shown, Table, of_geometry

OF_ORDER = "9 Order"

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry(),
}

ROWS: tuple[Shown, ...] = ()
