"""Set the figures of a study beside published ones."""

from atlas.compare import published
from atlas.store import artifacts, job, places

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params
folder = places.below_root("resources/published") / snakemake.config["published"]

of_tasks = ("faithfulness", "evaluation", "minimality", "effects", "clean", "ov")
of_tasks += ("lens_increments", "attribution", "patching")
tables = {name: artifacts.read_tables(inputs[name]) for name in of_tasks}
tables |= {name: artifacts.read_table(inputs[name]) for name in ("membership", "cross")}
if inputs.get("generated"):
    tables["generation"] = published.written(*map(artifacts.read_table, inputs.generated))
studied = published.Studied(
    model=artifacts.read_json(inputs.model),
    settings=p.settings,
    prompts=dict(zip(p.settings, map(published.prompts_of, map(artifacts.read_table, inputs.prompts)), strict=True)),
    layouts={info["task"]: published.layout_of(info) for info in map(artifacts.read_json, inputs.info)},
)
table = published.compare(published.read(folder), tables, studied, p.order, p.threshold)
counts = table["status"].value_counts().to_dict()
job.log.info("%s, %d within tolerance", counts, int(table["within"].sum()))

table.insert(0, "model", snakemake.wildcards.model)
artifacts.write_table(table, out[0], job.provenance(snakemake))
