"""Let the model go on with prompts while heads are ablated: the circuits', and random ones beside them."""

from atlas.circuit.chosen import chosen_circuits
from atlas.core.statistics import Bootstrap
from atlas.generate.scores import head_sets
from atlas.generate.writing import Ablated, Writer, generate
from atlas.model import models
from atlas.prompts import tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p = snakemake.input, snakemake.params

folder, description = job.model_folder(snakemake), artifacts.read_json(inputs.model)
model = models.load(folder, settings=description["settings"], **job.run(snakemake))
writer = Writer(model, tokens.load_tokenizer(str(folder)), p.prepend_bos, description["max_tokens"], p.kind)
sets = head_sets(chosen_circuits(inputs.circuits), p.sets, p.own, model.n_layers, model.n_heads)
ablated = Ablated.of(sets, model.n_layers, model.n_heads, p.controls, p.seed)
tables = generate(writer, p.prompts, p.per_text, p.seed, ablated, Bootstrap(p.bootstrap, p.seed))
job.save(snakemake, **tables)
