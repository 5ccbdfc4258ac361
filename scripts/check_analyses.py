"""Find out which analyses a model can be served; refuse a study that wants others, or names what the model lacks."""

from atlas.compare.interchange import read_circuit
from atlas.core.components import named
from atlas.core.graph import Graph
from atlas.geometry import served
from atlas.heads import analyses
from atlas.model import checks, models, reference
from atlas.store import artifacts, job, places

job.start(snakemake)
p, name = snakemake.params, snakemake.wildcards.model

description, folder = artifacts.read_json(snakemake.input.model), job.model_folder(snakemake)
for key, components in p.named.items():
    named(key, components, description["n_layers"], description["n_heads"], only_heads=key.startswith("generation"))
for circuit, block in p.circuits.items():
    file = places.below_root(snakemake.config["circuits"][circuit]["file"])
    if file.exists() or "results" not in file.parts:  # what the study itself will make is read when it is there
        read_circuit(file, Graph.of(description), block["select"])
model = models.load(folder, settings=description["settings"], **job.run(snakemake))
tokens = reference.sample(checks.read_config(name, folder))[:, : analyses.LENGTH]
reasons = analyses.reasons(model, tokens)
asked = served.wanted(p.edges, p.heads, p.order)
analyses.refuse(name, description["architecture"], asked, reasons | served.reasons(reasons))
if "features" in p.order:
    given = snakemake.config["geometry"]["features"]["path"]
    served.check_features(model, p.features["hook"], given and places.below_root(given))
wanted = [*asked["edges.methods"], *p.heads]
left_out = [analysis for analysis in (analyses.EDGES, *analyses.HEADS) if analysis not in wanted]
job.log.info("%s: %s; left out: %s", name, ", ".join(wanted) or "nodes alone", ", ".join(left_out) or "nothing")
content = {"model": name, "made": wanted, "left_out": {each: reasons.get(each) for each in left_out}}
artifacts.write_json(content, snakemake.output[0], job.provenance(snakemake))
