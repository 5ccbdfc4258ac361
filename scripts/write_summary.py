"""Write the findings of a model, and the tables they rest on, as HTML pages."""

from atlas.report import pages, summary
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

of_tasks = ("prompts", "clean", "faithfulness", "evaluation", "completeness", "minimality", "positions")
of_tasks += ("stability_summary", *(name for name in ("edge_areas", "edge_scores") if inputs.get(name)))
of_model, unlisted = ("membership", "overlap", "typology", "cross", "controls_summary"), ()
if inputs.get("roles"):  # what heads do
    of_tasks += tuple(name for name in ("attribution", "lens", "lens_increments") if inputs.get(name))
    of_model += ("detectors", "roles") if inputs.get("detectors") else ("roles",)
    unlisted = tuple(name for name in ("patching", "lens_lead", "backup") if inputs.get(name))  # long; in figures
of_model += ("generation",) if inputs.get("generation") else ()
of_model += ("published",) if inputs.get("published") else ()
tables = {name: artifacts.read_tables(inputs[name]) for name in (*of_tasks, *unlisted)}
tables |= {name: artifacts.read_table(inputs[name]) for name in of_model}
info = {content["task"]: content for content in map(artifacts.read_json, inputs.info)}
circuits = {content["task"]: content for content in map(artifacts.read_json, inputs.get("edge_circuits", []))}
model = artifacts.read_json(inputs.model)
tables["left_out"] = artifacts.read_json(inputs.analyses)["left_out"]
settings = {key: value for key, value in p.items() if key != "code"}
sources = job.provenance(snakemake)

artifacts.write_text(out.summary, summary.summary_page(tables, info, circuits, model, settings, sources))
if "edge_scores" in tables:
    tables["edge_scores"] = pages.strongest_edges(tables["edge_scores"])
shown = [name for name in (*of_tasks, *of_model) if name not in ("prompts", "membership")]
title = f"{p.title}: tables of {model['model']}"
artifacts.write_text(out.tables, pages.tables_page({name: tables[name] for name in shown}, title, pages.warning(model)))
