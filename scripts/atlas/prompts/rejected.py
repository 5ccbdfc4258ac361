"""The prompts that could not be used: each with its reason and with its texts as the tokenizer splits them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd

from atlas.prompts import joining
from atlas.prompts.tokens import encode, strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS = ("prompt", "template", "reason", "text", "corrupted_text", "answer", "incorrect")
SPLIT = {  # lists of the characters that each token adds -> (text, what follows it)
    "clean_strings": ("text", "answer"),
    "incorrect_strings": ("text", "incorrect"),
    "corrupted_strings": ("corrupted_text", "answer"),
}
COLUMNS = (*TEXTS, *SPLIT)


def rejected_table(rows: Iterable[tuple[dict[str, Any], str]], tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """One line per rejected prompt, from `layouts.Encoded.rejected_rows`, in order of ``prompt``; columns as above.

    Where two of the three lists of strings part shows why most prompts are rejected. They hold no BOS.
    """
    found = [row | {"reason": reason} for row, reason in rows]
    for column, (text, after) in SPLIT.items():
        texts = [row[text] + joining.continuation(row[after], row.get("join", " ")) for row in found]
        _, spans = encode(tokenizer, texts)
        for row, whole, offsets in zip(found, texts, spans, strict=True):
            row[column] = strings(whole, offsets)
    table = pd.DataFrame(found, columns=list(COLUMNS)).sort_values("prompt", ignore_index=True)
    return table.astype({column: "str" for column in TEXTS if column != "prompt"} | {"prompt": "int64"})
