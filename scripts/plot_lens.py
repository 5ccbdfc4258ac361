"""Draw the logit lens: where the answer comes to lead along the residual stream."""

from atlas.report import style
from atlas.report.figures import lens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = (artifacts.read_tables(inputs[name]) for name in ("lens", "lens_lead", "lens_increments"))
colours = {"clean": p.clean, "circuit": p.circuit, "corrupted": p.corrupted}
style.save(lens.draw(*tables, p.main_tasks, colours), out.svg, out.png, p.dpi, job.provenance(snakemake))
