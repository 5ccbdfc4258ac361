"""Run every node search on every planted model and write what was expected and what was found."""

from pathlib import Path

import pandas as pd
import torch

from atlas.proof import certify, exact, page, trained_plants
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out = snakemake.input, snakemake.output

torch.set_num_threads(snakemake.threads)
rows = []
job.log.setLevel("WARNING")  # each of the hundreds of searches would say which forward pass it uses
for fixture in job.progress([*exact.all_fixtures(), *trained_plants.all_trained()], "certify"):
    rows += certify.certify(fixture, Path(inputs.models) / fixture.id)
job.log.setLevel("INFO")
table = pd.DataFrame(rows)
certify.refuse_unexpected(table)
job.log.info("%d of %d searches as expected", table.as_expected.sum(), len(table))

artifacts.write_table(table, out.table, job.provenance(snakemake))
with artifacts.atomic(out.csv) as path:
    table.to_csv(path, index=False, float_format="%.4f")
artifacts.write_text(out.page, page.certificate(table))
