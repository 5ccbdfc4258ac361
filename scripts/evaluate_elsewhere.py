"""Ablate and keep the circuits of other tasks on one task; on an unrelated one beside layer-matched random sets."""

import pandas as pd

from atlas.circuit import cross
from atlas.circuit.chosen import chosen_circuits, consensus_circuits
from atlas.circuit.evaluation import refuse_no_effect
from atlas.circuit.task_data import TaskData
from atlas.core.components import EMPTY
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
circuits = {name: chosen for name, chosen in chosen_circuits(inputs.circuits).items() if name in p.main_tasks}
circuits["shared"] = consensus_circuits(inputs.consensus, data.task)["shared"]
ablator = data.ablator(data.report_split)
full, empty = (ablator.logit_diff(c) for c in (ablator.everything, EMPTY))
refuse_no_effect(data.task, full, empty, p.allow_negative_clean)
others = [name for name in circuits if name != data.task and not (name == "shared" and data.task in p.main_tasks)]
questions = [("necessity", name) for name in others] + [("sufficiency", name) for name in others if name != "shared"]
rows, _ = cross.control_rows(ablator, circuits, questions, p.controls, p.seed, bootstrap)
job.save(snakemake, controls=pd.DataFrame(rows, columns=list(cross.CONTROL_COLUMNS)))
