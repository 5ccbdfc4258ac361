"""A sparse autoencoder of a study: trained on its text or loaded, and what its features do.

Two steps, with a file between them: `made` gives the autoencoder and how good it is, `found` what its features do. Both
read the same text, which follows from the settings. Memory: 4 T D bytes of activations (T tokens; twice that at
mlp_out), of training 40 F D, of a member's text 4 M F (M of the tokens are members).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.geometry import autoencoder, classes, feature_effects, feature_heads, feature_members, feature_quality
from atlas.geometry.feature_text import Place, Sample, Source, Text, texts, together

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.geometry.autoencoder import Autoencoder
    from atlas.geometry.classes import Members
    from atlas.model.models import Model


@dataclass(frozen=True)
class Settings:
    """Keys of `geometry.features`, and of `geometry`, `prompts` and a model's block what texts are made from."""

    classes: Mapping[str, Any]
    templates: Sequence[str]
    fillers: Mapping[str, Sequence[str]]
    shown: int
    hook: str = "resid_post.0"
    tokens: int = 40000  # of the texts of classes, about
    each: int = 100  # tokens of one kind that are trained on, at most
    expansion: int = 8
    most: int = 2048
    active: int = 4
    steps: int = 600
    prepend_bos: bool = False
    texts: int = 48  # on which the model is run with reconstructions
    permutations: int = 199
    heads: int = 3
    draws: int = 999
    prompts: int = 48
    main_tasks: Sequence[str] = field(default_factory=list)

    @property
    def training(self) -> autoencoder.Training:
        """How autoencoders are trained."""
        return autoencoder.Training(self.expansion, self.most, self.active, self.steps)


@dataclass(frozen=True)
class Read:
    """The study's text and the activations of its two parts."""

    classes: list[Members]
    place: Place
    held_out_text: Text
    trained: Sample
    held_out: Sample


def read(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    frames: Sequence[pd.DataFrame],
    most: int | None,
    settings: Settings,
    seed: int,
) -> Read:
    """Text and activations; ``frames``: `prompts.parquet` of the main tasks, ``most``: tokens that the model takes."""
    place = Place.of(settings.hook, model.n_layers)
    own = classes.of(settings.classes, tokenizer)
    source = Source(tuple(settings.templates), settings.fillers, settings.shown, settings.prepend_bos)
    text = together(*texts(own, source, tokenizer, settings.tokens, seed), frames, most)
    parts = [text.take(rows.nonzero()[:, 0]) for rows in (~text.held_out, text.held_out)]
    trained, held_out = (Sample.of(model, part, place) for part in parts)
    return Read(own, place, parts[1], trained, held_out)


def made(
    model: Model, read: Read, settings: Settings, path: Path | None, bootstrap: Bootstrap
) -> tuple[Autoencoder, pd.DataFrame]:
    """The autoencoder, loaded from ``path`` or trained, and table `features`: how good it and those beside it are."""
    seed, tokens = bootstrap.seed, 0
    if path is not None:
        sae = autoencoder.read(path, read.place.hook, model.d_model)
        saes = {feature_quality.REPORTED: (sae, np.nan)}
    else:
        x = read.trained.capped(settings.each, seed)
        tokens = len(x)
        sae, other = (autoencoder.trained(x, settings.training, seed + i) for i in range(2))
        start = autoencoder.initial(x, settings.training, torch.Generator().manual_seed(seed))
        saes = {feature_quality.REPORTED: (sae, seed), feature_quality.OTHER: (other, seed + 1)}
        saes |= {feature_quality.UNTRAINED: (start, seed)}
    rows = torch.randperm(len(read.held_out_text.tokens), generator=torch.Generator().manual_seed(seed))
    text = read.held_out_text.take(rows[: settings.texts].sort().values)
    sample = read.trained.x, read.held_out.x
    return sae, feature_quality.table(model, saes, *sample, text, read.place, tokens, bootstrap)


def found(
    model: Model,
    read: Read,
    sae: Autoencoder,
    prompts: Mapping[str, tuple[pd.DataFrame, Layout]],
    circuits: set[tuple[int, int]],
    settings: Settings,
    bootstrap: Bootstrap,
) -> dict[str, pd.DataFrame]:
    """All other tables. ``prompts``: task -> held-out prompts of one layout, and it; ``circuits``: (layer, head) of the
    heads of circuits."""
    ids = [token for members in read.classes for token in members.ids]
    fired, held_out = (feature_members.Fired.of(sae, part.x, part.token, ids) for part in (read.trained, read.held_out))
    if not bool((fired.activity > 0).any(0).sum() > 1):
        raise StudyError("geometry.features: less than two features fire on members; give more features or tokens")
    tables = feature_members.find(read.classes, fired, held_out, settings.permutations, bootstrap.seed)
    features = feature_heads.Features.of(sae, read.classes, fired)
    first = read.place.layer + 1
    tables["feature_heads"] = feature_heads.find(
        model, features, read.classes, read.held_out, first, circuits, settings.heads, settings.draws, bootstrap
    )
    examined = []
    for task, (frame, layout) in prompts.items():
        places = layout.places if len(layout.member_positions) == len(layout.members) else []
        if places:
            examined.append(
                feature_effects.Examined.of(task, frame, places[-1], read.classes, features, settings.prompts)
            )
    known = [one for one in examined if one is not None]
    return tables | {"feature_effects": feature_effects.find(model, known, features, read.place, bootstrap)}
