"""Write what a look at the data of a model's tasks shows: a page, a table, and a digest for the terminal."""

import pandas as pd

from atlas.core.statistics import Bootstrap
from atlas.prompts import clean_scores
from atlas.report import data_check, data_page, pages
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

bootstrap, looks, tokens = Bootstrap(p.bootstrap, p.seed), [], {}
files = (inputs.prompts, inputs.info, inputs.rejected, inputs.tokens, inputs.clean)
for (task, settings), (prompts, info, rejected, token_table, clean) in zip(
    p.tasks.items(), zip(*files, strict=True), strict=True
):
    data = data_check.TaskData(
        task=task,
        prompts=clean_scores.with_scores(artifacts.read_table(prompts), artifacts.read_table(clean)),
        info=artifacts.read_json(info),
        rejected=artifacts.read_table(rejected),
        settings=settings | {"groups": p.groups},
        bootstrap=bootstrap,
    )
    looks.append(data_check.look(data))
    tokens[task] = artifacts.read_table(token_table)

tables = [data_check.data_table(found).assign(model=w.model, task=found.data.task) for found in looks]
table = pd.concat(tables, ignore_index=True)[["model", "task", *data_check.COLUMNS]]
artifacts.write_table(table, out.table, job.provenance(snakemake))
digest = data_check.digest(looks)
artifacts.write_text(out.digest, f"{w.model}\n{digest}")
title, warning = f"{p.title}: data of {w.model}", pages.warning(artifacts.read_json(inputs.model))
artifacts.write_text(out.page, data_page.page(looks, tokens, title, warning, p.main_tasks))
