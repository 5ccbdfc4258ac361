"""What the model reads, token by token: ids, strings and roles of a few prompts; and a second opinion on the ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.core.positions import Layout
from atlas.prompts import joining
from atlas.prompts.layouts import Encoded
from atlas.prompts.tokens import encode, strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("prompt", "template", "run", "position", "id", "piece", "string", "role")


def table(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Of every layout the rows of one prompt per template; see `rows`."""
    found = []
    for number, layout in enumerate(encoded.layouts):
        prompts = [prompt for prompt in encoded.rows if prompt["layout"] == number]
        found += rows(prompts, Layout.of(layout), tokenizer)
    return found


def rows(prompts: list[dict[str, Any]], layout: Layout, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
    """Every token of one prompt per template, clean and corrupted, with the answers that follow; columns as above.

    ``piece`` is the tokenizer's own name of a token, ``string`` the characters of the text that it adds (a word's
    leading space included; none for BOS, and none for a token that ends within a character). Roles are those of
    `Layout.roles`, and ``answer`` and ``incorrect`` at the positions after the last, one for each of their tokens.
    """
    first: dict[Any, dict[str, Any]] = {}
    for prompt in prompts:
        first.setdefault(prompt["template"], prompt)
    found = []
    for prompt in first.values():
        for run, text, ids, ending, role in (
            ("clean", "text", "tokens", "answer", "answer"),
            ("clean", "text", "tokens", "incorrect", "incorrect"),
            ("corrupted", "corrupted_text", "corrupted_tokens", "answer", "answer"),
        ):
            answer = joining.continuation(prompt[ending], prompt.get("join", " "))
            added = _strings(tokenizer, prompt[text] + answer, layout.bos)
            after = prompt[f"{ending}_tokens"] if f"{ending}_tokens" in prompt else [prompt[f"{ending}_token"]]
            everything = [*prompt[ids], *after]
            named = [*map(layout.role, range(len(prompt[ids])))] + [role] * len(after)
            table = [
                {"prompt": prompt["prompt"], "template": prompt["template"], "run": run, "position": i, "id": token}
                | {"piece": tokenizer.convert_ids_to_tokens(token), "string": string, "role": of}
                for i, (token, string, of) in enumerate(zip(everything, added, named, strict=True))
            ]
            found += table[-len(after) :] if role == "incorrect" else table
    return found


def _strings(tokenizer: PreTrainedTokenizerBase, text: str, prepend_bos: bool) -> list[str]:
    """The characters that each token adds to those before it, an empty string for BOS."""
    _, (spans,) = encode(tokenizer, [text])
    return [""] * prepend_bos + strings(text, spans)


def compare_with_slow(
    folder: Path | str, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> dict[str, Any] | None:
    """How often the SentencePiece model that lies beside a fast tokenizer splits these texts differently.

    ``{"compared", "different", "example"}`` (the first text that differs, or None); None where the folder has no such
    model. Pieces are compared, not ids, since some families number them differently.
    """
    file = Path(folder) / "tokenizer.model"
    if not file.is_file():
        return None
    import sentencepiece

    slow = sentencepiece.SentencePieceProcessor(model_file=str(file))
    ids, _ = encode(tokenizer, texts)
    fast = [tokenizer.convert_ids_to_tokens(row) for row in ids]
    different = [text for text, a, b in zip(texts, slow.encode(texts, out_type=str), fast, strict=True) if a != b]
    return {"compared": len(texts), "different": len(different), "example": different[0] if different else None}
