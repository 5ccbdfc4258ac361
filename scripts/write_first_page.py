"""Write the atlas page of one task, as soon as its circuit is chosen."""

from atlas.report.atlas import first, study
from atlas.report.atlas.tables import Inputs
from atlas.report.shown import MAIN, TASK
from atlas.store import artifacts, job

job.start(snakemake)
p, w = snakemake.params, snakemake.wildcards

files = {name: [path] for name, path in snakemake.input.items()}
found = Inputs(files, [w.model], {TASK: [p.task], MAIN: [p.task]})
artifacts.write_text(snakemake.output.page, first.page(w.model, found, job.settings(snakemake, study.Settings)))
