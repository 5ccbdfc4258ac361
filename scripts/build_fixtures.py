"""Build every planted model, with its prompts, and write down its truth."""

from pathlib import Path

import pandas as pd
import torch

from atlas.proof import exact, trained_plants
from atlas.proof.certify import describe
from atlas.store import artifacts, job

job.start(snakemake)
out = snakemake.output

torch.set_num_threads(snakemake.threads)
descriptions, provenance = [], job.provenance(snakemake)
for fixture in job.progress([*exact.all_fixtures(), *trained_plants.all_trained()], "fixtures"):
    folder = Path(out.models) / fixture.id
    fixture.build(folder)
    artifacts.write_table(pd.DataFrame(fixture.rows()), folder / "prompts.parquet", provenance)
    descriptions.append(describe(fixture))
    job.log.info("%s: %s", fixture.id, fixture.shows)
    if isinstance(fixture, trained_plants.TrainedFixture):
        descriptions[-1]["certificate"] = trained_plants.certified(fixture, folder)
        job.log.info("%s: shares of the effect: %s", fixture.id, descriptions[-1]["certificate"])
artifacts.write_json({"fixtures": descriptions}, out.truth, provenance)
