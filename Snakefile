# Circuit Atlas: from prompts to circuits, their overlap, figures and a report.
from snakemake.utils import min_version

min_version("9.0")


configfile: workflow.source_path("config.yaml")


report: "report/workflow.rst"


include: "rules/study.smk"
include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/circuits.smk"
include: "rules/trust.smk"
include: "rules/heads_effects.smk"
include: "rules/heads_roles.smk"
include: "rules/generation.smk"
include: "rules/geometry_common.smk"
include: "rules/geometry.smk"
include: "rules/geometry_successors.smk"
include: "rules/geometry_shapes.smk"
include: "rules/geometry_probes.smk"
include: "rules/geometry_lens.smk"
include: "rules/geometry_steering.smk"
include: "rules/geometry_directions.smk"
include: "rules/geometry_features.smk"
include: "rules/published.smk"
include: "rules/figures.smk"
include: "rules/atlas.smk"
include: "rules/fixtures.smk"
include: "rules/training.smk"


# Only where this workflow runs by itself: one that imports it as a module is left as it is.
if workflow.modifier.is_main_snakefile():

    include: "rules/process.smk"


onstart:
    refuse_read_only("logs", "benchmarks", "results", *(folder for folder, _, _ in os.walk("results")))


rule all:
    default_target: True
    input:
        atlas_pages(),
        figures_and_pages(),
        exports(),
