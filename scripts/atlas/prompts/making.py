"""The aligned prompts of a task for one model: made from members and templates, or read from the user's file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import files as prompt_files
from atlas.prompts import layouts, splits, tasks, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompts_of(
    name: str,
    block: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
    max_tokens: int | None,
    root: Path | str | None,
) -> tuple[tokens.Encoded, dict[str, list[str]]]:
    """The prompts of a task's block (over the defaults of `prompts`), and by kind the fillers that were left out.

    A filler that is not one token is left out. With ``multi_token`` in the block members and answers may have several.
    ``max_tokens``: the longest prompt that the model takes; ``root``: the folder that paths of files start from.
    Prompts are held out after alignment, so that those rejected do not empty a side. Raises StudyError where the
    prompts cannot be made, aligned or divided.
    """
    dropped, multi_token, min_layout = {}, block.get("multi_token", False), None
    if "file" in block:
        assert root is not None
        rows = prompt_files.prompts_from_file(name, block["file"], root)
        min_layout = block["file"].get("min_layout", layouts.MIN_LAYOUT)
        if not prompt_files.says_joins(block["file"]):
            tokens.refuse_continued_words(tokenizer, name, rows, "file.join")
    else:
        usable = {kind: tokens.single_token_fillers(tokenizer, words) for kind, words in block["fillers"].items()}
        dropped = {kind: [w for w in block["fillers"][kind] if w not in usable[kind]] for kind in usable}
        _refuse_few_fillers(name, block, usable, tokenizer)
        task = tasks.Task.from_config(name, block | {"fillers": usable})
        before = [tasks.Template.parse(pattern).before_member for pattern in task.templates]
        tokens.check_members(tokenizer, name, task.members, before, multi_token)
        if multi_token:
            task = replace(task, tokens=tuple(tokens.tokens_in_text(tokenizer, list(task.members), before[0])))
        rows = tasks.make_prompts(task)

    encoded = tokens.encode_prompts(rows, tokenizer, prepend_bos, name, multi_token, min_layout)
    longest = max(len(row["tokens"]) for row in encoded.rows)
    if multi_token:  # all but the last token of an answer is fed
        answers = (row[key] for row in encoded.rows for key in ("answer_tokens", "incorrect_tokens"))
        longest += max(map(len, answers)) - 1
    if max_tokens and longest > max_tokens:
        raise StudyError(
            f"tasks.{name}: prompts have {longest} tokens{' with their answers' if multi_token else ''}, the model "
            f"takes {max_tokens}; {'select shorter ones' if 'file' in block else 'show fewer members'}"
        )
    how = block["hold_out"], block["held_out_share"], block["seed"]
    splits.split(name, encoded.rows, *how, rejected=encoded.rejected.total())
    if multi_token or len(encoded.layouts) > 1:
        encoded = layouts.searched(encoded)
    return encoded, dropped


def _refuse_few_fillers(
    name: str, block: dict[str, Any], usable: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise StudyError where a template's kind of filler has too few words of one token; says how near others come."""
    kinds = dict.fromkeys(tasks.Template.parse(pattern).filler_kind for pattern in block["templates"])
    needed = block["shown"] + 1
    for kind in kinds:
        words = block["fillers"].get(kind, []) if kind else []
        if kind is None or len(words) < needed or len(usable[kind]) >= needed:
            continue  # unknown, or too few for any tokenizer: refused with the task
        counts = tokens.tokens_in_text(tokenizer, words, "so ")
        near = ", ".join(f"{word!r} has {n}" for n, word in sorted(zip(counts, words, strict=True))[:3])
        raise StudyError(
            f"tasks.{name}: {len(usable[kind]) or 'none'} of the {len(words)} words of fillers.{kind} can be used as "
            f"one token in this model's tokenizer ({near}), and a prompt needs {needed}; give fillers.{kind} words of "
            f"one token, or templates without {{{kind}}}"
        )
