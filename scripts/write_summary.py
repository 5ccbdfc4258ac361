"""Write the findings of a model, and the tables they rest on, as HTML pages."""

from atlas import artifacts, job, summary
from atlas.plots import pages

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = {name: artifacts.read_tables(inputs[name]) for name in ("prompts", "clean", "faithfulness", "survival")}
tables |= {name: artifacts.read_table(inputs[name]) for name in ("membership", "overlap", "cross", "controls_summary")}
info = {content["task"]: content for content in map(artifacts.read_json, inputs.info)}
model = artifacts.read_json(inputs.model)
settings = {key: value for key, value in p.items() if key != "code"}
sources = artifacts.provenance({str(path): path for path in inputs})

artifacts.write_text(out.summary, summary.summary_page(tables, info, model, settings, sources))
shown = ("clean", "faithfulness", "overlap", "cross", "controls_summary")
title = f"{p.title}: tables of {model['model']}"
artifacts.write_text(out.tables, pages.tables_page({name: tables[name] for name in shown}, title))
