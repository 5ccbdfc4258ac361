"""Let the model go on with prompts while heads are ablated: the circuits', and random ones beside them."""

import pandas as pd
import torch

from atlas.circuit import studies
from atlas.circuit.chosen import chosen_circuits
from atlas.circuit.controls import matched_sets
from atlas.core.statistics import Bootstrap
from atlas.generate import prompts as generation_prompts
from atlas.generate.decoding import Generator
from atlas.generate.scores import head_sets, mark_sensitive, summarise
from atlas.model import activations
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

description = artifacts.read_json(inputs.model)
model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
tokenizer = tokens.load_tokenizer(str(job.model_folder(snakemake)))
end, generator = tokenizer.eos_token_id, Generator(model)

# ---- heads ---------------------------------------------------------------------------------------------------
circuits = chosen_circuits(inputs.circuits)
sets = head_sets(circuits, p.sets, p.own, model.n_layers, model.n_heads)
drawn, notes, listed = {}, {}, []
for name, heads in sets.items():
    controls, notes[name] = matched_sets(heads, model.n_layers, model.n_heads, p.controls, p.seed, outside=True)
    drawn[name] = {-1: heads} | dict(enumerate(controls))
    for draw, chosen in drawn[name].items():
        named = " ".join(map(str, sorted(chosen)))
        listed.append({"heads": name, "draw": draw, "components": named, "note": notes[name]})
distinct = list(dict.fromkeys(heads for draws in drawn.values() for heads in draws.values()))
job.log.info("%d head sets with their controls, %d of them different", len(listed), len(distinct))


# ---- prompts and what is written -----------------------------------------------------------------------------
def written(group: list[dict], sets: list, means=None) -> dict:
    """(heads, prompt) -> (right, ids written), for prompts of one length, each with each set of heads."""
    steps = max(len(row["answer_tokens"]) for row in group)
    texts = torch.tensor([row["tokens"] for row in group]).repeat(len(sets), 1)
    each = [heads for heads in sets for _ in group]
    found = {}
    for i, ids in enumerate(generator.generate(texts, steps, each, means, end).tolist()):
        row = group[i % len(group)]
        ids = ids[: len(row["answer_tokens"])]
        found[each[i], row["prompt"]] = ids == row["answer_tokens"], ids
    return found


prompts, outputs = [], []
for name, block in p.prompts.items():
    pairs, corrupted = generation_prompts.make_set(name, block, p.per_text, p.seed)
    rows = generation_prompts.encode_set(name, pairs, tokenizer, p.prepend_bos, description["max_tokens"])
    lengths = sorted({len(row["tokens"]) for row in rows if row["status"] == "used"})
    for length in job.progress(lengths, name):
        group = [row for row in rows if row["status"] == "used" and len(row["tokens"]) == length]
        for (_, prompt), (right, ids) in written(group, [frozenset()]).items():
            row = rows[prompt]
            row |= {"output": generation_prompts.text_after(tokenizer, row["tokens"], ids, end), "output_tokens": ids}
            if not right:
                row |= {"status": "failed", "reason": "the unablated model gives another answer"}
        group = [row for row in group if row["status"] == "used"]
        if not group:
            continue
        means = None
        if p.kind == "mean":
            texts = generation_prompts.corrupted_of_length(name, corrupted, tokenizer, p.prepend_bos, length)
            means = activations.collect(model, torch.tensor(texts))[1]["z"][:, 0]
        found = written(group, distinct, means)
        for heads_name, draws in drawn.items():
            for draw, heads in draws.items():
                for row in group:
                    right, ids = found[heads, row["prompt"]]
                    text = generation_prompts.text_after(tokenizer, row["tokens"], ids, end)
                    cells = {"set": name, "prompt": row["prompt"], "heads": heads_name, "draw": draw}
                    outputs.append(cells | {"right": right, "output": text, "output_tokens": ids})
    prompts += rows
    counts = {status: sum(row["status"] == status for row in rows) for status in generation_prompts.STATUS}
    job.log.info("%s: %s", name, counts)

prompts = pd.DataFrame(prompts)
columns = ["set", "prompt", "heads", "draw", "right", "output", "output_tokens"]
outputs = pd.DataFrame(outputs, columns=columns)
outputs["sensitive"] = mark_sensitive(outputs)
summary = summarise(outputs, prompts, notes, Bootstrap(p.bootstrap, p.seed))

provenance = job.provenance(snakemake)
for table, path in (
    (prompts, out.prompts),
    (pd.DataFrame(listed), out.heads),
    (outputs, out.outputs),
    (summary, out.summary),
):
    table.insert(0, "model", w.model)
    artifacts.write_table(table, path, provenance)
