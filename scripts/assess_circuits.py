"""Assess the circuits of a task: every metric, completeness, minimality, positions, and edge circuits of every size."""

import pandas as pd

from atlas.circuit import evaluation, studies
from atlas.circuit.chosen import circuit_at, reported_edges
from atlas.circuit.search import Rule, by_layers, node_search, tried_at_once
from atlas.compare.interchange import read_circuit_and_level
from atlas.core.components import sites
from atlas.core.graph import Graph
from atlas.core.statistics import Bootstrap
from atlas.edges import curves
from atlas.prompts import layouts
from atlas.store import artifacts, job, places, tensors

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model, paths = studies.load_model(inputs.model, job.model_folder(snakemake), p.run), dict(inputs.items())
graph = Graph.of(artifacts.read_json(inputs.model))
split, bootstrap = studies.report_split(inputs.prompts, inputs.clean), Bootstrap(p.bootstrap, p.seed)
identity, memo = {"model": w.model, "task": w.task}, job.memo_folder(snakemake)

# ---- circuits to assess --------------------------------------------------------------------------------------
circuits = {"nodes": (circuit_at(inputs.circuits, p.order, p.threshold), "node")}
if p.edges:
    edge_circuits = artifacts.read_json(inputs.edge_circuits)
    circuits["edges"] = (reported_edges(edge_circuits), "edge")
for name, chosen in p.circuits.items():
    file = places.below_root(snakemake.config["circuits"][name]["file"])
    circuits[name] = read_circuit_and_level(file, graph, chosen["select"])
ablators = {"node": studies.make_ablator(model, paths, split, p.kind, p.legacy_mlp_means, evaluation.METRICS, memo)}
if any(level == "edge" for _, level in circuits.values()):
    ablators["edge"] = studies.make_edge_ablator(model, paths, split, p.kind, evaluation.METRICS, memo)
nodes = ablators["node"]
full, empty = (nodes.logit_diff(c) for c in (nodes.everything, frozenset()))
studies.refuse_no_effect(w.task, full, empty, p.allow_negative_clean)
patching = evaluation.Patching(model, nodes.prompts, tensors.read(inputs.activations), p.allow_negative_clean)

# ---- every metric, completeness, minimality ------------------------------------------------------------------
metrics, complete, minimal = [], [], []
assessed = {"full": (nodes.everything, "node"), "empty": (frozenset(), "node")} | circuits
for name, (circuit, level) in assessed.items():
    ablator, is_edges = ablators[level], level == "edge"
    components = len(graph.nodes(circuit) if is_edges else circuit)
    row = identity | {"circuit": name, "level": level, "components": components}
    row |= {"edges": len(circuit) if is_edges else -1, "split": split}
    found = evaluation.metrics_of(ablator, circuit, bootstrap)
    if not is_edges:
        found += patching.rows(circuit, bootstrap)
    metrics += [row | values for values in found]
    if name in circuits:
        owner = identity | {"circuit": name}
        samples = evaluation.completeness(ablator, circuit, p.completeness, p.seed, bootstrap)
        complete += [owner | values for values in job.progress(samples, f"completeness of {name}")]
        members = evaluation.minimality(ablator, circuit, bootstrap)
        minimal += [owner | values for values in job.progress(members, f"minimality of {name}")]
    job.log.info("%s: %s assessed", w.task, name)

# ---- positions -----------------------------------------------------------------------------------------------
where = layouts.roles_of(artifacts.read_json(inputs.prompts_info))
search_split, reported = (
    studies.make_ablator(model, paths, s, p.kind, p.legacy_mlp_means, memo_folder=memo, roles=where)
    for s in ("search", split)
)
start = circuit_at(inputs.circuits, p.order, p.positions["start_threshold"])
rule = Rule.configured(p.positions["threshold"], p.relative_tolerance, p.never_test, p.visit)
roles = search_split.prompts.roles
kept = sites(start, roles)
batch = tried_at_once(p.batch, model.device)
for step in node_search(kept, rule, by_layers(rule), search_split.percents_of_full, batch):
    kept = step.left
positions = [identity | row for row in evaluation.position_effects(reported, start, kept, bootstrap)]
job.log.info("%s: %d of %d sites kept", w.task, len(kept), len(start) * len(roles))

# ---- edge circuits of every size -----------------------------------------------------------------------------
points, areas = [], []
if p.edges:
    on_edges = studies.make_edge_ablator(model, paths, split, p.kind, memo_folder=memo)
    drawn = curves.Curves(on_edges, bootstrap, identity | {"split": split}, p.sizes)
    for method, ranking, setting, edges in curves.searched(edge_circuits):
        drawn.circuit(method, ranking, setting, edges)
    scores = artifacts.read_table(inputs.edge_scores)
    orders = {key: [order] for key, order in curves.rankings(scores, on_edges, p.rankings).items()}
    orders["random", ""] = curves.random_rankings(on_edges, p.random_draws, p.seed)
    for (method, ranking), found in job.progress(orders.items(), "curves"):
        drawn.ranked(method, ranking, found)
    points, areas = drawn.points, drawn.areas

provenance = job.provenance(snakemake)
artifacts.write_table(pd.DataFrame(metrics), out.evaluation, provenance)
artifacts.write_table(pd.DataFrame(complete), out.completeness, provenance)
artifacts.write_table(pd.DataFrame(minimal), out.minimality, provenance)
artifacts.write_table(pd.DataFrame(positions), out.positions, provenance)
if p.edges:
    artifacts.write_table(pd.DataFrame(points), out.edge_curves, provenance)
    artifacts.write_table(pd.DataFrame(areas), out.edge_areas, provenance)
