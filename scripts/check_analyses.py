"""Find out which analyses a model can be served, and refuse a study that wants others."""

from pathlib import Path

from atlas import analyses, artifacts, job, model_checks, reference, studies

job.start(snakemake)
p, name = snakemake.params, snakemake.wildcards.model

description = artifacts.read_json(snakemake.input.model)
model = studies.load_model(snakemake.input.model, p.run)
tokens = reference.sample(model_checks.read_config(name, Path(description["folder"])))[:, : analyses.LENGTH]
reasons = analyses.reasons(model, tokens)
wanted = [*([analyses.EDGES] if p.edges else []), *p.heads]
analyses.refuse(name, description["architecture"], wanted, reasons)
left_out = [analysis for analysis in (analyses.EDGES, *analyses.HEADS) if analysis not in wanted]
job.log.info("%s: %s; left out: %s", name, ", ".join(wanted) or "nodes alone", ", ".join(left_out) or "nothing")
content = {"model": name, "made": wanted, "left_out": {each: reasons.get(each) for each in left_out}}
settings = {"heads": list(p.heads), "edges": p.edges, "run": dict(p.run)}
provenance = artifacts.provenance({"model": snakemake.input.model}, settings, ("torch", "transformer_lens"))
artifacts.write_json(content, snakemake.output[0], provenance)
