"""Gather the prompts of all tasks: jobs that compare tasks read two files, however many tasks a study has."""

from atlas import artifacts, job

job.start(snakemake)
inputs, out, w = snakemake.input, snakemake.output, snakemake.wildcards

columns = ["model", "task", "prompt", "members", "answer", "tokens", "answer_token"]
prompts = artifacts.read_tables(inputs.prompts)[columns]
layouts = {content["task"]: content["layout"] for content in map(artifacts.read_json, inputs.summaries)}

provenance = job.provenance(snakemake)
artifacts.write_table(prompts, out.prompts, provenance)
artifacts.write_json({"model": w.model, "layouts": layouts}, out.layouts, provenance)
