"""Evaluate every main circuit, and what they share, on one task, with layer-matched random controls."""

import pandas as pd

from atlas.circuit import cross
from atlas.circuit.chosen import chosen_circuits
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
circuits, split = chosen_circuits(snakemake.input.circuits), data.report_split
ablator = data.ablator(split, cross.METRICS)
rows = cross.cross_rows(data.task, ablator, circuits, split, bootstrap, p.allow_negative_clean)
questions = cross.questions_of(data.task, circuits)
controls, notes = cross.control_rows(ablator, circuits, questions, p.controls, p.seed, bootstrap)
job.save(snakemake, cross=pd.DataFrame(rows), controls=pd.DataFrame(controls), notes=pd.DataFrame(notes))
