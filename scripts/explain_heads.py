"""Explain the heads of a model on one task: where they attend, what they write, and which ones back up which."""

from atlas.circuit import chosen
from atlas.circuit.task_data import TaskData
from atlas.core import components
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import explain_heads
from atlas.heads.explained import Explained
from atlas.prompts import layouts, tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

data = TaskData(**job.task_data(snakemake))
given = data.frame(data.report_split)
layout_of = {name: Layout.of(x) for name, x in artifacts.read_json(inputs.all_layouts)["layouts"].items()}
task = Explained(
    names=data.identity,
    model=data.model,
    tokenizer=tokens.load_tokenizer(str(data.folder)),
    frame=layouts.of_one(given),
    layout=layout_of[data.task],
    bootstrap=Bootstrap(p.bootstrap, p.seed),
    groups=data.means["groups"],
)
tables, page = explain_heads.explain(
    task,
    out.keys(),
    given=len(given),
    heads=components.heads(chosen.chosen_circuits(inputs.circuits)["union"]),
    tasks=explain_heads.Tasks.of(artifacts.read_table(inputs.all_prompts), layout_of, p.tasks, p.members),
    settings=explain_heads.Settings(p.random_words, p.pattern_prompts, p.k, p.norms, p.seed),
    substitute=data.replacing(task.prompts) if out.get("backup") else None,
)

provenance = job.provenance(snakemake)
for name, table in tables.items():
    artifacts.write_table(table, out[name], provenance)
if out.get("patterns"):
    artifacts.write_json(page, out.patterns, provenance)
