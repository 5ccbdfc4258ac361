"""Write the first page of a study: the circuit of one task, as soon as it is found."""

from atlas.circuit.chosen import entry_at
from atlas.report import first_page, pages
from atlas.store import artifacts, job
from atlas.store.artifacts import read_json, read_table

job.start(snakemake)
inputs, p, w = snakemake.input, snakemake.params, snakemake.wildcards

page = first_page.page(
    p.task,
    f"{p.title}: {w.model}",
    read_json(inputs.info),
    read_table(inputs.clean),
    entry_at(inputs.chosen, p.threshold),
    read_table(inputs.choice),
    read_table(inputs.effects),
    p.kind,
    p.colours,
    pages.warning(read_json(inputs.model)),
)
artifacts.write_text(snakemake.output.page, page)
