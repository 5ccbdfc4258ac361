"""Hypothesis tests of a circuit: equivalence, independence, minimality (methods: doubts; arXiv 2410.13032).

Each asks whether what would be true of the whole mechanism can be kept: a test that does not reject proves nothing, and
says how far it could have seen (prompts, intervals). All run on the prompts that results are reported on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from atlas.core.components import Circuit, columns
from atlas.core.hypotheses import independence, sign_p, smallest_sign_p
from atlas.core.multiple import ALPHA, corrected, holm, interval_p
from atlas.core.statistics import Bootstrap, interval_columns

if TYPE_CHECKING:
    from atlas.circuit.ablation import Ablator

EQUIVALENCE, INDEPENDENCE = "equivalence", "independence"
NULLS = {
    EQUIVALENCE: "the circuit is as often better than the full model as worse",
    INDEPENDENCE: "what the model answers without the circuit is independent of what the full model answers",
}
STATISTICS = {
    EQUIVALENCE: "share of prompts on which the circuit is better (ties half)",
    INDEPENDENCE: "HSIC over that of each with itself",
}
REJECTED, KEPT, UNTESTABLE = "rejected", "not rejected", "untestable"
NEEDED, LIKE = "needed", "like random"

ROUNDING = 1e-4  # share of the full model's score, or spread of its logits, below which differences are rounding
QUANTILE = 0.95  # of the components that can be added, which a member has to cost more than
TEST_COLUMNS: tuple[str, ...] = ("test", "circuit", "null", "statistic", "value", "ci_low", "ci_high")
TEST_COLUMNS += ("ties", "prompts", "draws", "p", "p_least")
MEMBER_COLUMNS: tuple[str, ...] = ("circuit", "component", "layer", "head", "loss", "outside", "place", "bar")
MEMBER_COLUMNS += ("value", "ci_low", "ci_high", "p", "claim", "tests", "p_holm", "state")


# ---- the circuit as a whole ----------------------------------------------------------------------------------
def equivalence(ablator: Ablator, circuit: Circuit, bootstrap: Bootstrap) -> dict[str, Any]:
    """Is the circuit better than the full model on half of the prompts? Two-sided sign test of the logit difference.

    Differences up to ROUNDING of the full model's mean score are ties, which no sign counts. ``p_least``: if all
    prompts had one sign.
    """
    own, full = ablator.logit_diff(circuit), ablator.logit_diff(ablator.everything)
    gain = own - full
    gain[np.abs(gain) <= ROUNDING * abs(full.mean())] = 0
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    row = interval_columns(bootstrap.mean((gain > 0) + 0.5 * (gain == 0)))
    row |= {"ties": len(gain) - better - worse, "prompts": len(gain), "draws": 0}
    return row | {"p": sign_p(better, worse), "p_least": smallest_sign_p(len(gain))}


def answers(ablator: Ablator, circuit: Circuit) -> np.ndarray:
    """[N, A] logits of every token that is an answer of some prompt, less their mean; of answers of several tokens
    [N, 1] logit differences."""
    if ablator.targets is not None:
        return ablator.logit_diff(circuit)[:, None]
    ids = np.unique(np.concatenate([ablator.answer.cpu().numpy(), ablator.incorrect.cpu().numpy()]))
    found: np.ndarray = ablator.logits(circuit)[:, ids].double().cpu().numpy()
    found -= found.mean(1, keepdims=True)
    return found


def independent(ablator: Ablator, circuit: Circuit, permutations: int, seed: int) -> dict[str, Any]:
    """Does what is computed outside the circuit say anything of the model's answers? HSIC of `answers`, permuted.

    Outside the circuit: the full model with the circuit ablated. A circuit that leaves out one part of a chain passes,
    since nothing gets through the rest; what fails is another way around it.
    """
    full, rest = answers(ablator, ablator.everything), answers(ablator, ablator.without(circuit))
    least = ROUNDING * float(np.sqrt(full.var(0).sum()))
    value, p = independence(rest, full, permutations, seed, (least, least))
    row = {"value": value, "ci_low": np.nan, "ci_high": np.nan, "ties": 0, "prompts": len(full)}
    return row | {"draws": permutations, "p": p, "p_least": 1 / (1 + permutations)}


def rows_of(
    ablator: Ablator, circuits: Mapping[str, Circuit], permutations: int, seed: int, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Rows of `hypotheses` (TEST_COLUMNS) of circuits by name."""
    rows = []
    for name, circuit in circuits.items():
        made = {
            EQUIVALENCE: equivalence(ablator, circuit, bootstrap),
            INDEPENDENCE: independent(ablator, circuit, permutations, seed),
        }
        for test, row in made.items():
            rows.append({"test": test, "circuit": name, "null": NULLS[test], "statistic": STATISTICS[test]} | row)
    return rows


def decided(tests: pd.DataFrame) -> pd.DataFrame:
    """Rows of all tasks with `claim`, `tests`, `p_holm`, and ``state``: a family is one test of one kind of circuit.

    UNTESTABLE where no outcome could have been rejected beside the other tests of the family.
    """
    found = corrected(tests, tests["test"] + " of " + tests["circuit"])
    least = found.groupby("claim")["p_least"].transform(holm)
    found["state"] = np.where(found["p_holm"] < ALPHA, REJECTED, np.where(least < ALPHA, KEPT, UNTESTABLE))
    return found


# ---- its members ---------------------------------------------------------------------------------------------
def member_rows(ablator: Ablator, circuit: Circuit, name: str, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Rows of `member_tests` (MEMBER_COLUMNS): does each member cost more than components that are added at random?

    ``loss``: points of full that the circuit loses without the member. ``bar``: the QUANTILE of what the circuit with
    one component more loses without it again, over all components outside; ``value`` is loss less bar, with p of none
    from its interval, for which both are resampled together. ``place``: share of those outside that cost less. A member
    that is like those outside lies above the bar with a chance of 1 - QUANTILE (of n < 19 outside, 1 / (1 + n)),
    whatever the prompts. Where nothing is outside, nothing can be tested.
    """
    own, full = ablator.logit_diff(circuit), ablator.logit_diff(ablator.everything)
    outside = sorted(ablator.everything - circuit)
    gains = [ablator.logit_diff(circuit | {c}) - own for c in outside]
    rows: list[dict[str, Any]] = []
    for member in sorted(circuit):
        loss = own - ablator.logit_diff(circuit - {member})
        row = {"circuit": name} | columns(member) | {"loss": 100 * loss.mean() / full.mean(), "outside": len(outside)}
        rows.append(row | beyond(loss, gains, full, bootstrap))
    if not rows:
        return rows
    table = corrected(pd.DataFrame(rows), f"minimality of {name}")
    needed = (table["p_holm"] < ALPHA) & (table["value"] > 0)
    table["state"] = np.where(table["p"].isna(), UNTESTABLE, np.where(needed, NEEDED, LIKE))
    return [dict(row) for row in table.to_dict("records")]


def beyond(loss: np.ndarray, gains: list[np.ndarray], full: np.ndarray, bootstrap: Bootstrap) -> dict[str, Any]:
    """``place``, ``bar``, ``value`` with its interval and p, of a member's losses [N] beside those of others [N]."""
    if not gains:
        return dict.fromkeys(("place", "bar", "value", "ci_low", "ci_high", "p"), np.nan)
    nth = min(len(gains), math.ceil(QUANTILE * (len(gains) + 1))) - 1

    def over_bar(own: Any, of_full: Any, *others: Any) -> Any:
        return 100 * (own - np.sort(np.stack(others), axis=0)[nth]) / of_full

    means = np.array([gain.mean() for gain in gains])
    estimate = bootstrap.statistic(over_bar, loss, full, *gains)
    value, low, high = ([end] for end in estimate)
    p = 1.0 if abs(estimate[0]) <= 100 * ROUNDING else float(interval_p(value, low, high)[0])
    row = {"place": float((means < loss.mean()).mean()), "bar": 100 * float(np.sort(means)[nth] / full.mean())}
    return row | interval_columns(estimate) | {"p": p}
