"""How much of what one head writes another one can read, from the weights alone (Elhage et al. 2021, Q-, K- and V-).

A head writes x W_V W_O = x OV to the residual stream, and scores a query x_q against a key x_k by x_q W_Q W_K^T x_k^T.
With Frobenius norms, the composition of a sender s with a receiver r of a later layer is

    Q: |OV_s W_Q W_K^T| / (|OV_s| |W_Q W_K^T|)    K: |OV_s W_K W_Q^T| / (...)    V: |OV_s OV_r| / (|OV_s| |OV_r|)

in [0, 1]: 0 where r reads nothing of what s writes, 1 where both have rank one and agree. Each head reads through its
layer's norm: the norm's weight is part of W_Q, W_K and W_V, and where the norm centres, so is the centring; its scale,
which depends on the text, cancels. The weights of norms of queries and keys are part of W_Q and W_K likewise, and that
of a norm behind attention is part of W_O. Rotation of queries and keys, which depends on their distance, and biases are
left out. Under grouped queries each query head has its group's W_K and W_V.

Two nulls stand beside each score. ``baseline`` is 1 / sqrt(D), the root of the mean square over random orientations of
what s writes to what r reads. ``null_high`` is the 95th percentile of `DRAWS` scores whose two subspaces are turned at
random against each other, singular values kept: one pair in twenty without any alignment exceeds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from atlas.core.components import Circuit
from atlas.core.components import heads as heads_of
from atlas.core.errors import StudyError
from atlas.core.graph import Edge, Graph
from atlas.core.multiple import TOGETHER, corrected
from atlas.edges.searches import auroc

if TYPE_CHECKING:
    from atlas.model.models import Model
    from atlas.model.norm import Norm

KINDS = ("Q", "K", "V")
DRAWS = 200
COLUMNS = ["kind", "sender", "receiver", "port", "value", "baseline", "null_high"]


@dataclass(frozen=True)
class Maps:
    """The maps of one layer's H heads, folded as the module says: W_Q, W_K, W_V [H, D, d_head], W_O [H, d_head, D]."""

    w_q: torch.Tensor
    w_k: torch.Tensor
    w_v: torch.Tensor
    w_o: torch.Tensor


def maps_of(model: Model, layer: int) -> Maps:
    """Raises StudyError where the architecture has no engine, whose weights and norms have known places."""
    if model.weights is None:
        raise StudyError("heads.analyses: composition needs an architecture with a live engine; leave it out")
    block = model.weights.blocks[layer]

    def read(w: torch.Tensor) -> torch.Tensor:
        w = block.norm1.weight[:, None].double() * w.transpose(0, 1).double()
        w = w - w.mean(1, keepdim=True) if block.norm1.centred else w
        return w.repeat_interleave(model.n_heads // len(w), 0)

    def of_heads(norm: Norm | None, w: torch.Tensor) -> torch.Tensor:
        return w if norm is None else w * norm.weight

    w_o, behind = block.w_o.double(), block.norm_attn_out
    w_q, w_k = of_heads(block.norm_q, block.w_q), of_heads(block.norm_k, block.w_k)
    return Maps(read(w_q), read(w_k), read(block.w_v), w_o if behind is None else behind.linear(w_o))


def inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """[H, d_head, D] with the norms of first @ second: [H, D, d_head] @ [H, d_head, D], behind any matrix.

    |first second X| = |R second X| with first = Q R, since Q has orthonormal columns.
    """
    found: torch.Tensor = torch.linalg.qr(first, mode="r").R @ second
    return found


def readings(maps: Maps) -> dict[str, torch.Tensor]:
    """Kind -> [H, D, d_head] whose product behind any matrix has the norm of the receiver's whole map behind it."""
    of_key = torch.linalg.qr(maps.w_k, mode="r").R
    of_query = torch.linalg.qr(maps.w_q, mode="r").R
    of_write = torch.linalg.qr(maps.w_o.mT, mode="r").R
    return {"Q": maps.w_q @ of_key.mT, "K": maps.w_k @ of_query.mT, "V": maps.w_v @ of_write.mT}


def corners(width: int, size: int, seed: int) -> torch.Tensor:
    """[DRAWS, size, size]: what a random rotation of ``width`` dimensions makes of one ``size``-dimensional subspace
    within another, uniform over orientations (Haar)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(DRAWS, width, size, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    found: torch.Tensor = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]
    return found[:, :size]


def high(written: torch.Tensor, read: torch.Tensor, turned: torch.Tensor) -> torch.Tensor:
    """[senders, receivers] 95th percentile of the norm of a product whose factors' subspaces are turned at random.

    Of the factors only the squared singular values [heads, d_head] matter: |diag(a) C diag(b)|^2 is the sum of
    a_i^2 C_ij^2 b_j^2. ``turned``: squares of `corners`.
    """
    found: torch.Tensor = torch.einsum("ksj,rj->ksr", written @ turned, read).sqrt()
    return found.quantile(0.95, dim=0)


def scores(model: Model, seed: int = 0) -> pd.DataFrame:
    """Rows of `COLUMNS`, for every pair of heads of two layers, and every kind, sender by sender.

    ``port``: the receiver as edges name it (graph.py).
    """
    graph = Graph(model.n_layers, model.n_heads, model.n_kv_heads)
    layers = [maps_of(model, layer) for layer in range(model.n_layers)]
    written = [inner(maps.w_v, maps.w_o) for maps in layers]
    read = [readings(maps) for maps in layers]
    spectra = [torch.linalg.svdvals(x) ** 2 for x in written]
    spectra_read = [{kind: torch.linalg.svdvals(x) ** 2 for kind, x in of_layer.items()} for of_layer in read]
    turned, pieces = corners(model.d_model, model.d_head, seed).to(written[0]) ** 2, []
    for s, r in combinations(range(model.n_layers), 2):
        for kind in KINDS:
            a, b = spectra[s], spectra_read[r][kind]
            sizes = (a.sum(-1)[:, None] * b.sum(-1)).sqrt()
            product = torch.einsum("sid,rde->srie", written[s], read[r][kind])
            value, null_high = torch.linalg.matrix_norm(product) / sizes, high(a, b, turned) / sizes
            names = [
                (kind, f"{s}.{i}", f"{r}.{j}", graph.port(r, j, kind.lower()))
                for i, j in np.ndindex(model.n_heads, model.n_heads)
            ]
            piece = pd.DataFrame(names, columns=COLUMNS[:4])
            piece["value"], piece["baseline"] = value.flatten().cpu().numpy(), model.d_model**-0.5
            pieces.append(piece.assign(null_high=null_high.flatten().cpu().numpy()))
    return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=COLUMNS)


# ---- beside the edges of circuits ----------------------------------------------------------------------------
PERMUTATIONS = 1000
ALONE = ["kind", "pairs", "edges", "auroc", "null_low", "null_high", "p"]
AGREEMENT = ["circuit", *ALONE, *TOGETHER]


def against_edges(found: pd.DataFrame, edges: Iterable[Edge], heads: Iterable[str], seed: int = 0) -> pd.DataFrame:
    """Rows of `ALONE`: do pairs whose edge a circuit keeps compose more than its other pairs?

    ``found``: `scores`; ``heads``: names of the circuit's heads, whose pairs are compared. ``auroc``: chance that a
    kept pair scores above another one, ties counting half; nan where all pairs or none are kept. Early heads compose
    more, and edges are not spread evenly over layers either; so the null exchanges the heads of each layer at random,
    which leaves the layers of every pair: 95 % of `PERMUTATIONS` lie between ``null_low`` and ``null_high``, and ``p``
    is the share of them, this order counted in, whose area is at least as large. Where layers hold one head each, p is
    1.
    """
    names, kept = sorted(heads, key=place), {(edge.sender, edge.receiver) for edge in edges}
    at = {name: i for i, name in enumerate(names)}
    layers = np.array([place(name)[0] for name in names])
    orders = [np.arange(len(names)), *permutations(layers, seed)]
    rows = []
    for kind in KINDS:
        own = found[(found.kind == kind) & found.sender.isin(at) & found.receiver.isin(at)]
        s, r = own.sender.map(at).to_numpy(dtype=int), own.receiver.map(at).to_numpy(dtype=int)
        is_kept = np.array([pair in kept for pair in zip(own.sender, own.port, strict=True)], dtype=bool)
        row = {"kind": kind, "pairs": len(own), "edges": int(is_kept.sum())}
        if 0 < is_kept.sum() < len(own):
            values = np.full((len(names), len(names)), np.nan)
            values[s, r] = own.value
            areas = np.array([auroc(values[order[s], order[r]], is_kept) for order in orders])
            low, top = np.percentile(areas[1:], [2.5, 97.5])
            row |= {"auroc": areas[0], "null_low": low, "null_high": top, "p": (areas >= areas[0] - 1e-12).mean()}
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=ALONE)


def of_circuits(
    found: pd.DataFrame, edge_membership: pd.DataFrame, circuits: Mapping[str, Circuit], seed: int = 0
) -> pd.DataFrame:
    """Rows of `AGREEMENT`: `against_edges` of the heads and edges (`edge_membership.parquet`) of each node circuit."""
    pieces = [pd.DataFrame(columns=["circuit", *ALONE])]
    for name, circuit in circuits.items():
        kept = edge_membership[edge_membership.circuit == name]
        rows = against_edges(found, map(Edge, kept.sender, kept.receiver), map(str, heads_of(circuit)), seed)
        pieces.append(rows.assign(circuit=name)[["circuit", *ALONE]])
    return corrected(pd.concat(pieces[1:] or pieces, ignore_index=True), "kept edges compose")


def place(name: str) -> tuple[int, int]:
    """(layer, head) of a head's name."""
    layer, head = name.split(".")
    return int(layer), int(head)


def permutations(layers: np.ndarray, seed: int) -> list[np.ndarray]:
    """`PERMUTATIONS` orders [heads] of heads that exchange those of one layer; ``layers`` [heads]: of each."""
    rng, places = np.random.default_rng(seed), np.arange(len(layers))
    return [places[np.lexsort((rng.random(len(layers)), layers))] for _ in range(PERMUTATIONS)]
