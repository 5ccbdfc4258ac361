"""Index probes: can the index of a member be read linearly, by a probe that never saw a member of its class?

A probe is trained on all classes but one and tested on that one (arXiv 2312.09230), at every point of the residual
stream: for the index modulo 10, 5 and 2, and for the index itself. The index of a member is the number that its digits
say (`7`), else its place in its class from 1 (`first`, `one`, `January`, `A` and `I` are 1).

*Data.* Residuals at members after a few contexts (`residuals.at_members`). Probes see means over the even contexts, and
are tested on means over the odd ones. Each class has its own mean taken off, which needs no label, and each number of
the residual is divided by its spread over the classes trained on, all of which count alike however many members they
have. *Probe*: ridge regression on one number for each label, 1 for the member's own, less its mean over the class; the
largest wins. For `index` it is one number, the index standardised within its class; its score is the correlation of
what the probe says with the index, within the class tested. The penalty is fixed, so that nothing is chosen by results.

*Null*: the same probe with the indices of members shuffled within each class that it is trained on, and the same
shuffles at all points, for all labels. That leaves what is smooth in the class tested as it is: a probe of any smooth
thing correlates with the index by chance more often than labels shuffled there would say. p = (1 + shuffles that reach
the score) / (1 + shuffles), by Holm over the points and classes of a label. Of several classes together (`all`)
shuffles say too little: if the code of one class happens to be like another's, each reads the other, and their scores
agree, while shuffled probes of the two have nothing to do with each other. That makes the variance of a sum at most
twice theirs, so that the distance of shuffled sums from their mean is taken times the square root of 2.

*Upper bound* (`all classes`): the class tested is trained on too, in the even contexts.

Where the index is at most 10, it and its last digit are one; `beyond ten` takes the members after the tenth of all
classes, each read by the probe that its class is left out of. What tokens' frequencies share (low numbers are frequent
in every class) may carry over too: a probe finds what can be read, and not what the model reads.

Letters: C contexts, D width, M labels, N members that are trained on, P those of one class, R shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from atlas.core.multiple import corrected
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.geometry.classes import Members
from atlas.geometry.read_names import ACCURACY, ALL, ALL_CLASSES, BEYOND, CORRELATION, INDEX, MODULI, OTHERS
from atlas.geometry.residuals import Residuals
from atlas.store.job import progress

TEN, LEAST = 10, 4  # members beyond ten without which they have no row
WIDER = 2**0.5
AT_ONCE = 2**23  # numbers of shuffled labels that are held at a time
COLUMNS = ["point", "label", "trained_on", "tested_on", "metric", "value", "ci_low", "ci_high", "chance", "null_median"]
COLUMNS += ["null_high", "p", "claim", "tests", "p_holm", "members", "shuffles"]


@dataclass(frozen=True)
class Settings:
    """``contexts`` of each member; ``shuffles`` for each test that is corrected for together; ``ridge``: penalty in
    mean eigenvalues of what the probe sees; ``seed`` of contexts and shuffles."""

    contexts: int = 8
    shuffles: int = 25
    ridge: float = 0.1
    seed: int = 0


def indices(members: Members) -> np.ndarray:
    """[P] index of each member: what its digits say, else its place from 1."""
    pairs = zip(members.words, members.places, strict=True)
    return np.array([int(word) if word.isdecimal() and word.isascii() else place + 1 for word, place in pairs])


# ---- labels --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Label:
    """What a probe is for: ``name``, and of each class its ``targets`` [P, M] and ``truth`` [P].

    Targets of a class have mean 0. Of `index` M is 1 and the truth the standardised index; else a label's number.
    """

    name: str
    targets: list[np.ndarray]
    truth: list[np.ndarray]

    @property
    def chance(self) -> float:
        """Score of a guess: one label in M, or no correlation."""
        return 1 / self.targets[0].shape[1] if self.name != INDEX else 0.0

    @property
    def metric(self) -> str:
        return CORRELATION if self.name == INDEX else ACCURACY

    def read(self, of: int, said: np.ndarray) -> np.ndarray:
        """[..., P] what a probe's numbers ``said`` [P, ..., M] come to of each member of class number ``of``: 1 where
        the largest is its own label's, else 0; of `index` the number itself, standardised within the class."""
        said = np.moveaxis(said, 0, -2)
        return np.asarray(said.argmax(-1) == self.truth[of]) if self.name != INDEX else standardised(said[..., 0])

    def scores(self, of: int, read: np.ndarray) -> np.ndarray:
        """[..., P] what each member adds to the mean that is the score, from what is ``read`` [..., P] of it."""
        return read if self.name != INDEX else read * self.truth[of]


def standardised(x: np.ndarray) -> np.ndarray:
    """[..., P] with mean 0 and mean square 1; zeros where all are equal."""
    x = x - x.mean(-1, keepdims=True)
    size = np.sqrt((x**2).mean(-1, keepdims=True))
    return x / np.where(size > 0, size, 1)


def labels_of(classes: Sequence[Members]) -> list[Label]:
    """The index modulo 10, 5 and 2, and the index itself."""
    numbers, found = [indices(members) for members in classes], []
    for modulus in MODULI:
        truth = [index % modulus for index in numbers]
        ones = [np.eye(modulus)[own] for own in truth]
        found.append(Label(f"mod {modulus}", [one - one.mean(0) for one in ones], truth))
    unit = [standardised(index.astype(float)) for index in numbers]
    return [*found, Label(INDEX, [x[:, None] for x in unit], unit)]


# ---- probes --------------------------------------------------------------------------------------------------
def reader(trained: Sequence[np.ndarray], tested: np.ndarray, ridge: float) -> np.ndarray:
    """[P, N] what a ridge probe makes of targets: its numbers at ``tested`` [P, D] are this times the targets of the
    members ``trained`` on [P, D] each, all centred.

    The sum over classes of the mean squared error, plus ``ridge`` mean eigenvalues times the squared weights, is least.
    """
    size = np.sqrt(np.mean([(x**2).mean(0) for x in trained], axis=0))
    size[size == 0] = 1
    weight = np.sqrt(np.concatenate([np.full(len(x), 1 / len(x)) for x in trained]))
    x = np.concatenate(trained) / size * weight[:, None]
    gram = x @ x.T
    penalty = ridge * np.trace(gram) / len(gram)
    if not penalty:  # nothing varies: a probe says nothing
        return np.zeros((len(tested), len(gram)))
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    return np.asarray((tested / size) @ x.T @ inverse * weight)


def shuffles_of(sizes: Sequence[int], n: int, seed: int) -> list[np.ndarray]:
    """[n, P] shuffled members of each class of these sizes."""
    rng = np.random.default_rng(seed)
    return [rng.permuted(np.tile(np.arange(size), (n, 1)), axis=1) for size in sizes]


# ---- all points and classes ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Probed:
    """What the probes of all points and classes say, as maps from targets (`reader`), in float32.

    ``other``: [classes][points] of [P, N], the class left out; ``whole``: the same with it, of all members.
    """

    other: list[list[np.ndarray]]
    whole: list[list[np.ndarray]]

    @classmethod
    def of(cls, data: Sequence[Residuals], ridge: float) -> Probed:
        """Of classes with residuals at the same points."""
        points, numbers = range(len(data[0].points)), range(len(data))
        fit = [centred_all(one.fit) for one in data]
        test = [centred_all(one.held_out) for one in data]
        other: list[list[np.ndarray]] = [[] for _ in numbers]
        whole: list[list[np.ndarray]] = [[] for _ in numbers]
        for point in progress(points, "probes"):
            for of in numbers:
                rest = [fit[i][point] for i in numbers if i != of]
                other[of].append(reader(rest, test[of][point], ridge).astype(np.float32))
            every = reader([x[point] for x in fit], np.concatenate([x[point] for x in test]), ridge)
            for of, rows in enumerate(np.split(every, np.cumsum([x.shape[1] for x in test])[:-1])):
                whole[of].append(rows.astype(np.float32))
        return cls(other, whole)


def centred_all(values: np.ndarray) -> np.ndarray:
    """Residuals [points, P, D] less the mean over members."""
    return np.asarray(values - values.mean(1, keepdims=True))


def said(maps: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:
    """[points, P, R, M] what probes, maps [P, N] of each point, say where targets are [N, R, M]."""
    flat = targets.reshape(len(targets), -1)
    return np.stack([(x @ flat).reshape(len(x), *targets.shape[1:]) for x in maps])


@dataclass(frozen=True)
class Scores:
    """Of one label and class, at all points: what is read (`Label.read`) of each member, ``own`` [points, P] by a probe
    that never saw the class and ``bound`` [points, P] by one that did; and sums of what members add to the score of
    shuffled probes, ``null`` [points, R], and of members beyond ten, ``null_beyond``."""

    own: np.ndarray
    bound: np.ndarray
    null: np.ndarray
    null_beyond: np.ndarray


def score(label: Label, of: int, probed: Probed, shuffles: Sequence[np.ndarray], beyond: np.ndarray) -> Scores:
    """Of class number ``of``; ``shuffles`` [R, P] of each class, ``beyond`` [P]: its members that are beyond ten."""
    used = [i for i in range(len(label.targets)) if i != of]

    def values(maps: Sequence[np.ndarray], targets: np.ndarray) -> np.ndarray:  # [points, R, P]
        return np.stack([label.read(of, one) for one in said(maps, targets.astype(np.float32))])

    own = values(probed.other[of], np.concatenate([label.targets[i] for i in used])[:, None])[:, 0]
    bound = values(probed.whole[of], np.concatenate(label.targets)[:, None])[:, 0]
    null, null_beyond = [], []
    size = max(1, AT_ONCE // (probed.other[of][0].shape[1] * label.targets[0].shape[1]))
    for start in range(0, len(shuffles[0]), size):
        part = slice(start, start + size)
        drawn = np.concatenate([label.targets[i][shuffles[i][part].T] for i in used])
        found = label.scores(of, values(probed.other[of], drawn))
        null.append(found.sum(-1))
        null_beyond.append(found[..., beyond].sum(-1))
    return Scores(own, bound, np.concatenate(null, axis=1), np.concatenate(null_beyond, axis=1))


# ---- the table -----------------------------------------------------------------------------------------------
def table(data: Sequence[Residuals], settings: Settings, bootstrap: Bootstrap) -> pd.DataFrame:
    """`probes.parquet` less the model: rows of `COLUMNS`; none of less than two classes, as nothing carries over.

    Holds the maps of all points, P N numbers each, and `AT_ONCE` shuffled labels.
    """
    if len(data) < 2:
        return pd.DataFrame(columns=COLUMNS)
    classes, points = [one.members for one in data], data[0].points
    n = settings.shuffles * len(points) * len(data)
    shuffles = shuffles_of([len(members) for members in classes], n, settings.seed)
    beyond, probed = [indices(members) > TEN for members in classes], Probed.of(data, settings.ridge)
    rows: list[dict[str, Any]] = []
    for label in labels_of(classes):
        found = [score(label, of, probed, shuffles, beyond[of]) for of in range(len(data))]
        for place, point in enumerate(points):
            told = rows_of(label, classes, found, place, bootstrap)
            rows += [{"point": point} | one for one in told]
    made = pd.DataFrame(rows)
    family = made["tested_on"].where(made["tested_on"].isin([ALL, BEYOND]), "by class")
    return corrected(made.assign(shuffles=n), made["label"] + ", " + family)[COLUMNS]


def rows_of(
    label: Label, classes: Sequence[Members], found: Sequence[Scores], place: int, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Rows of a label at point number ``place``, less the point: of each class, of all, of members beyond ten."""
    own, bound, null = ([getattr(one, key)[place] for one in found] for key in ("own", "bound", "null"))
    names, truth = [members.name for members in classes], [*label.truth, np.concatenate(label.truth)]
    tests = list(zip(names, own, bound, null, strict=True))
    tests.append((ALL, np.concatenate(own), np.concatenate(bound), widened(np.sum(null, axis=0))))
    rows = []
    for (name, read, of_bound, shuffled), true in zip(tests, truth, strict=True):
        rows.append({"tested_on": name} | row(label, OTHERS, read, true, shuffled, bootstrap))
        rows.append({"tested_on": name} | row(label, ALL_CLASSES, of_bound, true, None, bootstrap))
    late = np.concatenate([read[indices(members) > TEN] for read, members in zip(own, classes, strict=True)])
    if len(late) >= LEAST and label.metric == ACCURACY:
        null_beyond = widened(np.sum([one.null_beyond[place] for one in found], axis=0))
        rows.append({"tested_on": BEYOND} | row(label, OTHERS, late, late, null_beyond, bootstrap))
    return rows


def widened(null: np.ndarray) -> np.ndarray:
    """[R] shuffled scores of several classes together, `WIDER` apart from their mean (see above)."""
    return np.asarray(null.mean() + WIDER * (null - null.mean()))


def row(
    label: Label, trained_on: str, read: np.ndarray, truth: np.ndarray, null: np.ndarray | None, bootstrap: Bootstrap
) -> dict[str, Any]:
    """One row less its point and what it is tested on: of what is ``read`` [P] of members, their ``truth`` [P], and
    ``null`` [R] sums of shuffled probes, or none."""
    told = {"label": label.name, "trained_on": trained_on, "metric": label.metric, "chance": label.chance}
    if label.metric == ACCURACY:
        estimate = bootstrap.mean(read)
    else:
        estimate = bootstrap.statistic(correlation, read, truth, read**2, truth**2, read * truth)
    told |= interval_columns(estimate) | {"members": len(read)}
    if null is None:
        return told | {"null_median": np.nan, "null_high": np.nan, "p": np.nan}
    median, high = np.quantile(null / len(read), [0.5, 0.95])
    reached = (null >= (estimate[0] - 1e-6) * len(read)).sum()
    return told | {"null_median": median, "null_high": high, "p": (1 + reached) / (1 + len(null))}


def correlation(x: Any, y: Any, xx: Any, yy: Any, xy: Any) -> Any:
    """Pearson's r from means of two numbers, of their squares and of their product; 0 where one does not vary."""
    size = np.sqrt(np.maximum((xx - x**2) * (yy - y**2), 0))
    return np.where(size > 1e-12, (xy - x * y) / np.where(size > 1e-12, size, 1), 0.0)
