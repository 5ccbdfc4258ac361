"""Build every planted model, with its prompts, and write down its truth."""

from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

from atlas.core.errors import StudyError
from atlas.proof import fixtures, trained_plants
from atlas.proof.certify import describe
from atlas.store import artifacts, job

job.start(snakemake)
out = snakemake.output

torch.set_num_threads(snakemake.threads)
descriptions, provenance = [], job.provenance(snakemake)
trained = trained_plants.trained()
for fixture in job.progress([*fixtures.all_fixtures(), trained], "fixtures"):
    folder = Path(out.models) / fixture.id
    fixture.build(folder)
    artifacts.write_table(pd.DataFrame(fixture.rows()), folder / "prompts.parquet", provenance)
    descriptions.append(describe(fixture))
    job.log.info("%s: %s", fixture.id, fixture.shows)

model = AutoModelForCausalLM.from_pretrained(Path(out.models) / trained.id).eval()
certificate = trained_plants.certificate(model, trained.nodes["resample"])
descriptions[-1]["certificate"] = certificate
job.log.info("%s: share of the effect outside the planted nodes: %s", trained.id, certificate)
share = certificate["resample"]["outside"]
if share > trained_plants.SHARE_ALLOWED:
    raise StudyError(f"{trained.id}: {share:.2%} of the effect lies outside the planted nodes; train it longer")
artifacts.write_json({"fixtures": descriptions}, out.truth, provenance)
