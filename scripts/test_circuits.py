"""Test a task's circuits: equivalent to the model, complement independent, no member that could be left out."""

import pandas as pd

from atlas.circuit import doubts
from atlas.circuit.chosen import circuit_at, consensus_circuits
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

data, bootstrap = TaskData(**job.task_data(snakemake)), Bootstrap(p.bootstrap, p.seed)
circuits = {"reported": circuit_at(inputs.chosen, p.threshold)} | consensus_circuits(inputs.circuits, data.task)
circuits.pop("shared")
ablator, split = data.ablator(data.report_split), {"split": data.report_split}
tests = doubts.rows_of(ablator, circuits, p.permutations, p.seed, bootstrap)
members = doubts.member_rows(ablator, circuits["reported"], "reported", bootstrap)
job.save(
    snakemake,
    tests=pd.DataFrame(tests, columns=list(doubts.TEST_COLUMNS)).assign(**split),
    members=pd.DataFrame(members, columns=list(doubts.MEMBER_COLUMNS)).assign(**split),
)
