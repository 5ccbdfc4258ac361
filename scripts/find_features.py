"""What features of a sparse autoencoder do: on which members they fire, what heads and answers lose without them."""

from pathlib import Path

from atlas.circuit import chosen
from atlas.core import components
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.geometry import autoencoder, features
from atlas.model import models
from atlas.prompts import clean_scores, layouts, tokens
from atlas.store import artifacts, job

job.start(snakemake)
inputs, p, folder = snakemake.input, snakemake.params, job.model_folder(snakemake)

description, settings = artifacts.read_json(inputs.model), job.settings(snakemake, features.Settings)
model = models.load(folder, settings=description["settings"], **job.run(snakemake))
frames, reported = [artifacts.read_table(path) for path in inputs.prompts], {}
read = features.read(model, tokens.load_tokenizer(str(folder)), frames, description["max_tokens"], settings, p.seed)
for task in p.explained:
    i = list(p.main_tasks).index(task)
    clean, layout = artifacts.read_table(inputs.clean[i]), Layout.of(artifacts.read_json(inputs.layouts[i])["layout"])
    split = clean_scores.report_split(frames[i], clean)
    reported[task] = layouts.of_one(clean_scores.kept_prompts(frames[i], clean, split)), layout
artifacts.check(inputs.config)
artifacts.check(inputs.weights)
sae = autoencoder.read(Path(inputs.weights).parent, read.place.hook, model.d_model)
heads = {(h.layer, h.head) for h in components.heads(chosen.chosen_circuits(inputs.circuits)["union"])}
job.save(snakemake, **features.found(model, read, sae, reported, heads, settings, Bootstrap(p.bootstrap, p.seed)))
