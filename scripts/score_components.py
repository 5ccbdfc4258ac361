"""Ablate every head and MLP of a model alone and record what each prompt loses."""

from atlas.circuit.effects import component_effects
from atlas.circuit.task_data import TaskData
from atlas.core.statistics import Bootstrap
from atlas.store import job

job.start(snakemake)
p = snakemake.params

data, metrics = TaskData(**job.task_data(snakemake)), list(dict.fromkeys(["logit_diff", *p.metrics]))
ablators = ((kind, data.ablator("search", metrics, kind)) for kind in p.kinds)
scores, effects = component_effects(ablators, metrics, Bootstrap(p.bootstrap, p.seed))
job.save(snakemake, scores=scores, effects=effects)
