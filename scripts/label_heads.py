"""Gather what is known of every head of a circuit on every task, and label it by stated thresholds."""

import pandas as pd

from atlas.circuit import chosen as comparison
from atlas.core import components
from atlas.heads import labels as roles
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

circuits = comparison.chosen_circuits(inputs.circuits)
heads = components.heads(circuits.pop("union"))
del circuits["shared"]
of_model = {"detectors": artifacts.read_table(inputs.detectors)} if inputs.get("detectors") else {}
effects = dict(zip(p.main_tasks, inputs.effects, strict=True))

pieces = []
for i, task in enumerate(p.tasks):
    tables = {name: artifacts.read_table(inputs[name][i]) for name in p.tables} | of_model
    if task in effects:
        table = artifacts.read_table(effects[task])
        tables["component_effects"] = table[table.kind == p.kind]
    found = roles.labelled(roles.evidence(heads, tables, p.k), p.labels)
    found.insert(0, "model", w.model)
    found.insert(1, "task", task)
    found.insert(5, "circuits", [", ".join(name for name, c in circuits.items() if head in c) for head in heads])
    pieces.append(found)
table = roles.compared(pd.concat(pieces, ignore_index=True))
for task, labels in table.groupby("task", sort=False).label:
    job.log.info("%s: %s", task, ", ".join(f"{n} {label}" for label, n in labels.value_counts().items()))

provenance = job.provenance(snakemake)
artifacts.write_table(table, out.roles, provenance)
