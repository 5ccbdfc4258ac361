"""Write the findings of a model, and the tables they rest on, as HTML pages."""

from atlas.report import summary
from atlas.report.sections.study import Study
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

by_task = {
    name: {content["task"]: content for content in map(artifacts.read_json, inputs.get(name, []))}
    for name in ("info", "edge_circuits", "circuits")
}
study = Study(
    tables=artifacts.named_tables(inputs),
    info=by_task["info"],
    circuits=by_task["edge_circuits"],
    model=artifacts.read_json(inputs.model),
    left_out=artifacts.read_json(inputs.analyses)["left_out"],
    settings={key: value for key, value in p.items() if key != "code"},
    provenance=job.provenance(snakemake),
    searched=by_task["circuits"],
)
artifacts.write_text(out.summary, summary.page(study))
artifacts.write_text(out.tables, summary.tables_page(study))
