"""Explain a task by what can be patched, by what writes the answer, and by where the answer appears."""

from atlas.circuit.task_data import TaskData
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import explain_task
from atlas.heads.explained import Explained
from atlas.prompts import layouts, tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

data = TaskData(**job.task_data(snakemake))
task = Explained(
    names=data.identity,
    model=data.model,
    tokenizer=tokens.load_tokenizer(str(data.folder)),
    frame=layouts.of_one(data.frame(data.report_split)),
    layout=Layout.of(artifacts.read_json(inputs.layout)["layout"]),
    bootstrap=Bootstrap(p.bootstrap, p.seed),
)
tables = explain_task.explain(task, out.keys(), p.patching_prompts, p.lens_tokens, p.allow_negative_clean)

provenance = job.provenance(snakemake)
for name, table in tables.items():
    artifacts.write_table(table, out[name], provenance)
