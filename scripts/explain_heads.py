"""Explain the heads of a model on one task: where they attend, what they write, and which ones back up which."""

from atlas.circuit import chosen, studies
from atlas.circuit.ablation import replacement
from atlas.core import components
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import explain_heads
from atlas.heads.explained import Explained
from atlas.prompts import layouts, tokens
from atlas.store import artifacts, job, tensors

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

folder, split = job.model_folder(snakemake), studies.report_split(inputs.prompts, inputs.clean)
given, means = studies.read_prompts(inputs.prompts, inputs.clean, split), tensors.read(inputs.means)
layout_of = {name: Layout.of(x) for name, x in artifacts.read_json(inputs.all_layouts)["layouts"].items()}
task = Explained(
    names={"model": w.model, "task": w.task},
    model=studies.load_model(inputs.model, folder, p.run),
    tokenizer=tokens.load_tokenizer(str(folder)),
    frame=layouts.of_one(given),
    layout=layout_of[w.task],
    bootstrap=Bootstrap(p.bootstrap, p.seed),
    groups=means["groups"],
)
cache = tensors.read(inputs.activations) if p.kind == "resample" else None
tables, page = explain_heads.explain(
    task,
    out.keys(),
    given=len(given),
    heads=components.heads(chosen.chosen_circuits(inputs.circuits)["union"]),
    tasks=explain_heads.Tasks.of(artifacts.read_table(inputs.all_prompts), layout_of, p.tasks, p.members),
    settings=explain_heads.Settings(p.random_words, p.pattern_prompts, p.k, p.norms, p.seed),
    substitute=replacement(p.kind, task.model, task.prompts, means, cache) if out.get("backup") else None,
)

provenance = job.provenance(snakemake)
for name, table in tables.items():
    artifacts.write_table(table, out[name], provenance)
if out.get("patterns"):
    artifacts.write_json(page, out.patterns, provenance)
