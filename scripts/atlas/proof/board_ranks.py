"""Which method finds planted circuits best: means and ranks over fixtures, with intervals."""

import numpy as np
import pandas as pd

from atlas.core.statistics import Bootstrap
from atlas.proof.board_metrics import ranks

BETTER = {"auroc": True, "precision": True, "cpr": True, "cmd": False}  # metric -> is higher better?
ENTRANT = ["level", "method", "ranking"]


def by_fixture(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric over the families and kinds of ablation of a fixture, rows of known truth alone.

    Families and kinds share a plan, so they are not counted as fixtures of their own.
    """
    planted = table[table["auroc"].notna()]
    found: pd.DataFrame = planted.groupby([*ENTRANT, "fixture"], sort=False)[list(BETTER)].mean().reset_index()
    return found


def ranked(table: pd.DataFrame, bootstrap: Bootstrap) -> pd.DataFrame:
    """A row for each method, ranking and metric: its mean over fixtures (``value``) and its mean rank (``rank``), each
    with a 95 % bootstrap interval over fixtures; and ``best``, the share of fixtures that no other one does better on.

    Ranks are among all of a level on one fixture, from 1; equal ones share the mean of theirs. Best AUROC first.
    """
    rows = []
    for level, part in by_fixture(table).groupby("level", sort=False):
        for metric, higher in BETTER.items():
            values = part.pivot(index="fixture", columns=["method", "ranking"], values=metric)
            order = np.stack([ranks(row, higher) for row in values.to_numpy().tolist()])
            lowest = np.nanmin(order, axis=1)
            for column, (method, ranking) in enumerate(values.columns):
                own = order[:, column]
                there = ~np.isnan(own)
                row = {"level": level, "method": method, "ranking": ranking, "metric": metric}
                row |= {"fixtures": int(there.sum()), "best": float((own == lowest)[there].mean())}
                for name, numbers in (("value", values.iloc[:, column].to_numpy()), ("rank", own)):
                    found = bootstrap.mean(numbers[there])
                    row |= dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
                rows.append(row)
    found = pd.DataFrame(rows)
    first = found[found["metric"] == "auroc"].set_index(ENTRANT)["rank"]
    place = found.set_index(ENTRANT).index.map(first)
    order = pd.DataFrame({"level": found["level"], "place": place, "row": range(len(found))})
    return found.loc[order.sort_values(["level", "place", "row"], kind="stable").index].reset_index(drop=True)
