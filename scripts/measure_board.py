"""Run every method on one part of the leaderboard: planted models, or a task of a model; costs in a table apart."""

from pathlib import Path

import pandas as pd
import torch

from atlas.proof import board, board_models, exact, trained_plants
from atlas.store import artifacts, job, sources

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

torch.set_num_threads(1)  # sums depend on how they are divided
job.log.setLevel("WARNING")  # each of the hundreds of searches would say which forward pass it uses
board.log.setLevel("INFO")  # what takes long is told nevertheless
if p.tried:
    cases = board_models.cases_of_task(**p.tried, root=sources.ROOT)
else:
    fixtures = [f for f in exact.all_fixtures() if p.part == f"planted-{f.family}"]
    fixtures = trained_plants.all_trained() if p.part == "trained" else fixtures
    cases = (case for f in fixtures for case in board.cases_of(f, Path(inputs.models) / f.id))
rows, costs = [], []
for case in job.progress(cases, "leaderboard"):
    found, took = board.measure(case)
    rows += found
    costs += took
job.log.setLevel("INFO")
job.log.info("%d rows of %d runs", len(rows), len(costs))
provenance = job.provenance(snakemake)
artifacts.write_table(pd.DataFrame(rows), out.table, provenance)
artifacts.write_table(pd.DataFrame(costs), out.cost, provenance)
