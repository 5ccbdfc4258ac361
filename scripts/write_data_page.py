"""Write what a look at the data of a model's tasks shows: a page, a table, and a digest for the terminal."""

from atlas.core.statistics import Bootstrap
from atlas.prompts.clean_scores import with_scores
from atlas.report import data_check, data_page, pages
from atlas.report.data_tables import TaskPrompts
from atlas.store import artifacts, job
from atlas.store.artifacts import read_json, read_table

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

looks, bootstrap = [], Bootstrap(p.bootstrap, p.seed)
files = zip(inputs.prompts, inputs.clean, inputs.info, inputs.rejected, strict=True)
for (task, settings), (prompts, clean, info, rejected) in zip(p.tasks.items(), files, strict=True):
    scored = with_scores(read_table(prompts), read_table(clean))
    about = settings | {"groups": p.groups}
    looks.append(data_check.look(TaskPrompts(task, scored, read_json(info), read_table(rejected), about, bootstrap)))
tokens = dict(zip(p.tasks, map(read_table, inputs.tokens), strict=True))

artifacts.write_table(data_check.tables(looks, w.model), out.table, job.provenance(snakemake))
artifacts.write_text(out.digest, f"{w.model}\n{data_check.digest(looks)}")
title, warning = f"{p.title}: data of {w.model}", pages.warning(read_json(inputs.model))
artifacts.write_text(out.page, data_page.page(looks, tokens, title, warning, p.main_tasks))
