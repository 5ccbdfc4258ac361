"""Run every node search on every planted model and write what was expected and what was found."""

from pathlib import Path

import pandas as pd
import torch

from atlas.core.errors import StudyError
from atlas.proof import certify, fixtures, trained_plants
from atlas.report import pages
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out = snakemake.input, snakemake.output

torch.set_num_threads(snakemake.threads)
rows = []
job.log.setLevel("WARNING")  # each of the hundreds of searches would say which forward pass it uses
for fixture in job.progress([*fixtures.all_fixtures(), trained_plants.trained()], "certify"):
    rows += certify.certify(fixture, Path(inputs.models) / fixture.id)
job.log.setLevel("INFO")

table = pd.DataFrame(rows)
wrong = table[~table.as_expected]
for row in wrong.itertuples():
    job.log.error("%s-%s, %s, %s: %s, not %s", row.fixture, row.family, row.method, row.kind, row.found, row.expected)
if len(wrong):
    raise StudyError(f"certify: {len(wrong)} of {len(table)} searches found something else than they must (see above)")
job.log.info("%d of %d searches as expected", table.as_expected.sum(), len(table))

artifacts.write_table(table, out.table, job.provenance(snakemake))
with artifacts.atomic(out.csv) as path:
    table.to_csv(path, index=False, float_format="%.4f")
by_method = table.groupby("method", sort=False)[["as_expected", "precision", "recall", "evaluations", "seconds"]].mean()
page = pages.page(
    title="Planted circuits: expected and found",
    lead="Every node search on models whose circuit is known by construction; docs/fixtures.md describes them.",
    short=[
        f"{len(table)} searches of {table[['fixture', 'family']].drop_duplicates().shape[0]} models, all as expected.",
        "Some fixtures defeat some methods by design: precision and recall compare with the whole planted mechanism.",
    ],
    sections=[
        pages.Section("Methods: means over all searches", table=pages.frame_table(by_method.reset_index())),
        pages.Section("All searches", table=pages.frame_table(table)),
    ],
)
artifacts.write_text(out.page, page)
