"""The table of figures and pages: what each shows, from which tables, and with which settings.

Rules, `rule all`, the inputs of pages, the menu of the report and the tests read it. A new figure is a row of SHOWN, a
module of its name in figures/, whose `draw` takes the row's tables and settings, and a caption in report/.

Read by Snakemake in every job: nothing heavy is imported here. No script imports it, so that a new row reruns nothing.
"""

from atlas.report.shown import (
    CIRCUIT,
    EDGE_CIRCUITS,
    EDGES,
    EXPLAINED,
    EXPLAINED_MAIN,
    GENERATION,
    HEADS,
    MAIN,
    NAMED,
    NODE_CIRCUITS,
    OWN,
    SITE_CIRCUITS,
    TASK,
    Shown,
    Table,
)

# Folders of the report, in the order in which they are read
DATA, SUMMARY, COMPONENTS, CIRCUITS = "1 Data", "2 Summary", "3 Components", "4 Circuits"
OF_EDGES, EVALUATION, OVERLAP, OF_HEADS = "5 Edges", "6 Evaluation", "7 Overlap", "8 Heads"
OF_GENERATION, PUBLISHED = "9 Generation", "Published figures"


def of(kind: str, *names: str) -> dict[str, Table]:
    """Tables named by their files, of every task of a kind."""
    return {name: Table(f"{name}.parquet", kind) for name in names}


def compared(*names: str) -> dict[str, Table]:
    """Tables named by their files, of all circuits of a model."""
    return {name: Table(f"comparison/{name}.parquet") for name in names}


def look(*names: str) -> dict[str, str]:
    """Colours, and maps of colours."""
    return {name: f"figures.{name}" for name in names}


INFO = {"info": Table("prompts.json", OWN)}
TASKS, MAIN_TASKS = {"tasks": "derived.tasks"}, {"main_tasks": "study.tasks"}
EXPLAINED_TASKS = {"main_tasks": "derived.explained_main_tasks"}  # of the main tasks, those that heads are explained on
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
    "model": Table("model.json"),
    "info": Table("prompts.json", TASK),
    **of(MAIN, "prompts"),
    "clean": Table("clean_summary.parquet", TASK),
    **of(MAIN, "faithfulness", "choice", "evaluation", "completeness", "minimality", "positions", "stability_summary"),
    **compared("membership", "overlap", "typology", "cross", "controls_summary"),
    **compared("consensus", "consensus_edges", "shared", "shared_members"),
    **compared("hypotheses", "member_tests", "unseen", "specificity"),
    **of(TASK, "consensus_scores", "consensus_tests"),
    "analyses": Table("analyses.json"),
}
ON_CARDS = {
    "detectors": Table("detectors.parquet"),
    **of(EXPLAINED, "patching", "attribution", "attention", "attention_members", "ov", "mlp_answers", "mlp_tokens"),
    **compared("roles", "role_tests", "membership"),
    "effects": Table("component_effects.parquet", EXPLAINED_MAIN),
    **of(EXPLAINED_MAIN, "prompts"),
}

SHOWN = (
    Shown(
        "data",
        "a look at the data",
        DATA,
        tables={
            "model": Table("model.json"),
            "info": Table("prompts.json", TASK),
            **of(TASK, "prompts", "rejected", "tokens", "clean"),
        },
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
    Shown(
        "patching",
        "patching",
        OF_HEADS,
        tables=of(OWN, "patching") | compared("membership"),
        settings=look("diverging"),
        message="Draw patching of {wildcards.task} in {wildcards.model}",
        of=EXPLAINED_MAIN,
        circuits=NODES,
    ),
    Shown(
        "patching_scatter",
        "patching: pattern, value, output",
        OF_HEADS,
        tables=of(EXPLAINED_MAIN, "patching") | compared("membership"),
        settings=EXPLAINED_TASKS | look("diverging"),
        message="Draw patching of patterns and values of {wildcards.model}",
        circuits=NODES,
    ),
    Shown(
        "attribution",
        "direct attribution",
        OF_HEADS,
        tables=of(EXPLAINED_MAIN, "attribution") | compared("membership"),
        settings=EXPLAINED_TASKS | look("clean", "circuit", "diverging"),
        message="Draw what writes the answer in {wildcards.model}",
        circuits=NODES,
    ),
    Shown(
        "lens",
        "logit lens",
        OF_HEADS,
        tables=of(EXPLAINED_MAIN, "lens", "lens_lead", "lens_increments"),
        settings=EXPLAINED_TASKS | look("clean", "corrupted", "circuit"),
        message="Draw the logit lens of {wildcards.model}",
    ),
    Shown(
        "attention",
        "attention",
        OF_HEADS,
        tables={
            **of(EXPLAINED_MAIN, "attention"),
            "members": Table("attention_members.parquet", EXPLAINED_MAIN),
            "effects": Table("component_effects.parquet", EXPLAINED_MAIN),
            **compared("membership"),
        },
        settings=EXPLAINED_TASKS | KIND | look("sequential"),
        message="Draw where heads of {wildcards.model} look",
        circuits=NODES,
    ),
    Shown(
        "detectors",
        "detectors",
        OF_HEADS,
        tables={"detectors": Table("detectors.parquet")} | compared("membership"),
        settings=MAIN_TASKS | {"labels": "heads.labels"} | look("sequential"),
        message="Draw head detectors of {wildcards.model}",
        circuits=NODES,
    ),
    Shown(
        "ov",
        "what heads write",
        OF_HEADS,
        tables=of(EXPLAINED_MAIN, "ov") | compared("membership"),
        settings=EXPLAINED_TASKS | {"k": "derived.largest_k"} | look("sequential"),
        message="Draw what heads of {wildcards.model} write",
        circuits=NODES,
    ),
    Shown(
        "backup",
        "backup heads",
        OF_HEADS,
        tables=of(EXPLAINED_MAIN, "backup"),
        settings=EXPLAINED_TASKS | look("diverging"),
        message="Draw backup heads of {wildcards.model}",
        circuits=NODES,
    ),
    Shown(
        "heads",
        "cards of heads",
        OF_HEADS,
        tables=ON_CARDS,
        needs=HEADS,
        rule="write_head_pages",
        page=True,
        circuits=NODES,
    ),
    Shown(
        "patterns",
        "attention patterns",
        OF_HEADS,
        tables={"patterns": Table("patterns.json", EXPLAINED_MAIN)},
        needs="attention",
        rule="write_head_pages",
        page=True,
        circuits=NODES,
    ),
    Shown(
        "lens_tokens",
        "logit lens, tokens",
        OF_HEADS,
        tables=of(EXPLAINED_MAIN, "lens_tokens", "lens_lead"),
        needs="lens",
        rule="write_head_pages",
        page=True,
    ),
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
