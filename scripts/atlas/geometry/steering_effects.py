"""What else steering does: to text that has no sequence in it, and to what the model writes.

The same vector is added at the last position of unrelated text, the study's unrelated tasks or, where it has none, the
sentences below: how far the next token's distribution moves (KL of the steered from the unsteered one, nats), how much
less likely the text's own next token becomes (nats), and how often the top token changes. Random directions of the same
norm stand beside it. A vector is of use where it steers and spares these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from atlas.core.statistics import Bootstrap, column_means
from atlas.generate.prompts import text_after
from atlas.geometry.last_position import Edit, Recorded, continued
from atlas.geometry.sequences import HELD_OUT
from atlas.geometry.steering import Steered, random_directions
from atlas.prompts.tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.model.models import Model

NEUTRAL = "neutral sentences"
MOST = 24  # prompts of a text
DRAWS = 20  # random directions beside side effects, at most
EFFECTS = ("kl", "loss_change", "top1_changed")
COLUMNS = ["source", "target", "layer", "coefficient", "chosen", "text", "metric", "value", "ci_low", "ci_high"]
COLUMNS += ["prompts", "draws", "random_mean", "random_hi", "p"]
SAMPLE_COLUMNS = ["source", "target", "layer", "coefficient", "prompt", "expected", "unsteered", "steered"]

SENTENCES = (
    "The old bridge was closed because the river had risen.",
    "She put the kettle on and opened the kitchen window.",
    "A cat slept on the warm roof of the car.",
    "The teacher asked the children to sit down quietly.",
    "Rain fell all night and the garden was full of water.",
    "He forgot his keys and had to wait outside the house.",
    "The train was late, so they walked to the station café.",
    "Fresh bread smells best early in the morning.",
    "The doctor told him to drink more water and sleep.",
    "They painted the door green and the walls white.",
    "My neighbour plays the piano when the sun goes down.",
    "The dog ran across the field and jumped over the fence.",
    "Nobody knew why the lights in the hall were on.",
    "The film was long, but the music was beautiful.",
    "Ships from the south bring fruit to the harbour.",
    "The baker sold all of his cakes before noon.",
    "Snow covered the mountain and the road was closed.",
    "She wrote a letter to her sister and posted it.",
    "The wind blew the papers off the table.",
    "Farmers were glad when the dry summer was over.",
    "The museum keeps a collection of very old maps.",
    "He told a story that made everybody laugh.",
    "The glass fell from the shelf and broke on the floor.",
    "In winter the lake freezes and people skate on the ice.",
)


@dataclass(frozen=True)
class Text:
    """Unrelated text: the tokens that are read, and the id of the one that follows."""

    tokens: list[list[int]]
    following: list[int]


def neutral(tokenizer: PreTrainedTokenizerBase, prepend_bos: bool, max_tokens: int | None) -> Text:
    """The sentences above, as many tokens of each as the shortest one or the model allows, and the next token."""
    bos = [int(tokenizer.bos_token_id)] if prepend_bos else []
    ids, _ = encode(tokenizer, list(SENTENCES))
    ids = [bos + each for each in ids]
    n = min(map(len, ids)) - 1 if max_tokens is None else min(max_tokens, *(len(each) - 1 for each in ids))
    return Text([each[:n] for each in ids], [each[n] for each in ids])


def texts_of(
    unrelated: Mapping[str, pd.DataFrame],
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
    max_tokens: int | None = None,
) -> dict[str, Text]:
    """Name -> unrelated text: at most `MOST` prompts, evenly, of each unrelated task (`prompts.parquet`), with the
    first token of the answer; the sentences above where there is no such task."""
    found = {}
    for name, frame in unrelated.items():
        n = min(MOST, len(frame))
        rows = frame.iloc[[int((i + 0.5) * len(frame) / n) for i in range(n)]]
        answers = (
            [ids[0] for ids in rows["answer_tokens"]] if "answer_tokens" in rows else rows["answer_token"].tolist()
        )
        found[name] = Text([list(map(int, ids)) for ids in rows["tokens"]], list(map(int, answers)))
    return found or {NEUTRAL: neutral(tokenizer, prepend_bos, max_tokens)}


class SideEffects:
    """Unrelated text, read once, and what edits do to it."""

    def __init__(self, model: Model, texts: Mapping[str, Text], bootstrap: Bootstrap, seed: int = 0) -> None:
        self.recorded = {name: Recorded(model, text.tokens) for name, text in texts.items()}
        self.following = {name: torch.tensor(text.following) for name, text in texts.items()}
        self.before = {name: found.gathered("logits").log_softmax(-1) for name, found in self.recorded.items()}
        self.bootstrap, self.seed = bootstrap, seed

    def of(self, edits: Sequence[Edit], name: str) -> np.ndarray:
        """[E, N, `EFFECTS`] of edits after one layer, and the prompts of a text."""

        def read(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            after, before, own = logits.log_softmax(-1), self.before[name][rows], self.following[name][rows][:, None]
            kl = (after.exp() * (after - before)).sum(1)
            lost = (before.gather(1, own) - after.gather(1, own))[:, 0]
            return torch.stack([kl, lost, (after.argmax(1) != before.argmax(1)).float()], 1).double()

        found: np.ndarray = self.recorded[name].each_of(edits, read).numpy()
        return found

    def rows(self, steered: Steered, coefficients: Sequence[float], draws: int) -> list[dict[str, Any]]:
        """Of every text and coefficient at the chosen layer; at the chosen coefficient with random directions."""
        pair, layer, found = steered.matched.pair, steered.layer, []
        key = {"source": pair.source.name, "target": pair.target.name, "layer": layer}
        directions = list(random_directions(steered.added, min(draws, DRAWS), self.seed))
        for name in self.recorded:
            of_each = self.of([Edit(layer, c * steered.vector(layer)) for c in coefficients], name)
            of_random = list(self.of([Edit(layer, each) for each in directions], name).mean(1))
            for coefficient, values in zip(coefficients, of_each, strict=True):
                chosen = coefficient == steered.coefficient
                drawn = of_random if chosen else []
                means = column_means(self.bootstrap, values)
                for i, metric in enumerate(EFFECTS):
                    row = key | {"coefficient": float(coefficient), "chosen": chosen, "text": name, "metric": metric}
                    row |= {name_: column[i] for name_, column in means.items()} | {"prompts": len(values)}
                    row |= {"draws": len(drawn), "random_mean": np.nan, "random_hi": np.nan, "p": np.nan}
                    if drawn:
                        of_metric = np.array(drawn)[:, i]
                        k = (of_metric >= means["value"][i] - 1e-12).sum()
                        row |= {"random_mean": of_metric.mean(), "random_hi": of_metric.max()}
                        row |= {"p": (1 + k) / (1 + len(drawn))}
                    found.append(row)
        return found


def samples(
    model: Model,
    steered: Steered,
    tokenizer: PreTrainedTokenizerBase,
    prompts: int,
    steps: int,
    max_tokens: int | None = None,
) -> list[dict[str, Any]]:
    """A few held-out source prompts with what the model writes after them, unsteered and steered, greedily.

    At most ``prompts`` of them, evenly spread; ``steps`` tokens, or as many as a model that takes ``max_tokens`` can
    write.
    """
    matched, own = steered.matched, steered.matched.rows(HELD_OUT)
    n, found = min(prompts, len(own)), []
    pair, end = matched.pair, tokenizer.eos_token_id
    key: dict[str, Any] = {"source": pair.source.name, "target": pair.target.name}
    key |= {"layer": steered.layer, "coefficient": steered.coefficient}
    for i in (own[int((k + 0.5) * len(own) / n)] for k in range(n)):
        ids = matched.source_tokens[i]
        most = steps if max_tokens is None else min(steps, max_tokens - len(ids) + 1)  # the last is not read
        written = [
            continued(model, torch.tensor([ids]), most, edit, end)[0].tolist()
            for edit in (Edit(), Edit(steered.layer, steered.added))
        ]
        texts = [text_after(tokenizer, ids, new, end) for new in written]
        row = key | {"prompt": matched.text[i], "expected": matched.expected[i]}
        found.append(row | dict(zip(("unsteered", "steered"), texts, strict=True)))
    return found


def tables(effects: Iterable[dict[str, Any]], written: Iterable[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """`steering_side_effects.parquet` and `steering_samples.parquet`, less their model."""
    return {
        "steering_side_effects": pd.DataFrame(list(effects), columns=COLUMNS),
        "steering_samples": pd.DataFrame(list(written), columns=SAMPLE_COLUMNS),
    }
