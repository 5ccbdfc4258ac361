"""What a model writes after prompts whose continuation is known, with heads ablated, and random ones beside them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from atlas.circuit.controls import matched_sets
from atlas.generate import prompts as prompt_sets
from atlas.generate.decoding import Generator
from atlas.generate.scores import mark_sensitive, summarise
from atlas.model import activations
from atlas.store.job import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.core.components import Circuit
    from atlas.core.statistics import Bootstrap
    from atlas.model.models import Model

log = logging.getLogger("atlas")

OWN = -1  # the draw of the heads themselves; their controls are draws 0, 1, ...
OUTPUT_COLUMNS = ["set", "prompt", "heads", "draw", "right", "output", "output_tokens"]
Found = dict[tuple["Circuit", int], tuple[bool, list[int]]]  # (heads, prompt) -> (is it right?, ids written)


# ---- heads ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Ablated:
    """Head sets by name, each with its random controls: draw -> heads, `OWN` first; and why there are few controls."""

    draws: dict[str, dict[int, Circuit]]
    notes: dict[str, str]

    @classmethod
    def of(cls, sets: Mapping[str, Circuit], n_layers: int, n_heads: int, controls: int, seed: int) -> Ablated:
        """Controls are as many heads in every layer, all from outside the set (`controls.matched_sets`)."""
        draws, notes = {}, {}
        for name, heads in sets.items():
            random, notes[name] = matched_sets(heads, n_layers, n_heads, controls, seed, outside=True)
            draws[name] = {OWN: heads} | dict(enumerate(random))
        return cls(draws, notes)

    @property
    def distinct(self) -> list[Circuit]:
        """Each set of heads once."""
        return list(dict.fromkeys(heads for draws in self.draws.values() for heads in draws.values()))

    def table(self) -> pd.DataFrame:
        """`generation/heads.parquet` less its model."""
        return pd.DataFrame(
            [
                {"heads": name, "draw": draw, "components": " ".join(map(str, sorted(heads))), "note": self.notes[name]}
                for name, draws in self.draws.items()
                for draw, heads in draws.items()
            ]
        )


# ---- what is written -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Writer:
    """A model that goes on with prompts. ``kind``: of ablation, `zero` or `mean`; ``max_tokens``: that it takes."""

    model: Model
    tokenizer: PreTrainedTokenizerBase
    prepend_bos: bool
    max_tokens: int | None
    kind: str

    def written(self, group: list[dict[str, Any]], sets: list[Circuit], means: torch.Tensor | None = None) -> Found:
        """What stands after each prompt of ``group``, which have one length, with each set of heads ablated.

        ``means`` [L, S, H, d_head]: see `decoding.Removal`. As many tokens are written as the prompt's answer has.
        """
        steps = max(len(row["answer_tokens"]) for row in group)
        texts = torch.tensor([row["tokens"] for row in group]).repeat(len(sets), 1)
        each = [heads for heads in sets for _ in group]
        ids = Generator(self.model).generate(texts, steps, each, means, self.tokenizer.eos_token_id).tolist()
        found: Found = {}
        for i, (heads, new) in enumerate(zip(each, ids, strict=True)):
            row = group[i % len(group)]
            new = new[: len(row["answer_tokens"])]
            found[heads, row["prompt"]] = new == row["answer_tokens"], new
        return found

    def text(self, row: Mapping[str, Any], ids: list[int]) -> str:
        return prompt_sets.text_after(self.tokenizer, row["tokens"], ids, self.tokenizer.eos_token_id)

    def means(self, name: str, corrupted: list[str], length: int) -> torch.Tensor | None:
        """[L, S, H, d_head] what heads are ablated to in prompts of ``length`` S tokens; None for zero."""
        if self.kind != "mean":
            return None
        texts = prompt_sets.corrupted_of_length(name, corrupted, self.tokenizer, self.prepend_bos, length)
        means: torch.Tensor = activations.collect(self.model, torch.tensor(texts))[1]["z"][:, 0]
        return means

    def write(
        self, name: str, block: dict[str, Any], per_text: int, seed: int, ablated: Ablated
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows of `generation/prompts.parquet` and of `generation/outputs.parquet` of one prompt set, less their model.

        ``block``, ``per_text``, ``seed``: see `prompts.make_set`. Prompts that the unablated model gets wrong are
        `failed` and nothing more is written after them.
        """
        pairs, corrupted = prompt_sets.make_set(name, block, per_text, seed)
        rows = prompt_sets.encode_set(name, pairs, self.tokenizer, self.prepend_bos, self.max_tokens)
        outputs: list[dict[str, Any]] = []
        lengths = sorted({len(row["tokens"]) for row in rows if row["status"] == "used"})
        for length in progress(lengths, name):
            group = [row for row in rows if row["status"] == "used" and len(row["tokens"]) == length]
            group = self.unablated(group)
            if group:
                found = self.written(group, ablated.distinct, self.means(name, corrupted, length))
                outputs += self.outputs(name, group, found, ablated)
        log.info("%s: %s", name, {s: sum(row["status"] == s for row in rows) for s in prompt_sets.STATUS})
        return rows, outputs

    def unablated(self, group: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows that the unablated model gets right; all of them gain what it writes, and their status."""
        for row, (right, ids) in zip(group, self.written(group, [frozenset()]).values(), strict=True):
            row |= {"output": self.text(row, ids), "output_tokens": ids}
            if not right:
                row |= {"status": "failed", "reason": "the unablated model gives another answer"}
        return [row for row in group if row["status"] == "used"]

    def outputs(
        self, name: str, group: list[dict[str, Any]], found: Found, ablated: Ablated
    ) -> Iterable[dict[str, Any]]:
        """Rows of `OUTPUT_COLUMNS` of every draw of every head set."""
        for heads_name, draws in ablated.draws.items():
            for draw, heads in draws.items():
                for row in group:
                    right, ids = found[heads, row["prompt"]]
                    cells = {"set": name, "prompt": row["prompt"], "heads": heads_name, "draw": draw}
                    yield cells | {"right": right, "output": self.text(row, ids), "output_tokens": ids}


def generate(
    writer: Writer, blocks: Mapping[str, dict[str, Any]], per_text: int, seed: int, ablated: Ablated, by: Bootstrap
) -> dict[str, pd.DataFrame]:
    """`prompts`, `heads`, `outputs` and `summary` (docs/artifacts.md), less their model; ``blocks``: of prompt sets."""
    listed = ablated.table()
    log.info("%d head sets with their controls, %d of them different", len(listed), len(ablated.distinct))
    rows: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    for name, block in blocks.items():
        of_set, outputs_of_set = writer.write(name, block, per_text, seed, ablated)
        rows += of_set
        written += outputs_of_set
    prompts, outputs = pd.DataFrame(rows), pd.DataFrame(written, columns=OUTPUT_COLUMNS)
    outputs["sensitive"] = mark_sensitive(outputs)
    summary = summarise(outputs, prompts, ablated.notes, by)
    return {"prompts": prompts, "heads": listed, "outputs": outputs, "summary": summary}
