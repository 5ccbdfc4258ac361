"""Evaluate a task's circuit on sequences and in wordings that no search saw, with layer-matched controls."""

import pandas as pd

from atlas.circuit import cells, unseen
from atlas.circuit.chosen import circuit_at, consensus_circuits
from atlas.circuit.remade import Maker
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.prompts import tokens
from atlas.store import job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
tokenizer = tokens.load_tokenizer(str(job.model_folder(snakemake)))
maker = Maker.of(data, p.task, tokenizer, p.prepend_bos, p.filter)
circuits = {data.task: circuit_at(inputs.chosen, p.threshold)}
circuits["shared"] = consensus_circuits(inputs.circuits, data.task)["shared"]
questions = [("sufficiency", data.task), ("necessity", data.task), ("necessity", "shared")]
found = unseen.cells(data, maker, p.wordings, p.per_template)
rows = unseen.rows_of(found, circuits, questions, p.controls, p.seed, bootstrap)
job.save(snakemake, controls=pd.DataFrame(rows, columns=list(cells.COLUMNS)))
