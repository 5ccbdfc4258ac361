"""Evaluate every main circuit, and what they share, on one task, with layer-matched random controls."""

import pandas as pd

from atlas.circuit import studies
from atlas.circuit.chosen import chosen_circuits
from atlas.circuit.controls import matched_sets
from atlas.core import components
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

circuits = chosen_circuits(inputs.circuits)
model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
split = studies.report_split(inputs.prompts, inputs.clean)
ablator = studies.make_ablator(
    model, dict(inputs.items()), split, p.kind, p.legacy_mlp_means, ("logit_diff", "top1"), job.memo_folder(snakemake)
)
full, empty = (ablator.scores(c) for c in (ablator.everything, frozenset()))
studies.refuse_no_effect(w.task, full["logit_diff"], empty["logit_diff"], p.allow_negative_clean)
bootstrap, identity = Bootstrap(p.bootstrap, p.seed), {"model": w.model, "task": w.task}

cross = []
sets = circuits | {"all but shared": ablator.everything - circuits["shared"]}
for name, circuit in sets.items():
    found = ablator.scores(circuit)
    for metric, estimate in (
        ("percent_of_full", bootstrap.percent(found["logit_diff"], full["logit_diff"])),
        ("faithfulness", bootstrap.faithfulness(found["logit_diff"], full["logit_diff"], empty["logit_diff"])),
        ("top1", bootstrap.mean(found["top1"])),
    ):
        row = identity | {"circuit": name, "split": split, "metric": metric} | interval_columns(estimate)
        cross.append(row | {"prompts": len(ablator.prompts)})

controls, notes = [], []
own = [("necessity", w.task), ("sufficiency", w.task)] if w.task in circuits else []
questions = [("necessity", "shared"), *own]
for question, name in questions:
    own_heads = frozenset(components.heads(circuits[name]))
    own_mlps = frozenset(components.mlps(circuits[name]))
    drawn, note = matched_sets(
        circuits[name], model.n_layers, model.n_heads, p.controls, p.seed, outside=question == "necessity"
    )
    notes.append(identity | {"question": question, "circuit": name, "note": note})
    for draw, chosen in job.progress(list(enumerate([own_heads, *drawn], start=-1)), question):
        intact = chosen | own_mlps if question == "sufficiency" else ablator.everything - chosen
        estimate = bootstrap.percent(ablator.logit_diff(intact), full["logit_diff"])
        row = identity | {
            "question": question,
            "circuit": name,
            "set": "circuit" if draw < 0 else "control",
            "draw": draw,
        }
        row["components"] = " ".join(map(str, sorted(chosen)))
        controls.append(row | interval_columns(estimate))
job.log.info("%s: %d forward passes over %d prompts", w.task, ablator.evaluations, len(ablator.prompts))

provenance = job.provenance(snakemake)
artifacts.write_table(pd.DataFrame(cross), out.cross, provenance)
artifacts.write_table(pd.DataFrame(controls), out.controls, provenance)
artifacts.write_table(pd.DataFrame(notes), out.notes, provenance)
