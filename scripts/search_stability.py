"""Search the reported circuit of a task again on other data, and record what survives."""

from itertools import chain

import pandas as pd

from atlas.circuit import stability, studies
from atlas.circuit.ablation import replacement
from atlas.circuit.chosen import reported_edges
from atlas.circuit.search import Rule, tried_at_once
from atlas.circuit.stability import SUMMARY_COLUMNS, SURVIVAL_COLUMNS, Dataset, Maker, NodeSearch
from atlas.core.components import from_json
from atlas.core.graph import Graph
from atlas.edges import attribution as eap
from atlas.edges import searches as edge_search
from atlas.edges.engine import EdgeAblator, with_embeddings
from atlas.prompts import layouts, tokens
from atlas.prompts.batch import Prompts
from atlas.store import artifacts, job, tensors

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

description = artifacts.read_json(inputs.model)
model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
means, cache = tensors.read(inputs.means), tensors.read(inputs.activations)
prompts = Prompts.from_frame(studies.read_prompts(inputs.prompts, inputs.clean, "search"), means["groups"])
entries = [c for c in artifacts.read_json(inputs.circuits)["circuits"] if c["threshold"] == p.threshold]
orders = {entry["order"]: from_json(entry) for entry in entries}
own = Dataset("", "reported", prompts, replacement(p.kind, model, prompts, means, cache))

# ---- circuits ------------------------------------------------------------------------------------------------
rule = Rule.configured(p.threshold, p.relative_tolerance, p.never_test, p.visit)
node_search = NodeSearch(
    w.task,
    p.order,
    p.order_seed,
    rule,
    batch=tried_at_once(p.batch, model.device),
    legacy_mlp_means=p.legacy_mlp_means,
    allow_negative_clean=p.allow_negative_clean,
)
maker = Maker(
    model=model,
    task=w.task,
    block=p.task,
    tokenizer=tokens.load_tokenizer(str(job.model_folder(snakemake))),
    prepend_bos=p.prepend_bos,
    max_tokens=description["max_tokens"],
    kind=p.kind,
    by_template=set(map(layouts.template_of, means["groups"])) != {layouts.SHARED},
    filter=p.filter,
    allow_negative_clean=p.allow_negative_clean,
)
changed = stability.changes(p.task, *(p.resamples[k] for k in ("seeds", "templates", "corruptions")))
others = chain(
    stability.bootstraps(model, prompts, means, cache, p.kind, p.resamples["bootstrap"], p.seed),
    (maker.dataset(*change) for change in changed),
)


def scored_edges(model, prompts, substitute, circuit):
    """The highest-scored edges, as many as the reported edge circuit has; they do not depend on the node circuit."""
    embedded = with_embeddings(substitute, p.kind, model, prompts)
    ablator = EdgeAblator(model, Graph.of(description), prompts, embedded)
    scores = eap.scores(ablator, p.points if p.edges == "eap_ig" else None)
    means = {edge: float(values.mean()) for edge, values in scores.items()}
    reported = reported_edges(artifacts.read_json(inputs.edge_circuits))
    return edge_search.top(eap.ranked(means, p.ranking), len(reported))


others = job.progress(others, "other data")
components, edges = stability.all_runs(model, own, others, orders, node_search, scored_edges if p.edges else None)

# ---- tables --------------------------------------------------------------------------------------------------
identity = {"model": w.model, "task": w.task}


def by_chance(a, b) -> float:
    return stability.expected_jaccard(a, b, model.n_layers, model.n_heads)


survival, summary, circuits = [], [], {"families": [], "runs": []}
for level, runs, expected in (("component", components, by_chance), ("edge", edges, None)):
    survival += [identity | row for row in stability.survival_rows(runs, level)]
    summary += [identity | row for row in stability.summary_rows(runs, level, expected)]
    circuits = {key: value + stability.to_json(runs, level)[key] for key, value in circuits.items()}

provenance = job.provenance(snakemake)
artifacts.write_table(pd.DataFrame(survival, columns=[*identity, *SURVIVAL_COLUMNS]), out.stability, provenance)
artifacts.write_table(pd.DataFrame(summary, columns=[*identity, *SUMMARY_COLUMNS]), out.summary, provenance)
content = identity | {"order": p.order, "threshold": p.threshold} | circuits
artifacts.write_json(content, out.circuits, provenance)
