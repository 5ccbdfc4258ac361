"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import Shown, Table, look, of_geometry

OF_ORDER = "9 Order"

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry(
        "features", "feature_members", "feature_indices", "feature_tests", "feature_heads", "feature_effects"
    ),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "features",
        "features",
        OF_ORDER,
        tables={
            "activity": Table("geometry/feature_activity.parquet"),
            "heads": Table("geometry/feature_heads.parquet"),
            "effects": Table("geometry/feature_effects.parquet"),
        },
        settings=look("clean", "circuit", "sequential"),
        message="Draw features of {wildcards.model}",
    ),
)
