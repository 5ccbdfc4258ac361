"""Set the figures of a study beside published ones."""

from atlas.compare import published
from atlas.store import artifacts, job, places

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params
folder = places.below_root("resources/published") / snakemake.config["published"]

compared = {name: files for name, files in inputs.items() if name not in ("prompts", "generated")}
tables = artifacts.named_tables(compared)
if inputs.get("generated"):
    tables["generation"] = published.written(*map(artifacts.read_table, inputs.generated))
studied = published.Studied(
    model=artifacts.read_json(inputs.model),
    settings=p.settings,
    prompts=dict(zip(p.settings, map(published.prompts_of, map(artifacts.read_table, inputs.prompts)), strict=True)),
    layouts={info["task"]: published.layout_of(info) for info in map(artifacts.read_json, inputs.info)},
)
table = published.compare(published.read(folder), tables, studied, p.threshold)
job.log.info("%s, %d within tolerance", table["status"].value_counts().to_dict(), int(table["within"].sum()))

table.insert(0, "model", snakemake.wildcards.model)
artifacts.write_table(table, snakemake.output[0], job.provenance(snakemake))
