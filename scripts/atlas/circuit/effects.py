"""Every head and MLP ablated alone (methods: ablation)."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from atlas.circuit.ablation import Ablator
from atlas.core.components import Component, columns
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.model.models import slices
from atlas.store.job import progress

log = logging.getLogger("atlas")


def component_effects(
    ablators: Iterable[tuple[str, Ablator]], metrics: Sequence[str], bootstrap: Bootstrap
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of `component_scores` (per prompt) and of `component_effects` (means), without ``model`` and ``task``.

    ablators: (kind of ablation, ablator), each with these ``metrics``, logit_diff among them. ``clean`` is the mean of
    the unablated model; `percent_of_full` is that of the logit difference.
    """
    scores, effects = [], []
    for kind, ablator in ablators:
        clean = ablator.scores(ablator.everything)
        for component, values in progress(single_ablations(ablator), f"{kind} ablation"):
            common = columns(component) | {"kind": kind}
            for metric in metrics:
                cells = common | {"metric": metric, "prompt": ablator.prompts.prompt, "value": values[metric]}
                scores.append(pd.DataFrame(cells))
                row = common | {"metric": metric} | interval_columns(bootstrap.mean(values[metric]))
                effects.append(row | {"clean": clean[metric].mean()})
            percent = bootstrap.percent(values["logit_diff"], clean["logit_diff"])
            effects.append(common | {"metric": "percent_of_full"} | interval_columns(percent) | {"clean": 100.0})
        log.info("%s: %d forward passes", kind, ablator.evaluations)
    return pd.concat(scores, ignore_index=True), pd.DataFrame(effects)


def single_ablations(ablator: Ablator) -> Iterator[tuple[Component, dict[str, np.ndarray]]]:
    """Yield (component, metric name -> [N]) with each component ablated alone, layer by layer.

    On a GPU, where launches and Python cost more than the work of one, those of a layer are run as one batch, as far as
    memory allows. On a CPU one at a time: they share the layer's attention either way, and a batch was found to save
    nothing from some hundred rows on.
    """
    everything = sorted(ablator.everything)
    for _, group in groupby(everything, key=lambda c: c.layer):
        own = list(group)
        for part in slices(len(own), 1 if ablator.model.device == "cpu" else ablator.circuits_that_fit()):
            circuits = [ablator.everything - {component} for component in own[part]]
            yield from zip(own[part], ablator.scores_of(circuits), strict=True)
