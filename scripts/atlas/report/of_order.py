"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import Shown, Table, look, of_geometry

OF_ORDER = "9 Order"

# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry("shapes", "displacements", "shape_patches"),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "residual_pca",
        "where members lie",
        OF_ORDER,
        tables=of_geometry("pca"),
        settings={"main_tasks": "derived.explained_main_tasks"} | look("sequential"),
        message="Draw where members lie in {wildcards.model}",
    ),
    Shown(
        "shapes",
        "lines, circles, helices",
        OF_ORDER,
        tables=of_geometry("shapes"),
        settings=look("clean", "corrupted", "circuit"),
        message="Draw shapes of classes in {wildcards.model}",
    ),
    Shown(
        "displacements",
        "displacements",
        OF_ORDER,
        tables=of_geometry("displacements"),
        settings=look("diverging", "sequential"),
        message="Draw displacements in {wildcards.model}",
    ),
    Shown(
        "shape_patches",
        "patches within shapes",
        OF_ORDER,
        tables=of_geometry("shape_patches"),
        settings=look("clean", "corrupted", "circuit"),
        message="Draw patches within shapes of {wildcards.model}",
    ),
)
