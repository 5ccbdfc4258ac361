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
descriptions, provenance, trained = [], job.provenance(snakemake), trained_plants.trained()
for fixture in job.progress([*exact.all_fixtures(), trained], "fixtures"):
    folder = Path(out.models) / fixture.id
    fixture.build(folder)
    artifacts.write_table(pd.DataFrame(fixture.rows()), folder / "prompts.parquet", provenance)
    descriptions.append(describe(fixture))
    job.log.info("%s: %s", fixture.id, fixture.shows)
descriptions[-1]["certificate"] = trained_plants.certified(trained, Path(out.models) / trained.id)
job.log.info("%s: share of the effect outside the planted nodes: %s", trained.id, descriptions[-1]["certificate"])
artifacts.write_json({"fixtures": descriptions}, out.truth, provenance)
