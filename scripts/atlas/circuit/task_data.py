"""The data of a task and a model, put together once from the files that a rule names: prompts, means, ablators.

What edges need beside it is made from it in `edges.task_data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atlas.circuit.ablation import Ablator
from atlas.circuit.kinds import known
from atlas.circuit.legacy import LegacyAblator
from atlas.circuit.replacement import Replacement, replacement
from atlas.core.errors import StudyError
from atlas.model import models
from atlas.prompts import clean_scores, layouts
from atlas.prompts.batch import Prompts
from atlas.store import artifacts, tensors
from atlas.store.memo import Memo, tensor_digest

if TYPE_CHECKING:
    import pandas as pd


class TaskData:
    """Reads each file when it is first asked for, and once; prompts and replacements of a split are made once.

    paths: `model` (`model.json`), `prompts`, `clean`, `means` and `activations`, those that are asked for. identity:
    the columns ``model`` and ``task`` of all tables. folder, run: where the model is, and how it runs (`models.load`).
    kind, legacy_mlp_means, allow_negative_clean: as in the configuration. memo_folder: where scores are kept on disk,
    to be found again by any job that scores the same circuits on the same prompts; None: nowhere.
    """

    def __init__(
        self,
        paths: Mapping[str, Any],
        identity: dict[str, str],
        folder: Path,
        run: dict[str, Any],
        kind: str = "mean",
        legacy_mlp_means: bool = False,
        allow_negative_clean: bool = False,
        memo_folder: Path | str | None = None,
    ) -> None:
        self.paths, self.identity, self.folder, self.run = paths, identity, folder, run
        self.kind, self.legacy_mlp_means, self.memo_folder = kind, legacy_mlp_means, memo_folder
        self.allow_negative_clean = allow_negative_clean
        self._frames: dict[str, pd.DataFrame] = {}
        self._prompts: dict[str, Prompts] = {}
        self._substitutes: dict[tuple[str, str], Replacement] = {}

    # ---- files -------------------------------------------------------------------------------------------
    @property
    def task(self) -> str:
        return self.identity["task"]

    @cached_property
    def description(self) -> dict[str, Any]:
        """`model.json`."""
        return artifacts.read_json(self.paths["model"])

    @cached_property
    def model(self) -> models.Model:
        return models.load(self.folder, settings=self.description["settings"], **self.run)

    @cached_property
    def float32_model(self) -> models.Model | None:
        """The same checkpoint in float32, beside `model`; None where that is not in a half.

        Takes twice the memory of the half's weights in addition. Raises StudyError where a device has no room for it.
        """
        if torch.finfo(self.model.dtype).bits >= 32:
            return None
        run = self.run | {"dtype": "float32", "memory_mb": self.model.memory_mb}
        try:
            return models.load(self.folder, settings=self.description["settings"], **run)
        except torch.OutOfMemoryError:
            half = str(self.model.dtype).removeprefix("torch.")
            raise StudyError(
                f"models.{self.identity['model']}.dtype: {half} needs the weights in float32 too, for "
                f"decisions that are too close for it, and {self.model.device} has no room for both; set "
                "search.check_in_float32: false to trust it everywhere"
            ) from None

    @cached_property
    def every_prompt(self) -> pd.DataFrame:
        """`prompts.parquet`, with those that did not pass the filter."""
        return artifacts.read_table(self.paths["prompts"])

    @cached_property
    def clean(self) -> pd.DataFrame:
        return artifacts.read_table(self.paths["clean"])

    @cached_property
    def means(self) -> dict[str, Any]:
        return tensors.read(self.paths["means"])

    @cached_property
    def cache(self) -> dict[str, Any] | None:
        """`activations.pt`, where the rule names it."""
        return tensors.read(self.paths["activations"]) if "activations" in self.paths else None

    @cached_property
    def report_split(self) -> str:
        """The split that results are reported on."""
        return clean_scores.report_split(self.every_prompt, self.clean)

    # ---- splits ------------------------------------------------------------------------------------------
    def frame(self, split: str) -> pd.DataFrame:
        """Prompts of a split that passed the filter, in order of ``prompt``."""
        if split not in self._frames:
            self._frames[split] = clean_scores.kept_prompts(self.every_prompt, self.clean, split)
        return self._frames[split]

    def prompts(self, split: str) -> Prompts:
        """The same as tensors, with the groups of the means."""
        if split not in self._prompts:
            self._prompts[split] = Prompts.from_frame(self.frame(split), self.means["groups"])
        return self._prompts[split]

    def substitute(self, split: str, kind: str | None = None) -> Replacement:
        """What replaces ablated components on the prompts of a split; ``kind``: by default that of the study."""
        key = split, kind or self.kind
        if key not in self._substitutes:
            self._substitutes[key] = self.replacing(self.prompts(split), kind)
        return self._substitutes[key]

    def replacing(self, prompts: Prompts, kind: str | None = None) -> Replacement:
        """The same on any prompts of the task, whose groups are those of the means."""
        name = kind or self.kind
        cache = self.cache if known(name).aligned else None  # large, and no other kind reads it
        return replacement(name, self.model, prompts, self.means, cache)

    # ---- ablators ----------------------------------------------------------------------------------------
    def ablators(self, model: models.Model | None = None) -> dict[str, Ablator]:
        """Split -> a new ablator: of the prompts searched on; last, where they are others, of those reported on."""
        return {split: self.ablator(split, model=model) for split in dict.fromkeys(["search", self.report_split])}

    def ablator(
        self,
        split: str,
        metrics: Iterable[str] = ("logit_diff",),
        kind: str | None = None,
        roles: Sequence[dict[str, list[int]]] | None = None,
        model: models.Model | None = None,
    ) -> Ablator:
        """A new ablator of components on a split; ``roles`` of each layout (`layouts.roles_of`) where its circuits hold
        sites. ``kind``: another than that of the study, whose means are then those of the unablated model. ``model``:
        by default `model`; what replaces ablated components is of that in any case."""
        prompts, substitute = self.prompts(split), self.substitute(split, kind)
        if roles:
            prompts = prompts.with_roles_of(roles, self.frame(split).layout.to_list())
        legacy = self.legacy_mlp_means and kind is None
        model = model or self.model
        memo = self.memo(prompts, substitute, metrics, kind, legacy, model)
        if not legacy:
            return Ablator(model, prompts, substitute, metrics, memo=memo)
        self._refuse_legacy()
        return LegacyAblator(model, prompts, substitute, self.prompts("search"), metrics, memo=memo)

    def _refuse_legacy(self) -> None:
        if self.kind != "mean":
            raise StudyError(f"search.legacy_mlp_means: true needs ablation.kind mean, not {self.kind}")
        if layouts.several(self.means["groups"]):
            raise StudyError(
                f"search.legacy_mlp_means: true needs prompts of one layout, and those of tasks.{self.task} have "
                f"several; set its file.min_layout above {len(self.every_prompt)} to keep the most common one alone"
            )

    def memo(
        self,
        prompts: Prompts,
        substitute: Replacement,
        metrics: Iterable[str],
        kind: str | None = None,
        legacy: bool = False,
        model: models.Model | None = None,
    ) -> Memo | None:
        """The memo of everything that determines a score, or None without a folder; ``model``: as of `ablator`."""
        if self.memo_folder is None:
            return None
        model = model or self.model
        context = {
            "model": [self.description[k] for k in ("weights", "config")],
            "dtype": str(model.dtype),
            "device": model.device,
            "kind": kind or self.kind,
            "legacy_mlp_means": legacy,
            "prompts": [tensor_digest(x) for x in (prompts.tokens, prompts.answer, prompts.incorrect)],
            "answers": list(prompts.answer.shape),
            "position": None if prompts.position is None else prompts.position.tolist(),
            "roles": {name: tensor_digest(mask) for name, mask in (prompts.roles or {}).items()},
            "substitute": [tensor_digest(x) for x in vars(substitute).values()],
        }
        return Memo(self.memo_folder, context, metrics)
