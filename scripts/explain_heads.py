"""Explain the heads of a model on one task: where they attend, what they write, and which ones back up which."""

import numpy as np
import pandas as pd
import torch

from atlas.circuit import chosen as comparison
from atlas.circuit import studies
from atlas.circuit.ablation import replacement
from atlas.core import components
from atlas.core.statistics import Bootstrap
from atlas.heads import attention, backup, ov, patching
from atlas.prompts import layouts, tokens
from atlas.prompts.batch import Prompts
from atlas.prompts.words import words_in_place
from atlas.store import artifacts, job, tensors

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
tokenizer = tokens.load_tokenizer(str(job.model_folder(snakemake)))
all_prompts, layout_of = artifacts.read_table(inputs.all_prompts), artifacts.read_json(inputs.all_layouts)["layouts"]
every = {task: all_prompts[all_prompts.task == task].reset_index(drop=True) for task in p.tasks}
layout = attention.Layout.of(layout_of[w.task], p.prepend_bos)
every_prompt = studies.read_prompts(inputs.prompts, inputs.clean, studies.report_split(inputs.prompts, inputs.clean))
frame = layouts.of_one(every_prompt)
means = tensors.read(inputs.means)
prompts, bootstrap, notes = Prompts.from_frame(frame, means["groups"]), Bootstrap(p.bootstrap, p.seed), {}
circuits = comparison.chosen_circuits(inputs.circuits)
heads = components.heads(circuits["union"])
if len(frame) < len(every_prompt):
    notes["prompts"] = f"the {len(frame)} of {len(every_prompt)} prompts that have the most common layout"
others = {task: table for task, table in every.items() if task != w.task}

tables = {}

# ---- attention ---------------------------------------------------------------------------------------------------
if out.get("attention"):
    variants = {"in order": prompts.tokens}
    if len(layout.members) < 2:
        notes["variants"] = "the places of two members or more are not known"
    else:
        variants["shuffled"] = attention.shuffled(prompts.tokens, layout, p.seed)
        found = attention.partner(frame, layout, others)
        if found:
            other, rows, mixed_in = found
            notes["interleaved"] = f"with the members of {other}, on {len(rows)} of {len(frame)} prompts"
            variants["interleaved"] = attention.interleaved(prompts.tokens[rows], mixed_in, layout)
        else:
            notes["interleaved"] = "not made: no other task has the same layout and fillers and other members"
        ids = words_in_place(tokenizer, frame, layout.members, p.random_words)
        if ids.shape[-1] < len(layout.members):
            notes["words"] = f"not made: {ids.shape[-1]} of `random_words` are one token and no member"
        else:
            variants["words"] = attention.words(prompts.tokens, ids, layout, p.seed)
    roles, statistics = [], []
    for variant, changed in variants.items():
        weights = attention.weights(model, changed, layout)
        by_role = attention.role_table(weights, bootstrap)
        of_members = attention.statistic_table(weights, bootstrap, variant == "interleaved")
        for table, pieces in ((by_role, roles), (of_members, statistics)):
            table.insert(0, "variant", variant)
            pieces.append(table)

    few = patching.spread(frame, p.pattern_prompts)
    patterns = attention.patterns(model, torch.tensor(np.stack(few.tokens.to_list())), heads)
    examples = [
        {
            "prompt": int(row.prompt),
            "tokens": [tokenizer.decode([token]) for token in row.tokens],
            "patterns": {  # a row ends at its own position
                head: [[round(x, 3) for x in line[: q + 1]] for q, line in enumerate(pattern[i].tolist())]
                for head, pattern in patterns.items()
            },
        }
        for i, row in enumerate(few.itertuples())
    ]
    tables["attention"] = pd.concat(roles, ignore_index=True)
    tables["attention_members"] = pd.concat(statistics, ignore_index=True)

# ---- OV scores ---------------------------------------------------------------------------------------------------
if out.get("ov"):
    scores = [pd.DataFrame(columns=ov.COLUMNS)]
    if layout.members:
        known = ov.ids_of_words(every[w.task], layout)
        targets = ov.task_targets(ov.successors(every[w.task], layout), known.values())
        if w.task in p.members:
            # tasks may have the same members
            first = {tuple(words): task for task, words in reversed(p.members.items())}
            for words, task in reversed(first.items()):
                ids = ov.ids_of_words(every[task], attention.Layout.of(layout_of[task], p.prepend_bos))
                target = ov.cross_target(p.members[w.task], known, list(words), ids)
                if target:
                    targets[f"cross:{task}"] = target
        for norm in ov.norms_of(p.norms, model.n_layers):
            found = ov.scores(model, prompts.tokens, layout, targets, p.k, norm, frame.answer_token.to_list())
            scores.append(ov.table(found, norm, bootstrap))
    else:
        notes["ov"] = "not scored: the places of members are not known"
    tables["ov"] = pd.concat([table for table in scores if len(table)] or scores, ignore_index=True)

# ---- backup heads ------------------------------------------------------------------------------------------------
if out.get("backup"):
    cache = tensors.read(inputs.activations) if p.kind == "resample" else None
    substitute = replacement(p.kind, model, prompts, means, cache)
    tables["backup"] = backup.table(*backup.before_and_after(model, prompts, substitute, heads), bootstrap)
job.log.info("%s: %d prompts, %d heads of circuits; %s", w.task, len(frame), len(heads), notes)

provenance = job.provenance(snakemake)
for name, table in tables.items():
    table.insert(0, "model", w.model)
    table.insert(1, "task", w.task)
    artifacts.write_table(table, out[name], provenance)
if out.get("patterns"):
    page = {"model": w.model, "task": w.task, "heads": list(map(str, heads)), "notes": notes, "examples": examples}
    artifacts.write_json(page, out.patterns, provenance)
