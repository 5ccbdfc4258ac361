"""Score the edges of a task and search its edge circuits by every configured method."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from atlas.circuit import studies
from atlas.circuit.chosen import circuit_at
from atlas.core.errors import StudyError
from atlas.core.graph import names
from atlas.core.statistics import Bootstrap, column_means
from atlas.edges import attribution as eap
from atlas.edges import searches as edge_search
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
ablator = studies.make_edge_ablator(
    model, dict(inputs.items()), "search", p.kind, memo_folder=job.memo_folder(snakemake)
)
graph, everything, percents = ablator.graph, ablator.everything, ablator.percents_of_full
full, empty = ablator.logit_diff(everything), ablator.logit_diff(frozenset())
studies.refuse_no_effect(w.task, full, empty, p.allow_negative_clean)
among = {t: graph.among(circuit_at(inputs.circuits, p.order, t)) for t in p.thresholds}
start = everything if p.start == "full" else among[p.start_threshold]
if ablator.percent_of_full(start) <= 100 - p.threshold:
    said = (
        f"edges.threshold: {p.threshold}, but the edges that {w.task} starts from keep only "
        f"{ablator.percent_of_full(start):.1f} % of the full model; lower edges.start_threshold or use start: full"
    )
    if not p.allow_negative_clean:
        raise StudyError(said)
    job.log.warning("%s; going on, as allow_negative_clean says", said)
identity = {"model": w.model, "task": w.task}
bootstrap = Bootstrap(p.bootstrap, p.seed)

# ---- scores of single edges ----------------------------------------------------------------------------------
scores, means = [], {}
for method in [m for m in ("path_patching", "eap", "eap_ig") if m in p.methods]:
    if method == "path_patching":
        tried = graph.edges if p.path_patching == "full" else [e for e in graph.edges if e in start]
        scored = dict(job.progress(edge_search.path_patching(ablator, tried), method))
    else:
        scored = eap.scores(ablator, p.points if method == "eap_ig" else None)
    estimates = column_means(bootstrap, np.stack(list(scored.values()), axis=1))
    means[method] = dict(zip(scored, estimates["value"].tolist(), strict=True))
    names_of_edges = pd.DataFrame(scored.keys(), columns=["sender", "receiver"])
    scores.append(names_of_edges.assign(**identity, method=method, **estimates))
    job.log.info("%s: %s of %d edges", w.task, method, len(means[method]))

# ---- circuits ------------------------------------------------------------------------------------------------
trace, circuits = [], []


def add(method: str, ranking: str, setting: float, edges) -> None:
    dead = graph.without_path(edges)
    reported = graph.live(edges) if p.drop_without_path else edges
    found = ablator.logit_diff(reported)
    circuits.append(
        {"method": method, "ranking": ranking, "setting": setting, "edges": names(reported)}
        | {"nodes": sorted(map(str, graph.nodes(reported))), "without_path": sorted(map(str, dead))}
        | {"percent_of_full": bootstrap.percent(found, full)[0]}
        | {"faithfulness": bootstrap.faithfulness(found, full, empty)[0]}
    )
    text = "%s, %s %s %s: %d edges, %.1f %% of full, without a path: %s"
    values = (w.task, method, ranking, setting, len(reported), circuits[-1]["percent_of_full"])
    job.log.info(text, *values, " ".join(map(str, sorted(dead))) or "none")


def search(method: str, setting: float, steps) -> None:
    left = start
    for number, step in enumerate(job.progress(steps, f"{method} {setting:g}"), start=1):
        left = step.left
        row = identity | {"method": method, "setting": float(setting), "step": number} | step.components[0]._asdict()
        row |= {"percent": step.percent, "removed": step.removed, "close": step.close}
        trace.append(row | {"edges": len(left)})
    add(method, "", setting, left)


for threshold, edges in among.items():
    add("node_circuit", "", threshold, edges)
search("iterative_edges", p.threshold, edge_search.iterative(graph, start, p.threshold, percents))
size = len(circuits[-1]["edges"])
if "acdc" in p.methods:
    for tau in p.taus:
        search("acdc", tau, edge_search.acdc(graph, start, tau, percents, p.change))
for method, values in means.items():
    for ranking in p.rankings:
        add(method, ranking, float(size), edge_search.top(eap.ranked(values, ranking), size))
job.log.info("%s: %d forward passes over %d prompts", w.task, ablator.evaluations, len(ablator.prompts))

provenance = job.provenance(snakemake)
score_columns = [*identity, "method", "sender", "receiver", "value", "ci_low", "ci_high"]
trace_columns = [*identity, "method", "setting", "step", "sender", "receiver", "percent", "removed", "close", "edges"]
table = pd.concat(scores, ignore_index=True) if scores else pd.DataFrame()
artifacts.write_table(table.reindex(columns=score_columns), out.scores, provenance)
artifacts.write_table(pd.DataFrame(trace, columns=trace_columns), out.trace, provenance)
content = identity | {"graph": asdict(graph), "total_edges": len(everything), "circuits": circuits}
artifacts.write_json(content, out.circuits, provenance)
