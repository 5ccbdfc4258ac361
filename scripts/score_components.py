"""Ablate every head and MLP of a model alone and record what each prompt loses."""

import pandas as pd

from atlas.circuit import studies
from atlas.circuit.ablation import single_ablations
from atlas.core.components import columns
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.store import artifacts, job

job.start(snakemake)
inputs, out, p, w = snakemake.input, snakemake.output, snakemake.params, snakemake.wildcards

model = studies.load_model(inputs.model, job.model_folder(snakemake), p.run)
bootstrap, scores, effects = Bootstrap(p.bootstrap, p.seed), [], []
metrics = list(dict.fromkeys(["logit_diff", *p.metrics]))
for kind in p.kinds:
    ablator = studies.make_ablator(
        model, dict(inputs.items()), "search", kind, metrics=metrics, memo_folder=job.memo_folder(snakemake)
    )
    clean = ablator.scores(ablator.everything)
    singles = single_ablations(ablator)
    for component, values in job.progress(singles, f"{kind} ablation"):
        common = {"model": w.model, "task": w.task} | columns(component) | {"kind": kind}
        for metric in metrics:
            cells = common | {"metric": metric, "prompt": ablator.prompts.prompt, "value": values[metric]}
            scores.append(pd.DataFrame(cells))
            row = common | {"metric": metric} | interval_columns(bootstrap.mean(values[metric]))
            effects.append(row | {"clean": clean[metric].mean()})
        percent = bootstrap.percent(values["logit_diff"], clean["logit_diff"])
        effects.append(common | {"metric": "percent_of_full"} | interval_columns(percent) | {"clean": 100.0})
    job.log.info("%s: %s, %d forward passes", w.task, kind, ablator.evaluations)

provenance = job.provenance(snakemake)
artifacts.write_table(pd.concat(scores, ignore_index=True), out.scores, provenance)
artifacts.write_table(pd.DataFrame(effects), out.effects, provenance)
