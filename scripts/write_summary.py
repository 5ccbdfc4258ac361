"""Write the findings of a model, and the tables they rest on, as HTML pages."""

from atlas.report import summary
from atlas.report.sections.study import Study
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

info, circuits = (map(artifacts.read_json, inputs.get(name, [])) for name in ("info", "edge_circuits"))
study = Study(
    tables=artifacts.named_tables(inputs),
    info={content["task"]: content for content in info},
    circuits={content["task"]: content for content in circuits},
    model=artifacts.read_json(inputs.model),
    left_out=artifacts.read_json(inputs.analyses)["left_out"],
    settings={key: value for key, value in p.items() if key != "code"},
    provenance=job.provenance(snakemake),
)
artifacts.write_text(out.summary, summary.page(study))
artifacts.write_text(out.tables, summary.tables_page(study))
