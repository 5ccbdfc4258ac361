"""Search the circuits of a task at every threshold and in every order, and evaluate each."""

import pandas as pd

from atlas.circuit import studies
from atlas.circuit.search import Rule, run, tried_at_once
from atlas.core.components import group_columns, heads, mlps, to_json
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
reported = studies.report_split(inputs.prompts, inputs.clean)
splits = ["search"] if reported == "search" else ["search", "held_out"]
ablators = {
    split: studies.make_ablator(
        model, dict(inputs.items()), split, p.kind, p.legacy_mlp_means, memo_folder=job.memo_folder(snakemake)
    )
    for split in splits
}
on_search = ablators["search"]
for ablator in ablators.values():
    full, empty = (ablator.logit_diff(c) for c in (ablator.everything, frozenset()))
    studies.refuse_no_effect(w.task, full, empty, p.allow_negative_clean)
batch = tried_at_once(p.batch, model.device)
alone = {}
if "ascending_effect" in p.orders:
    alone = {c: on_search.percent_of_full(on_search.everything - {c}) for c in on_search.everything}

bootstrap, trace, circuits, faithfulness = Bootstrap(p.bootstrap, p.seed), [], [], []
identity = {"model": w.model, "task": w.task}
for name, seed in job.progress(p.orders.items(), "node search"):
    for threshold in p.thresholds:
        rule = Rule.configured(threshold, p.relative_tolerance, p.never_test, p.visit)
        circuit, asked = on_search.everything, 0
        steps = run(name, seed, rule, on_search.everything, on_search.percents_of_full, alone, batch)
        for asked, step in enumerate(steps, start=1):
            circuit = step.left
            row = identity | {"order": name, "threshold": threshold, "step": asked, "sweep": step.sweep}
            row |= {"direction": step.direction} | group_columns(step.components)
            row |= {"percent": step.percent, "removed": step.removed, "close": step.close}
            trace.append(row | {"heads": len(heads(circuit)), "mlps": len(mlps(circuit))})
        sizes = {"heads": len(heads(circuit)), "mlps": len(mlps(circuit))}
        entry = {"order": name, "threshold": threshold} | to_json(circuit)
        circuits.append(entry | {"percent_of_full": on_search.percent_of_full(circuit), "evaluations": asked})
        for split, ablator in ablators.items():
            found, full, empty = (ablator.logit_diff(c) for c in (circuit, ablator.everything, frozenset()))
            for metric, estimate in (
                ("percent_of_full", bootstrap.percent(found, full)),
                ("faithfulness", bootstrap.faithfulness(found, full, empty)),
            ):
                row = identity | {"order": name, "threshold": threshold, "split": split, "metric": metric}
                faithfulness.append(row | interval_columns(estimate) | sizes)
        job.log.info("%s, %s, T = %s: %s, %.1f %%", w.task, name, threshold, sizes, circuits[-1]["percent_of_full"])
close = sum(row["close"] for row in trace)
if close:
    job.log.warning(
        "%s: %d decisions so close to their bound that rounding could flip them (close in trace)", w.task, close
    )
job.log.info("%d forward passes over %d prompts", on_search.evaluations, len(on_search.prompts))

provenance = job.provenance(snakemake)
artifacts.write_table(pd.DataFrame(trace), out.trace, provenance)
artifacts.write_table(pd.DataFrame(faithfulness), out.faithfulness, provenance)
artifacts.write_json(identity | {"circuits": circuits}, out.circuits, provenance)
