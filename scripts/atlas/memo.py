"""Scores of evaluated circuits on disk, so that a killed search resumes and another order or threshold reuses them.

A memo is no artifact: it is never a declared output (Snakemake deletes those of a failed job), results do not depend on
it, and it may be deleted at any time. Its file is named after everything that determines a score, so a stale score
cannot be found.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas.artifacts import digest
from atlas.components import Circuit

CODE: tuple[str, ...]
CODE = ("ablation", "activations", "architectures", "checkpoint", "edges", "engine", "forward", "graph", "metrics")
CODE += ("models",)
LONGEST = 400  # characters of a name that is stored as it is


def code_digest() -> str:
    """Content of the modules that compute scores."""
    folder = Path(__file__).parent
    return digest({name: hashlib.sha256((folder / f"{name}.py").read_bytes()).hexdigest() for name in CODE})


def tensor_digest(tensor: torch.Tensor) -> str:
    return digest(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


class Memo:
    """Circuit -> per-prompt scores [N] of each metric, for one context (a dict that JSON can hold)."""

    def __init__(self, folder: Path | str, context: dict[str, Any], metrics: Iterable[str]) -> None:
        self.metrics = tuple(metrics)
        key = digest({"context": context, "metrics": self.metrics, "code": code_digest()})
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.path = Path(folder) / f"{key}.sqlite"
        self.database = sqlite3.connect(self.path, timeout=60, isolation_level=None)  # each put is a transaction
        self.database.execute("PRAGMA journal_mode = WAL")  # survives a killed process without waiting for the disk
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("CREATE TABLE IF NOT EXISTS scores (circuit TEXT PRIMARY KEY, value BLOB)")

    def get(self, circuit: Circuit) -> dict[str, np.ndarray] | None:
        with closing(self.database.execute("SELECT value FROM scores WHERE circuit = ?", (name(circuit),))) as found:
            row = found.fetchone()
        if row is None:
            return None
        values = np.frombuffer(row[0], dtype=np.float64).reshape(len(self.metrics), -1)
        return dict(zip(self.metrics, values, strict=True))

    def put(self, circuit: Circuit, scores: dict[str, np.ndarray]) -> None:
        value = np.stack([scores[metric] for metric in self.metrics]).tobytes()
        self.database.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", (name(circuit), value))


@lru_cache(maxsize=16)  # looked up first, then stored
def name(circuit: Circuit) -> str:
    """Its members, or their digest where they are many (edge circuits have thousands)."""
    members = " ".join(sorted(map(str, circuit)))
    return members if len(members) <= LONGEST else hashlib.sha256(members.encode()).hexdigest()
