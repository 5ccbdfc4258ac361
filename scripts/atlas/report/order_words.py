"""What figures and sentences on order both say, without what draws."""

import pandas as pd

from atlas.core.multiple import ALPHA, holm, interval_p
from atlas.geometry.read_names import LESS_CONSTANT


def point_shown(points: list[int]) -> int:
    """The point of which displacements are shown: the middle one."""
    return points[len(points) // 2]


def nearer(rows: pd.DataFrame) -> set[int]:
    """Points at which the tuned lens of one task is surely nearer to the answer than the constant, of all together."""
    own = rows[rows["lens"] == LESS_CONSTANT]
    p = holm(interval_p(own["value"], own["ci_low"], own["ci_high"]))
    return set(own.loc[(p < ALPHA) & (own["value"] < 0), "point"])
