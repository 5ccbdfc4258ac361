"""Draw the logit lens: where the answer comes to lead along the residual stream."""

from atlas import artifacts, job
from atlas.plots import lens, style

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

tables = (artifacts.read_tables(inputs[name]) for name in ("lens", "lens_lead", "lens_increments"))
colours = {"clean": p.clean, "circuit": p.circuit, "corrupted": p.corrupted}
style.save(lens.draw(*tables, p.main_tasks, colours), out.svg, out.png, p.dpi, job.provenance(snakemake))
