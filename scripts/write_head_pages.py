"""Write the cards of a model's heads, their attention patterns and the logit lens of a few prompts, as HTML pages."""

from atlas.report import head_pages
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

found = list(map(artifacts.read_json, inputs.get("patterns", [])))
patterns = dict(zip(p.main_tasks, found, strict=True)) if found else {}
for name, page in head_pages.written(artifacts.named_tables(inputs), patterns, p, w.model).items():
    artifacts.write_text(out[name], page)
