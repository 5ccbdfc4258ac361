"""The aligned prompts of a task for one model: made by its generator, encoded and divided."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import generator, layouts, splits, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompts_of(
    name: str,
    block: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
    max_tokens: int | None,
    root: Path | str | None,
) -> tuple[layouts.Encoded, dict[str, list[str]]]:
    """The prompts of a task's block (over the defaults of `prompts`), and by kind the fillers that were left out.

    A filler that is not one token is left out. With ``multi_token`` in the block members and answers may have several.
    ``max_tokens``: the longest prompt that the model takes; ``root``: the folder that paths of files start from.
    Prompts are held out after alignment, so that those rejected do not empty a side. Raises StudyError where the
    prompts cannot be made, aligned or divided.
    """
    source, multi_token = generator.of(block), block.get("multi_token", False)
    made = source.make(name, block, tokenizer, root)
    encoded = tokens.encode_prompts(made.rows, tokenizer, prepend_bos, name, multi_token, made.min_layout)
    longest = max(len(row["tokens"]) for row in encoded.rows)
    if multi_token:  # all but the last token of an answer is fed
        answers = (row[key] for row in encoded.rows for key in ("answer_tokens", "incorrect_tokens"))
        longest += max(map(len, answers)) - 1
    if max_tokens and longest > max_tokens:
        raise StudyError(
            f"tasks.{name}: prompts have {longest} tokens{' with their answers' if multi_token else ''}, the model "
            f"takes {max_tokens}; {source.shorter}"
        )
    how = block["hold_out"], block["held_out_share"], block["seed"]
    splits.split(name, encoded.rows, *how, rejected=encoded.rejected.total())
    if multi_token or len(encoded.layouts) > 1:
        encoded = layouts.searched(encoded)
    return encoded, made.dropped


def summary(encoded: layouts.Encoded, block: dict[str, Any], dropped: dict[str, list[str]]) -> dict[str, Any]:
    """What `prompts.json` says of a task's prompts: layouts, counts (by what became of them), and how they were made.

    ``dropped``: as `prompts_of` returns it.
    """
    hold_out = splits.chosen_for(encoded.rows, block["hold_out"], block["held_out_share"])
    counts = {"read": len(encoded.rows) + encoded.rejected.total()} | splits.counts(encoded.rows)
    undivided = splits.undivided(encoded.rows, hold_out) if hold_out else []
    return {
        "layout": encoded.layout,
        "layouts": encoded.layouts,
        "counts": counts | {"rejected": dict(encoded.rejected), "undivided": len(undivided)},
        "hold_out": hold_out,
        "dropped_fillers": dropped,
        "seed": block["seed"],
        "filler_seed": block["filler_seed"],
    }


def warnings(encoded: layouts.Encoded, info: dict[str, Any]) -> Iterator[str]:
    """What a user should know of a task's prompts, one line each; ``info``: `prompts.json`."""
    counts, slow = info["counts"], info["slow_tokenizer"]
    if counts["undivided"]:
        example = splits.undivided(encoded.rows, info["hold_out"])[0]
        said = "strata are searched on alone, being too small to divide or tied to others, e.g."
        yield f"{counts['undivided']} {said} {example}"
    if counts["duplicates"]:
        yield f"{counts['duplicates']} prompts repeat another; each stays on its side"
    if slow and slow["different"]:
        said = f"the fast tokenizer splits {slow['different']} of {slow['compared']} texts unlike tokenizer.model"
        yield f"{said}, e.g. {slow['example']!r}"
