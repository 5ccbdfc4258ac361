"""Evaluate on one task what its searches agree on, and what those of all main tasks do, with layer-matched controls."""

import pandas as pd

from atlas.circuit import cross
from atlas.circuit.chosen import consensus_circuits
from atlas.circuit.controls import SUMMARY_COLUMNS, summarise
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
circuits, split = consensus_circuits(snakemake.input.circuits, data.task), data.report_split
ablator = data.ablator(split, cross.METRICS)
rows = cross.cross_rows(data.task, ablator, circuits, split, bootstrap, p.allow_negative_clean)
questions = [("necessity", "shared"), *(("sufficiency", name) for name in circuits if name != "shared")]
controls, notes = cross.control_rows(ablator, circuits, questions, p.controls, p.seed, bootstrap)
drawn, noted = (pd.DataFrame(made).assign(**data.identity) for made in (controls, notes))
summary = pd.DataFrame(summarise(drawn), columns=SUMMARY_COLUMNS).merge(noted, how="left")
tests = summary.drop(columns=list(data.identity))
job.save(snakemake, scores=pd.DataFrame(rows), controls=pd.DataFrame(controls), tests=tests)
