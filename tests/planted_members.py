"""Residuals with a known shape, and without any."""

import numpy as np

from atlas.geometry.classes import Members
from atlas.geometry.residuals import Residuals

D, CONTEXTS = 40, 4


def members_of(n, name="class", cyclic=False, first=0, words=None):
    """n members of a class, tokens from 100 x the length of its name on."""
    words = words or [f"{name}{i}" for i in range(first, first + n)]
    ids = tuple(100 * len(name) + i for i in range(n))
    return Members(name, tuple(words), ids, tuple(range(n)), n, cyclic)


def planted(members, columns, noise=0.1, seed=0, d=D, scale=1.0):
    """Residuals [1, C, P, D] that hold ``columns`` [P, K] along K random directions, noise of each member, and less of
    each context; 0 columns: nothing but that."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((d, max(columns.shape[1], 1))))[0].T[: columns.shape[1]]
    own = scale * columns @ directions + noise * rng.standard_normal((len(members), d))
    each = 0.02 * rng.standard_normal((CONTEXTS, len(members), d)) + rng.standard_normal((CONTEXTS, 1, d))
    return Residuals(members, (0,), (own + each)[None].astype(np.float32))


def isotropic(members, seed=0, d=D):
    return planted(members, np.zeros((len(members), 0)), 1.0, seed, d)


def ring(n, around=None):
    turn = 2 * np.pi * np.arange(n) / (around or n)
    return np.column_stack([np.cos(turn), np.sin(turn)])
