"""Make the prompts of a task and align them on the model's tokenizer."""

import pandas as pd

from atlas import artifacts, job, prompt_files, tasks, tokens
from atlas.errors import StudyError

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params
name, block = snakemake.wildcards.task, p.task

model = artifacts.read_json(inputs.model)
tokenizer = tokens.load_tokenizer(model["folder"])
dropped = {}
if "file" in block:
    rows = prompt_files.prompts_from_file(name, block["file"], p.root, block["held_out_share"])
else:
    usable = {kind: tokens.single_token_fillers(tokenizer, words) for kind, words in block["fillers"].items()}
    dropped = {kind: [w for w in block["fillers"][kind] if w not in usable[kind]] for kind in usable}
    task = tasks.Task.from_config(name, block | {"fillers": usable})
    tokens.check_members(tokenizer, name, task.members)
    rows = tasks.make_prompts(task)

encoded = tokens.encode_prompts(rows, tokenizer, p.prepend_bos, name)
limit = model["max_tokens"]
if limit and encoded.layout["tokens"] > limit:
    raise StudyError(
        f"tasks.{name}: prompts have {encoded.layout['tokens']} tokens, the model takes {limit}; show fewer members"
    )
frame = pd.DataFrame(encoded.rows)
frame.insert(0, "model", snakemake.wildcards.model)
frame.insert(1, "task", name)
counts = {
    "prompts": len(frame),
    "search": int((frame.split == "search").sum()),
    "held_out": int((frame.split == "held_out").sum()),
    "rejected": dict(encoded.rejected),
}
if not counts["search"]:
    raise StudyError(f"tasks.{name}: no prompts to search on; lower held_out_share or make more prompts")
job.log.info("%s: %s; layout %s; dropped fillers %s", name, counts, encoded.layout, dropped)
provenance = artifacts.provenance(
    {"model": inputs.model}, {"task": block, "prepend_bos": p.prepend_bos}, ("transformers",)
)
artifacts.write_table(frame, out.prompts, provenance)
summary = {
    "task": name,
    "layout": encoded.layout,
    "counts": counts,
    "dropped_fillers": dropped,
    "seed": block["seed"],
    "filler_seed": block["filler_seed"],
    "tokenizer": model["tokenizer"],
}
artifacts.write_json(summary, out.summary, provenance)
