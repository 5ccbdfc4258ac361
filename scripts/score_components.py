"""Ablate every head and MLP of a model alone, record what each prompt loses, and how well gradients foretell it."""

from atlas.circuit.attributed import every_kind
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, metrics = TaskData(**job.task_data(snakemake)), list(dict.fromkeys(["logit_diff", *p.metrics]))
ablators = ((kind, data.ablator("search", metrics, kind)) for kind in p.kinds)
job.save(snakemake, **every_kind(ablators, metrics, p.attribution, p.points, Bootstrap(p.bootstrap, p.seed)))
