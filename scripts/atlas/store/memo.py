"""Scores of evaluated circuits on disk, so that a killed search resumes and another order or threshold reuses them.

A memo is no artifact: it is never a declared output (Snakemake deletes those of a failed job), results do not depend on
it, and it may be deleted at any time. Its folder is named after everything that determines a score, so a stale score
cannot be found. Each process appends to a file of its own and reads everybody's, so that jobs of several machines can
share a network file system, where locks are not to be relied on. Every record carries a digest: one that was cut short
by a kill, or damaged since, counts as absent and is computed again.
"""

import errno
import hashlib
import struct
import uuid
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from atlas.core.components import Circuit
from atlas.core.graph import EdgeMask
from atlas.store import sources
from atlas.store.artifacts import digest

CODE = tuple(
    f"scripts/atlas/{name}.py" for name in ("circuit/ablation", "circuit/legacy", "edges/engine", "store/memo")
)  # with all that they import
HEADER = struct.Struct("<16s16sQ")  # digest of the circuit, digest of the record, bytes of its scores


def code_digest() -> str:
    """Content of the modules that compute scores, and versions of the packages that they import."""
    return sources.of(*CODE).digest()


def tensor_digest(tensor: torch.Tensor) -> str:
    """16 hexadecimal digits of a tensor's numbers, on any device; shape and dtype are not in it."""
    return digest(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


class Memo:
    """Circuit -> per-prompt scores [N] of each metric, for one context (a dict that JSON can hold)."""

    def __init__(self, folder: Path | str, context: dict[str, Any], metrics: Iterable[str]) -> None:
        self.metrics = tuple(metrics)
        key = digest({"context": context, "metrics": self.metrics, "code": code_digest()})
        self.folder = Path(folder) / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.places: dict[bytes, tuple[BinaryIO, int]] = {}  # digest of a circuit -> file and where its record starts
        for path in sorted(self.folder.glob("*.scores")):
            self._index(path)
        self.own: BinaryIO | None = None

    def _index(self, path: Path) -> None:
        """Note where each whole record of a file starts; what they hold is checked when it is asked for."""
        file, size, place = open(path, "rb"), path.stat().st_size, 0  # noqa: SIM115, read as long as the memo lives
        while place + HEADER.size <= size:
            file.seek(place)
            circuit, _, length = HEADER.unpack(file.read(HEADER.size))
            if place + HEADER.size + length > size:
                return
            self.places[circuit] = file, place
            place += HEADER.size + length

    def get(self, circuit: Circuit | EdgeMask) -> dict[str, np.ndarray] | None:
        """Metric -> [N] of a circuit; None where it is not there, or is damaged."""
        wanted = name(circuit)
        if wanted not in self.places:
            return None
        file, place = self.places[wanted]
        file.seek(place)
        _, check, length = HEADER.unpack(file.read(HEADER.size))
        scores = file.read(length)
        if check != digest_of(wanted + scores):
            return None
        values = np.frombuffer(scores, dtype=np.float64).reshape(len(self.metrics), -1)
        return dict(zip(self.metrics, values, strict=True))

    def put(self, circuit: Circuit | EdgeMask, scores: dict[str, np.ndarray]) -> None:
        """Add a circuit's scores, metric -> [N], to this process's own file; raises OSError where the disk is full."""
        if self.own is None:  # unbuffered: what is put is out of the process, and survives its being killed
            self.own = open(self.folder / f"{uuid.uuid4().hex}.scores", "w+b", buffering=0)  # noqa: SIM115
        values, wanted = np.stack([scores[metric] for metric in self.metrics]).tobytes(), name(circuit)
        place, record = self.own.seek(0, 2), HEADER.pack(wanted, digest_of(wanted + values), len(values)) + values
        if self.own.write(record) < len(record):
            raise OSError(errno.ENOSPC, "No space left on device", self.own.name)
        self.places[wanted] = self.own, place


def digest_of(content: bytes) -> bytes:
    """BLAKE2b, 16 bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def name(circuit: Circuit | EdgeMask) -> bytes:
    """Digest of a circuit's members."""
    return circuit.digest if isinstance(circuit, EdgeMask) else name_of(circuit)


@lru_cache(maxsize=16)  # looked up first, then stored
def name_of(circuit: Circuit) -> bytes:
    """The same of components."""
    return digest_of(" ".join(sorted(map(str, circuit))).encode())
