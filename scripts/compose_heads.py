"""Score how much of what one head writes another one can read, and hold the edges of circuits against that."""

from atlas.circuit import chosen
from atlas.heads import composition
from atlas.model import models
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

settings = artifacts.read_json(inputs.model)["settings"]
model = models.load(job.model_folder(snakemake), settings=settings, **job.run(snakemake))
circuits = chosen.chosen_circuits(inputs.circuits)
edge_membership = artifacts.read_table(inputs.edge_membership)
found = composition.scores(model, p.seed)
edges = composition.of_circuits(found, edge_membership, {task: circuits[task] for task in p.main_tasks}, p.seed)
job.save(snakemake, composition=found, composition_edges=edges)
