"""Which analyses of order a model can be served, found out before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.geometry import autoencoder
from atlas.geometry.feature_text import Place
from atlas.heads.analyses import EDGES, Reasons

if TYPE_CHECKING:
    from atlas.model.models import Model

# Analysis -> the analyses that ask as much of a model: a live engine, its final norm, what single heads write
NEEDS: dict[str, tuple[str, ...]] = {
    "successors": ("ov",),
    "tuned_lens": ("lens",),
    "directions": (EDGES, "ov"),
    "neurons": (EDGES,),
    "features": ("ov",),
}


def reasons(found: Reasons) -> Reasons:
    """Why analyses of order cannot be served, from `heads.analyses.reasons`; none of those that can."""
    return {name: found[need] for name, needs in NEEDS.items() for need in reversed(needs) if need in found}


def check_features(model: Model, hook: str, path: Path | None) -> None:
    """Raise StudyError where features are asked of a hook that the model lacks, or an autoencoder is not for it."""
    place = Place.of(hook, model.n_layers)
    if path is not None:
        autoencoder.read(path, place.hook, model.d_model)


def wanted(edges: bool, heads: Iterable[str], order: Iterable[str]) -> dict[str, list[str]]:
    """Key of the configuration -> the analyses that a study asks for (`heads.analyses.refuse`)."""
    return {"edges.methods": [EDGES] if edges else [], "heads.analyses": [*heads], "geometry.analyses": [*order]}
