"""Evaluate on one task what its searches agree on, and what those of all main tasks do, with layer-matched controls."""

import pandas as pd

from atlas.circuit import cross
from atlas.circuit.chosen import consensus_circuits
from atlas.circuit.controls import SUMMARY_COLUMNS, summarise
from atlas.circuit.task_data import TaskData
from atlas.compare import edge_controls
from atlas.compare.edge_parts import edge_parts
from atlas.core.graph import Graph
from atlas.core.statistics import Bootstrap
from atlas.edges.task_data import edge_ablator
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
circuits, split = consensus_circuits(snakemake.input.circuits, data.task), data.report_split
ablator = data.ablator(split, cross.METRICS)
rows = cross.cross_rows(data.task, ablator, circuits, split, bootstrap, p.allow_negative_clean)
questions = [("necessity", "shared"), *(("sufficiency", name) for name in circuits if name != "shared")]
controls, notes = cross.control_rows(ablator, circuits, questions, p.controls, p.seed, bootstrap)
edges = edge_parts(snakemake.input.circuits, data.task, Graph.of(data.description))
if edges:
    of_edges = edge_ablator(data, split, cross.METRICS)
    rows += edge_controls.score_rows(of_edges, edges, split, bootstrap)
    of_some = edge_ablator(data, split, most=edge_controls.PROMPTS)
    more, more_notes = edge_controls.control_rows(of_some, edges, p.edge_controls, p.seed, bootstrap)
    controls, notes = controls + more, notes + more_notes
drawn, noted = (pd.DataFrame(made).assign(**data.identity) for made in (controls, notes))
summary = pd.DataFrame(summarise(drawn), columns=SUMMARY_COLUMNS).merge(noted, how="left")
tests = summary.drop(columns=list(data.identity))
job.save(snakemake, scores=pd.DataFrame(rows), controls=pd.DataFrame(controls), tests=tests)
