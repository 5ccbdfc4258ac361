"""Write the atlas page of a model, or of all models of a study."""

from atlas.report.atlas import page, study
from atlas.report.atlas.tables import Inputs
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p = snakemake.input, snakemake.output, snakemake.params

files = {name: [paths] if isinstance(paths, str) else list(paths) for name, paths in inputs.items()}
(between,) = files.pop("between", [None])
found = Inputs(files, p.models, p.tasks)
artifacts.write_text(out.page, page.page(found, job.settings(snakemake, study.Settings), between))
job.log.info("%s: %.1f MB", out.page, artifacts.size_mb(out.page))
