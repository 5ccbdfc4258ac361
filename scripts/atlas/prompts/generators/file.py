"""The user's own table of prompts, for a block with ``file``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.errors import StudyError
from atlas.prompts import layouts, words
from atlas.prompts.generator import Generator, Made

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEEDED = {"sequences": "members", "templates": "template"}  # hold_out -> the column that it goes by


def check(name: str, block: dict[str, Any]) -> None:
    """What is held out has its column; what the file holds is read in the first job."""
    if "file" not in block:
        raise StudyError(f"tasks.{name}: give `file`")
    needed = NEEDED.get(block["hold_out"])
    if block["held_out_share"] and needed and not block["file"].get("columns", {}).get(needed):
        raise StudyError(
            f"tasks.{name}.hold_out: {block['hold_out']} of a file needs tasks.{name}.file.columns.{needed}; name it, "
            "or set prompts"
        )


def make(name: str, block: dict[str, Any], tokenizer: PreTrainedTokenizerBase, root: Path | str | None) -> Made:
    """The rows of the table, in their order; ``root``: the folder that the file's path starts from.

    Raises StudyError on a file that cannot be read as one, and on answers that would continue a prompt's last word.
    """
    from atlas.prompts import files

    assert root is not None
    rows = files.prompts_from_file(name, block["file"], root)
    if not files.says_joins(block["file"]):
        words.refuse_continued_words(tokenizer, name, rows, "file.join")
    return Made(rows, min_layout=block["file"].get("min_layout", layouts.MIN_LAYOUT))


GENERATOR = Generator(make, check, varies=(), shorter="select shorter ones")
