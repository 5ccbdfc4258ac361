"""Write the cards of a model's heads, their attention patterns and the logit lens of a few prompts, as HTML pages."""

import pandas as pd

from atlas.report import head_cards, lens_page, maps, pattern_page
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

tables = {  # what the study leaves out has no rows
    name: artifacts.read_tables(inputs[name]) if inputs.get(name) else pd.DataFrame(columns=["task", *columns])
    for name, columns in head_cards.OF_TASKS.items()
}
tables["members"] = tables.pop("attention_members")
effects = artifacts.read_tables(inputs.effects)
tables["effects"] = effects[(effects["kind"] == p.kind) & (effects["metric"] == "percent_of_full")]
tables["patching"] = tables["patching"][(tables["patching"]["site"] == "z") & (tables["patching"]["head"] >= 0)]
tables["attribution"] = tables["attribution"][tables["attribution"]["part"] == "head"]
tables["roles"] = artifacts.read_table(inputs.roles)
tables["detectors"] = (
    artifacts.read_table(inputs.detectors) if inputs.get("detectors") else pd.DataFrame(columns=head_cards.DETECTORS)
)
settings = {key: p[key] for key in ("title", "main_tasks", "tasks", "labels", "k", "sequential")}
artifacts.write_text(out.heads, head_cards.page(tables, settings, w.model))

shown = {}  # task -> the prompts that both pages show
if out.get("patterns"):
    membership = artifacts.read_table(inputs.membership)
    patterns = dict(zip(p.main_tasks, map(artifacts.read_json, inputs.patterns), strict=True))
    circuits = {task: maps.circuit_heads(membership, task) for task in p.main_tasks}
    roles = tables["roles"]
    labels = {task: dict(zip(rows["component"], rows["label"], strict=True)) for task, rows in roles.groupby("task")}
    title = f"{p.title}: attention patterns of {w.model}"
    artifacts.write_text(out.patterns, pattern_page.page(patterns, circuits, labels, title, p.clean))
    shown = {task: [example["prompt"] for example in page["examples"]] for task, page in patterns.items()}

if out.get("lens_tokens"):
    tokens, prompts = (
        dict(zip(p.main_tasks, map(artifacts.read_table, inputs[name]), strict=True))
        for name in ("lens_tokens", "prompts")
    )
    lead = pd.concat(map(artifacts.read_table, inputs.lens_lead), ignore_index=True)
    shown = shown or {task: sorted(set(rows["prompt"]))[: p.pattern_prompts] for task, rows in tokens.items()}
    title = f"{p.title}: logit lens of {w.model}"
    artifacts.write_text(out.lens_tokens, lens_page.page(tokens, prompts, lead, shown, title))
