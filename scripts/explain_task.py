"""Explain a task by what can be patched, by what writes the answer, and by where the answer appears."""

from atlas.circuit import studies
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import explain_task
from atlas.heads.explained import Explained
from atlas.prompts import layouts, tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

folder, split = job.model_folder(snakemake), studies.report_split(inputs.prompts, inputs.clean)
task = Explained(
    names={"model": w.model, "task": w.task},
    model=studies.load_model(inputs.model, folder, p.run),
    tokenizer=tokens.load_tokenizer(str(folder)),
    frame=layouts.of_one(studies.read_prompts(inputs.prompts, inputs.clean, split)),
    layout=Layout.of(artifacts.read_json(inputs.layout)["layout"]),
    bootstrap=Bootstrap(p.bootstrap, p.seed),
)
tables = explain_task.explain(task, out.keys(), p.patching_prompts, p.lens_tokens, p.allow_negative_clean)

provenance = job.provenance(snakemake)
for name, table in tables.items():
    artifacts.write_table(table, out[name], provenance)
