"""The table of figures and pages: what each shows, from which tables, and with which settings.

Rules, `rule all`, the inputs of pages, the menu of the report and the tests read it. A new figure is a row of SHOWN, a
module of its name in figures/, whose `draw` takes the row's tables and settings, and a caption in report/.

Read by Snakemake in every job: nothing heavy is imported here. No script imports it, so that a new row reruns nothing.
"""

from atlas.report import of_heads, of_order
from atlas.report.shown import (
    CIRCUIT,
    EDGE_CIRCUITS,
    EDGES,
    EXPLAINED_MAIN,
    GENERATION,
    MAIN,
    NAMED,
    NODE_CIRCUITS,
    OWN,
    SITE_CIRCUITS,
    TASK,
    Shown,
    Table,
    compared,
    look,
    of,
)

# Folders of the report, in the order in which they are read
DATA, SUMMARY, COMPONENTS, CIRCUITS = "1 Data", "2 Summary", "3 Components", "4 Circuits"
OF_EDGES, EVALUATION, OVERLAP, OF_HEADS = "5 Edges", "6 Evaluation", "7 Overlap", of_heads.OF_HEADS
OF_ORDER, OF_GENERATION, PUBLISHED = of_order.OF_ORDER, "Generation", "Published figures"

INFO = {"info": Table("prompts.json", OWN)}
ABOUT = {"model": Table("model.json"), "info": Table("prompts.json", TASK)}
TASKS, MAIN_TASKS = {"tasks": "derived.tasks"}, {"main_tasks": "study.tasks"}
KIND = {"kind": "ablation.kind"}
NODES, BOTH = (NODE_CIRCUITS,), (NODE_CIRCUITS, EDGE_CIRCUITS)

SUMMARISED = {
    "circuits": Table("circuits.json", MAIN),
    "edge_circuits": Table("edge_circuits.json", MAIN),
    **of(MAIN, "edge_scores", "edge_areas"),
    "generation": Table("generation/summary.parquet"),
    **compared("published"),
    **of(EXPLAINED_MAIN, "patching", "attribution", "lens", "lens_lead", "lens_increments", "backup"),
    "detectors": Table("detectors.parquet"),
    **compared("roles"),
    **ABOUT,
    **of(MAIN, "prompts"),
    "clean": Table("clean_summary.parquet", TASK),
    **of(MAIN, "faithfulness", "choice", "evaluation", "completeness", "minimality", "positions", "stability_summary"),
    **compared("membership", "overlap", "typology", "cross", "controls_summary"),
    **compared("consensus", "consensus_edges", "shared", "shared_members"),
    **compared("hypotheses", "member_tests", "unseen", "specificity"),
    **of(TASK, "consensus_scores", "consensus_tests"),
    "analyses": Table("analyses.json"),
    **of_order.SUMMARISED,
}
SHOWN = (
    Shown(
        "data",
        "a look at the data",
        DATA,
        tables=ABOUT | of(TASK, "prompts", "rejected", "tokens", "clean"),
        rule="write_data_page",
        page=True,
    ),
    Shown(
        "dataset",
        "prompts",
        DATA,
        tables=INFO | of(OWN, "prompts"),
        settings=look("clean", "corrupted"),
        message="Draw prompts of {wildcards.task} for {wildcards.model}",
        of=TASK,
    ),
    Shown(
        "tokens",
        "tokens",
        DATA,
        tables=INFO | of(OWN, "tokens"),
        settings=look("clean", "corrupted"),
        of=TASK,
        rule="plot_dataset",
    ),
    Shown(
        "clean_accuracy",
        "clean accuracy",
        DATA,
        tables={"summaries": Table("clean_summary.parquet", TASK)},
        settings=TASKS | MAIN_TASKS | look("clean", "corrupted"),
        message="Draw clean accuracy of {wildcards.model}",
    ),
    Shown(
        "summary", "findings", SUMMARY, tables=SUMMARISED, rule="write_summary", page=True, column="page", circuits=BOTH
    ),
    Shown(
        "tables", "tables", SUMMARY, tables=SUMMARISED, rule="write_summary", page=True, column="page", circuits=BOTH
    ),
    Shown(
        "component_effects",
        "component effects",
        COMPONENTS,
        tables={"effects": Table("component_effects.parquet", OWN)},
        settings=KIND | look("diverging", "circuit"),
        message="Draw component effects of {wildcards.model} on {wildcards.task}",
        of=MAIN,
    ),
    Shown(
        "estimates",
        "effects and their estimates",
        COMPONENTS,
        tables=of(OWN, "node_attribution", "node_accuracy", "component_effects"),
        settings=KIND | look("clean", "circuit"),
        message="Draw how near gradients of {wildcards.model} come to effects on {wildcards.task}",
        of=MAIN,
    ),
    Shown(
        "search_trajectory",
        "search trajectory",
        CIRCUITS,
        tables=of(OWN, "trace", "choice"),
        settings=look("clean", "circuit"),
        message="Draw the search of {wildcards.model} on {wildcards.task}",
        of=MAIN,
        circuits=(NAMED,),
    ),
    Shown(
        "circuit_size",
        "size and score",
        CIRCUITS,
        tables=of(MAIN, "choice"),
        settings=MAIN_TASKS | {"threshold": "comparison.threshold"} | look("sequential"),
        message="Draw circuit sizes of {wildcards.model}",
        circuits=(NAMED,),
    ),
    Shown(
        "circuit_diagram",
        "circuit",
        CIRCUITS,
        tables=compared("membership") | {"effects": Table("component_effects.parquet", OWN)},
        settings=MAIN_TASKS | KIND | look("clean", "circuit"),
        message="Draw circuit {wildcards.circuit} of {wildcards.model}",
        of=CIRCUIT,
        circuits=NODES,
    ),
    Shown(
        "positions",
        "positions",
        CIRCUITS,
        tables=of(MAIN, "positions"),
        settings=MAIN_TASKS | look("diverging"),
        message="Draw positions of components of {wildcards.model}",
        circuits=(SITE_CIRCUITS,),
    ),
    Shown(
        "edge_diagram",
        "edge circuit",
        OF_EDGES,
        tables={"model": Table("model.json"), "membership": Table("comparison/edge_membership.parquet")},
        also=compared("roles"),
        settings=MAIN_TASKS | {"method": "derived.edge_score_method"} | look("clean", "circuit"),
        message="Draw edge circuit {wildcards.circuit} of {wildcards.model}",
        of=CIRCUIT,
        needs=EDGES,
        circuits=(EDGE_CIRCUITS,),
    ),
    Shown(
        "edge_curves",
        "size and faithfulness",
        OF_EDGES,
        tables={"curves": Table("edge_curves.parquet", MAIN), "areas": Table("edge_areas.parquet", MAIN)},
        settings=MAIN_TASKS | look("clean", "circuit"),
        message="Draw edge circuits of every size of {wildcards.model}",
        circuits=(EDGE_CIRCUITS, NAMED),
    ),
    Shown(
        "edge_roles",
        "edges by roles of positions",
        OF_EDGES,
        tables=of(MAIN, "edge_roles"),
        settings=MAIN_TASKS | look("clean", "circuit"),
        message="Draw at which positions edges of {wildcards.model} work",
        circuits=(EDGE_CIRCUITS,),
    ),
    Shown(
        "composition",
        "composition of heads",
        OF_EDGES,
        tables=compared("composition", "composition_edges", "edge_membership", "membership"),
        settings=MAIN_TASKS | look("sequential", "circuit"),
        message="Draw how heads of {wildcards.model} compose",
        circuits=BOTH,
    ),
    Shown(
        "evaluation",
        "metrics, completeness, minimality",
        EVALUATION,
        tables=of(MAIN, "evaluation", "completeness", "minimality"),
        settings=MAIN_TASKS | look("clean", "circuit"),
        message="Draw the evaluation of {wildcards.model}",
        circuits=BOTH,
    ),
    Shown(
        "controls",
        "random controls",
        EVALUATION,
        tables=compared("controls") | {"summary": Table("comparison/controls_summary.parquet")},
        settings=TASKS | look("circuit"),
        message="Draw random controls of {wildcards.model}",
        circuits=NODES,
    ),
    Shown(
        "stability",
        "stability",
        EVALUATION,
        tables=of(MAIN, "stability") | {"summary": Table("stability_summary.parquet", MAIN)},
        settings=MAIN_TASKS | look("sequential"),
        message="Draw stability of the circuits of {wildcards.model}",
        circuits=NODES,
    ),
    Shown(
        "methods",
        "methods",
        EVALUATION,
        tables=compared("methods"),
        settings=MAIN_TASKS | {"threshold": "comparison.threshold"} | look("clean", "circuit"),
        message="Draw what the methods agree on in {wildcards.model}",
        circuits=(NAMED,),
    ),
    Shown(
        "overlap",
        "overlap",
        OVERLAP,
        tables=compared("membership", "overlap", "typology"),
        settings=MAIN_TASKS | look("clean", "circuit", "sequential"),
        message="Draw the overlap of circuits of {wildcards.model}",
        circuits=BOTH,
    ),
    Shown(
        "cross_matrix",
        "cross-task matrix",
        OVERLAP,
        tables=compared("cross"),
        settings=TASKS | MAIN_TASKS | look("sequential"),
        message="Draw circuits of {wildcards.model} on every task",
        circuits=NODES,
    ),
    *of_heads.ROWS,
    *of_order.ROWS,
    Shown(
        "generation",
        "right under ablation",
        OF_GENERATION,
        tables={name: Table(f"generation/{name}.parquet") for name in ("outputs", "summary")},
        settings=look("circuit"),
        message="Draw what {wildcards.model} wrote under ablation",
        circuits=NODES,
    ),
    Shown(
        "generation",
        "what it wrote",
        OF_GENERATION,
        tables={name: Table(f"generation/{name}.parquet") for name in ("heads", "prompts", "outputs")},
        settings={"kind": "generation.kind"},
        needs=GENERATION,
        rule="plot_generation",
        caption="generation_outputs",
        page=True,
        circuits=NODES,
    ),
    Shown(
        "published",
        "ours against published",
        PUBLISHED,
        tables={"table": Table("comparison/published.parquet")},
        settings=look("clean", "circuit"),
        message="Draw {wildcards.model} against published figures",
        circuits=NODES,
    ),
)

BY_RULE = {name: [row for row in SHOWN if row.made_by == name] for name in dict.fromkeys(row.made_by for row in SHOWN)}
