"""Which heads are ablated while a model writes, and how often it is then still right, beside random heads.

Needs no torch: figures and pages read the same tables.
"""

from typing import Any

import numpy as np
import pandas as pd

from atlas.circuit.controls import p_value
from atlas.circuit.verdicts import verdicts
from atlas.core.components import Circuit, heads, named
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap, interval_columns

OVER = ("robust", "all")  # prompts counted: sensitive ones left out, or every one that the unablated model gets right
SINGLE = r"\d+\.\d+"  # the name of a set that is one head


def head_sets(
    circuits: dict[str, Circuit], wanted: list[str], own: dict[str, list[str]], n_layers: int, n_heads: int
) -> dict[str, Circuit]:
    """Name -> heads: of each task's circuit, of what they share, of their union, each shared head alone, the user's.

    ``circuits``: task -> circuit, with ``shared`` and ``union`` (`comparison.chosen_circuits`). A set without heads is
    left out, and so are ``shared`` and ``union`` where there is one task. Raises StudyError on heads the model lacks.
    """
    tasks = [name for name in circuits if name not in ("shared", "union")]
    names = [*tasks] if "circuits" in wanted else []
    names += [name for name in ("shared", "union") if name in wanted and len(tasks) > 1]
    sets = {name: frozenset(heads(circuits[name])) for name in names}
    if "singles" in wanted:
        sets |= {str(head): frozenset([head]) for head in heads(circuits["shared"])}
    for name, members in own.items():
        if name in sets:
            raise StudyError(f"generation.own.{name}: the study has a head set of this name; choose another")
        sets[name] = named(f"generation.own.{name}", members, n_layers, n_heads, only_heads=True)
    return {name: chosen for name, chosen in sets.items() if chosen}


def mark_sensitive(outputs: pd.DataFrame) -> pd.Series:
    """For each row whether its prompt is sensitive to its head set's controls: more than half of them fail on it."""
    keys = ["set", "heads", "prompt"]
    controls = outputs[outputs["draw"] >= 0].groupby(keys)["right"].mean().rename("controls right")
    share = outputs.join(controls, on=keys)["controls right"]
    return share < 0.5  # without controls there is no share, and nothing is said to be sensitive


def summarise(
    outputs: pd.DataFrame, prompts: pd.DataFrame, notes: dict[str, str], bootstrap: Bootstrap
) -> pd.DataFrame:
    """A row for each prompt set, head set and choice of prompts (docs/artifacts.md: generation/summary.parquet).

    ``notes``: head set -> why it has few or no controls. An ablation that matters leaves fewer prompts right than its
    controls do, so p counts the controls that leave at most as many. Single heads, which have few controls, are a
    family of tests apart from sets.
    """
    rows = []
    for name, given in prompts.groupby("set", sort=False):
        counts = {"given": len(given)} | {key: int((given["status"] == key).sum()) for key in ("failed", "rejected")}
        for heads_name, note in notes.items():
            here = outputs[(outputs["set"] == name) & (outputs["heads"] == heads_name)]
            for over in OVER:
                part = here if over == "all" else here[~here["sensitive"]]
                rows.append({"set": name, "heads": heads_name, "over": over} | counts | _shares(part, bootstrap))
                rows[-1] |= {"sensitive": counts["given"] - counts["failed"] - counts["rejected"] - rows[-1]["prompts"]}
                rows[-1] |= {"note": note}
    return together(pd.DataFrame(rows))


def together(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary with `verdicts.COLUMNS`: the tests of sets of heads are a family, those of single heads one."""
    kind = summary["heads"].str.fullmatch(SINGLE).map({True: "single heads", False: "sets of heads"})
    useless = (summary["prompts"] == 0).map({True: "no prompt is left", False: ""})
    return verdicts(summary, kind + ", prompts: " + summary["over"], useless, "generation.controls")


def _shares(part: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, Any]:
    right = part[part["draw"] < 0].sort_values("prompt")["right"].to_numpy(dtype=float)
    controls = part[part["draw"] >= 0].groupby("draw")["right"].mean()
    row = {"prompts": len(right)} | interval_columns(bootstrap.mean(right) if len(right) else (np.nan,) * 3)
    row["controls"] = len(controls)
    quantiles = controls.quantile([0.5, 0.025, 0.975]) if len(controls) else (np.nan,) * 3
    row |= dict(zip(("control_median", "control_low", "control_high"), quantiles, strict=True))
    return row | {"p": p_value(row["value"], controls, low_is_extreme=True) if len(controls) else np.nan}
