"""Gather the prompts of all tasks: jobs that compare tasks read two files, however many tasks a study has.

Of a task of several layouts they read the prompts of the most common one, whose places of members are known.
"""

import pandas as pd

from atlas.prompts import layouts
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, w = snakemake.input, snakemake.output, snakemake.wildcards

columns = ["model", "task", "prompt", "members", "answer", "tokens", "answer_token"]
prompts = pd.concat([layouts.of_one(artifacts.read_table(path)) for path in inputs.prompts], ignore_index=True)[columns]
layout_of = {content["task"]: content["layout"] for content in map(artifacts.read_json, inputs.summaries)}

provenance = job.provenance(snakemake)
artifacts.write_table(prompts, out.prompts, provenance)
artifacts.write_json({"model": w.model, "layouts": layout_of}, out.layouts, provenance)
