"""Make the prompts of a task and align them on the model's tokenizer."""

import pandas as pd

from atlas.core.positions import Layout
from atlas.prompts import rejected, splits, token_table, tokens
from atlas.prompts.making import prompts_of
from atlas.store import artifacts, job, sources

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params
name, block = snakemake.wildcards.task, job.task_block(snakemake)

model = artifacts.read_json(inputs.model)
folder = str(job.model_folder(snakemake))
tokenizer = tokens.load_tokenizer(folder)
encoded, dropped = prompts_of(name, block, tokenizer, p.prepend_bos, model["max_tokens"], sources.ROOT)
frame = pd.DataFrame(encoded.rows)
frame.insert(0, "model", snakemake.wildcards.model)
frame.insert(1, "task", name)
counts = {"read": len(frame) + encoded.rejected.total()} | splits.counts(encoded.rows)
counts |= {"rejected": dict(encoded.rejected)}
hold_out = splits.chosen_for(encoded.rows, block["hold_out"], block["held_out_share"])
job.log.info("%s: %s; held out: %s; layouts %s; dropped fillers %s", name, counts, hold_out, encoded.layouts, dropped)
searched_only = splits.undivided(encoded.rows, hold_out) if hold_out else []
if searched_only:
    text = "%s: %d strata are searched on alone, being too small to divide or tied to others, e.g. %s"
    job.log.warning(text, name, len(searched_only), searched_only[0])
if counts["duplicates"]:
    job.log.warning("%s: %d prompts repeat another; each stays on its side", name, counts["duplicates"])
provenance = job.provenance(snakemake)
artifacts.write_table(frame, out.prompts, provenance)
table = [
    row
    for number, layout in enumerate(encoded.layouts)
    for row in token_table.rows(
        [prompt for prompt in encoded.rows if prompt["layout"] == number], Layout.of(layout), tokenizer
    )
]
identity = {"model": snakemake.wildcards.model, "task": name}
columns = [*identity, *token_table.COLUMNS]
artifacts.write_table(pd.DataFrame([identity | row for row in table], columns=columns), out.tokens, provenance)
left_out = rejected.rejected_table(encoded.rejected_rows, tokenizer)
artifacts.write_table(left_out.assign(**identity)[[*identity, *rejected.COLUMNS]], out.rejected, provenance)
slow = token_table.compare_with_slow(folder, tokenizer, frame.text.tolist() + frame.corrupted_text.tolist())
if slow and slow["different"]:
    text = "%s: the fast tokenizer splits %d of %d texts unlike tokenizer.model, e.g. %r"
    job.log.warning(text, name, slow["different"], slow["compared"], slow["example"])
summary = {
    "task": name,
    "layout": encoded.layout,
    "layouts": encoded.layouts,
    "counts": counts | {"undivided": len(searched_only)},
    "hold_out": hold_out,
    "dropped_fillers": dropped,
    "seed": block["seed"],
    "filler_seed": block["filler_seed"],
    "tokenizer": model["tokenizer"],
    "slow_tokenizer": slow,
}
artifacts.write_json(summary, out.summary, provenance)
