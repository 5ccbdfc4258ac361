"""Draw how often a model is still right while heads are ablated, and list what it wrote."""

from atlas.report import style
from atlas.report.figures import generation
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

heads, prompts, outputs, summary = (
    artifacts.read_table(inputs[name]) for name in ("heads", "prompts", "outputs", "summary")
)
title = f"{w.model} under {p.kind} ablation: what it wrote"
artifacts.write_text(out.page, generation.outputs_page(prompts, outputs, heads, title))
style.save(
    generation.draw(outputs, summary, {"circuit": p.circuit}), out.svg, out.png, p.dpi, job.provenance(snakemake)
)
