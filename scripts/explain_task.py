"""Explain a task by what can be patched, by what writes the answer, and by where the answer appears."""

import pandas as pd

from atlas.circuit import studies
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.heads import attribution, lens, patching
from atlas.prompts import layouts, tokens
from atlas.prompts.batch import Prompts
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
layout = artifacts.read_json(inputs.layout)["layout"]
frame = studies.read_prompts(inputs.prompts, inputs.clean, studies.report_split(inputs.prompts, inputs.clean))
frame = layouts.of_one(frame)
prompts, bootstrap = Prompts.from_frame(frame), Bootstrap(p.bootstrap, p.seed)
some = Prompts.from_frame(patching.spread(frame, p.patching_prompts))
job.log.info("%s: %d prompts, %d of them patched", w.task, len(prompts), len(some))

tables = {}
if out.get("patching"):
    names = patching.roles(layout, p.prepend_bos)
    try:
        patched = patching.patching_rows(patching.patch_all(model, some), names, bootstrap, p.allow_negative_clean)
    except StudyError as error:
        raise StudyError(f"tasks.{w.task}: {error}") from None
    tables["patching"] = patched, patching.COLUMNS
if out.get("attribution"):
    attributed = attribution.attribution_rows(attribution.attribute(model, prompts), bootstrap)
    tables["attribution"] = attributed, attribution.COLUMNS
if out.get("lens"):
    lenses = lens.read_lenses(model, prompts, p.lens_tokens)
    members = lens.earlier_members(prompts, layout["member_positions"])
    decode = tokens.load_tokenizer(str(job.model_folder(snakemake))).decode
    increments = lens.increment_rows(lenses, prompts.answer, members, bootstrap)
    tables |= {
        "lens": (lens.lens_rows(lenses, bootstrap), lens.COLUMNS),
        "lens_tokens": (lens.token_rows(lenses["norm"], prompts.prompt, decode), lens.TOKEN_COLUMNS),
        "lens_lead": (lens.lead_rows(lenses["norm"], prompts.prompt), lens.LEAD_COLUMNS),
        "lens_increments": (increments, lens.INCREMENT_COLUMNS),
    }

provenance = job.provenance(snakemake)
for name, (rows, columns) in tables.items():
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "model", w.model)
    table.insert(1, "task", w.task)
    artifacts.write_table(table, out[name], provenance)
