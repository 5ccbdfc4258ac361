"""Write the cards of a model's heads, their attention patterns and the logit lens of a few prompts, as HTML pages."""

import pandas as pd

from atlas import artifacts, job
from atlas.plots import head_cards, lens_page, maps, pattern_page

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

tables = {
    name: artifacts.read_tables(inputs[name]) for name in ("attention", "patching", "attribution", "members", "ov")
}
effects = artifacts.read_tables(inputs.effects)
tables["effects"] = effects[(effects["kind"] == p.kind) & (effects["metric"] == "percent_of_full")]
tables["patching"] = tables["patching"][(tables["patching"]["site"] == "z") & (tables["patching"]["head"] >= 0)]
tables["attribution"] = tables["attribution"][tables["attribution"]["part"] == "head"]
tables |= {name: artifacts.read_table(inputs[name]) for name in ("roles", "detectors")}
settings = {key: p[key] for key in ("title", "main_tasks", "tasks", "labels", "k", "sequential")}
artifacts.write_text(out.heads, head_cards.page(tables, settings, w.model))

membership = artifacts.read_table(inputs.membership)
patterns = dict(zip(p.main_tasks, map(artifacts.read_json, inputs.patterns), strict=True))
circuits = {task: maps.circuit_heads(membership, task) for task in p.main_tasks}
roles = tables["roles"]
labels = {task: dict(zip(rows["component"], rows["label"], strict=True)) for task, rows in roles.groupby("task")}
title = f"{p.title}: attention patterns of {w.model}"
artifacts.write_text(out.patterns, pattern_page.page(patterns, circuits, labels, title, p.clean))

tokens, prompts = (
    dict(zip(p.main_tasks, map(artifacts.read_table, inputs[name]), strict=True)) for name in ("lens_tokens", "prompts")
)
lead = pd.concat(map(artifacts.read_table, inputs.lens_lead), ignore_index=True)
chosen = {task: [example["prompt"] for example in page["examples"]] for task, page in patterns.items()}
title = f"{p.title}: logit lens of {w.model}"
artifacts.write_text(out.lens, lens_page.page(tokens, prompts, lead, chosen, title))
