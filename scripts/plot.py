"""Draw the figures, and write the pages, that a rule of rules/figures.smk shows."""

from atlas.report import drawing
from atlas.store import job

job.start(snakemake)
inputs, p, w = snakemake.input, snakemake.params, snakemake.wildcards

files = list(snakemake.output)
tables = {name: drawing.read(paths) for name, paths in inputs.items()}
settings = {name: value for name, value in p.items() if name not in ("code", "dpi")}
given = drawing.arguments(tables, settings, {name: value for name, value in w.items() if name != "model"})
modules = [drawing.module_of(drawing.name_of(file)).__file__ for file in files]
drawing.draw(files, given, p.dpi, job.provenance(snakemake, *modules))
