"""The rows of `contents.py` on how a model represents order, and the tables that the summary shows of it."""

from atlas.report.shown import EXPLAINED_TASKS, MAIN_TASKS, NODE_CIRCUITS, Shown, Table, compared, look, of_geometry

OF_ORDER = "9 Order"


# Of the summary and of the page of tables
SUMMARISED: dict[str, Table] = {
    **of_geometry("successors"),
    **of_geometry("probes", "tuned_lens", "tuned_lens_training"),
    **of_geometry("steering", "steering_side_effects", "steering_samples"),
    **of_geometry("shapes", "displacements", "shape_patches"),
    **of_geometry("directions", "direction_next", "direction_ablations", "neurons", "neuron_sets"),
    **of_geometry(
        "features", "feature_members", "feature_indices", "feature_tests", "feature_heads", "feature_effects"
    ),
}

ROWS: tuple[Shown, ...] = (
    Shown(
        "successors",
        "successor heads",
        OF_ORDER,
        tables=of_geometry("successors") | compared("membership"),
        settings=MAIN_TASKS | look("sequential"),
        message="Draw successor heads of {wildcards.model}",
        circuits=(NODE_CIRCUITS,),
    ),
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
        settings=EXPLAINED_TASKS | look("clean", "circuit"),
        message="Draw the tuned lens of {wildcards.model}",
    ),
    Shown(
        "steering",
        "steering",
        OF_ORDER,
        tables=of_geometry("steering", "steering_side_effects"),
        settings=look("clean", "circuit", "sequential"),
        message="Draw steering of {wildcards.model} from one sequence to another",
    ),
    Shown(
        "residual_pca",
        "where members lie",
        OF_ORDER,
        tables=of_geometry("pca"),
        settings=EXPLAINED_TASKS | look("sequential"),
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
