"""Prompts whose continuation is known, for generation under ablation: written out, or made from ordered members.

A prompt set is a list of (text, answer). With ``members``, ``{0}`` stands for a member and ``{k}`` for the one k steps
on, so that one wording makes a prompt from every member it fits: ``["{0} {1} {2}", " {3}"]``.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.core.errors import StudyError
from atlas.prompts import joining, rejections, tokens
from atlas.prompts.corruptions import MAX_DRAWS
from atlas.prompts.tasks import expand_members

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STEPS = re.compile(r"-?[0-9]{1,4}")
CORRUPTED = 64  # corrupted texts per wording, for the means
STATUS = ("used", "failed", "rejected")  # failed: the unablated model does not give the answer


def slots(where: str, pattern: str) -> list[tuple[str, int | None]]:
    """(literal text, steps from the first member to the member after it); raises StudyError on any other field."""
    try:
        parsed = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise StudyError(f"{where}: {pattern!r}: {error}; write {{{{ and }}}} for braces that are text") from None
    wrong = [f for _, f, spec, conversion in parsed if f is not None and (not STEPS.fullmatch(f) or spec or conversion)]
    if wrong:
        raise StudyError(
            f"{where}: {{{wrong[0]}}} in {pattern!r} is not a number of steps; write {{0}} for a member and {{2}} for "
            "the one two steps on"
        )
    return [(literal, None if field is None else int(field)) for literal, field, _, _ in parsed]


def with_join(where: str, text: str, answer: str, join: str | None) -> str:
    """The answer as it follows its text; raises StudyError where that can be read in two ways (joining.py)."""
    try:
        return joining.continuation(answer, joining.between(text, (answer,), join))
    except joining.Unclear as unclear:
        raise StudyError(
            f"{where}.join: {unclear}; begin the answer with its space, or set join: space or join: exact"
        ) from None


def make_set(name: str, block: dict[str, Any], per_text: int, seed: int) -> tuple[list[tuple[str, str]], list[str]]:
    """The (text, answer) pairs of a prompt set, and corrupted texts for means.

    ``block`` has ``texts``, perhaps ``join`` (see `with_join`), and either ``members`` (with ``step``, ``cyclic``) or,
    if means are wanted, ``corrupted``. From each wording at most ``per_text`` prompts, their first members spread
    evenly over those that fit. Corrupted texts have a random member in place of every one, each other than in the
    prompt.
    """
    where = f"generation.prompts.{name}"
    join = block.get("join")
    if "members" not in block:
        written = [(text, with_join(where, text, answer, join)) for text, answer in block["texts"]]
        return written, list(block.get("corrupted", ()))
    members, step = expand_members(block["members"]), block.get("step", 1)
    pairs, corrupted = [], []
    for number, (text, answer) in enumerate(block["texts"]):
        parts, expected = slots(where, text), slots(where, answer)
        offsets = sorted({k for _, k in [*parts, *expected] if k is not None})
        starts = starts_of(len(members), step, block.get("cyclic", False), offsets)
        if not offsets or not starts:
            raise StudyError(
                f"{where}.texts: {text!r} has "
                + (f"no start among {len(members)} members with step {step:+d}" if offsets else "no {0} for a member")
            )
        if not answer[:1].isspace():  # whichever are chosen: refused by the first job, or by none
            for start in starts:
                by_step = {k: members[(start + step * k) % len(members)] for k in offsets}
                with_join(where, render(parts, by_step), render(expected, by_step), join)
        chosen = [starts[i] for i in np.linspace(0, len(starts) - 1, min(per_text, len(starts))).round().astype(int)]
        made = [{k: members[(start + step * k) % len(members)] for k in offsets} for start in chosen]
        rendered = [(render(parts, by_step), render(expected, by_step)) for by_step in made]
        pairs += [(shown, with_join(where, shown, follows, join)) for shown, follows in rendered]
        rng = np.random.default_rng([seed, number])
        corrupted += [render(parts, others(made[i % len(made)], members, rng, where)) for i in range(CORRUPTED)]
    return pairs, corrupted


def starts_of(n: int, step: int, cyclic: bool, offsets: list[int]) -> list[int]:
    """Indices of the first members from which every offset, in steps, stays within n members."""
    if cyclic:
        return list(range(n))
    return [i for i in range(n) if all(0 <= i + step * k < n for k in offsets)]


def render(parts: Iterable[tuple[str, int | None]], by_step: dict[int, str]) -> str:
    """The text of ``parts`` (see `slots`) with the member ``by_step`` gives for each number of steps."""
    return "".join(literal + ("" if k is None else by_step[k]) for literal, k in parts)


def others(by_step: dict[int, str], members: Sequence[str], rng: np.random.Generator, where: str) -> dict[int, str]:
    """For every slot a random member other than its own."""
    if len(set(members)) < 2:
        raise StudyError(f"{where}.members: one member leaves no other for corrupted texts; give at least 2")
    drawn = {}
    for k, own in by_step.items():
        candidates = (members[int(rng.integers(len(members)))] for _ in range(MAX_DRAWS))
        drawn[k] = next(m for m in candidates if m != own)
    return drawn


def encode_set(
    name: str,
    pairs: list[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
    max_tokens: int | None,
) -> list[dict[str, Any]]:
    """Rows with ``tokens`` (BOS included) and ``answer_tokens``: what follows the text's ids when its answer follows.

    A prompt is rejected, with its reason, where the model would not read the text as it stands, where the text has
    other tokens once the answer follows, and where the model does not take as many tokens. Raises StudyError where
    every prompt is.
    """
    bos = [tokenizer.bos_token_id] if prepend_bos else []
    texts = ids_of(tokenizer, [text for text, _ in pairs])
    whole, spans = tokens.encode(tokenizer, [text + answer for text, answer in pairs])
    special, rows = tokens.special_ids(tokenizer), []
    for number, ((text, answer), plain, ids, offsets) in enumerate(zip(pairs, texts, whole, spans, strict=True)):
        row = {"set": name, "prompt": number, "text": text, "answer": answer, "status": "used", "reason": ""}
        row |= {"tokens": bos + plain, "answer_tokens": ids[len(plain) :], "output": "", "output_tokens": []}
        unread = tokens.unreadable(tokenizer, special, text + answer, ids, offsets)
        if unread:
            row["reason"] = rejections.BEGINS_WITH_BOS if bos and ids[:1] == bos else unread
        elif text.endswith(" ") and answer.startswith(" "):
            row["reason"] = rejections.ENDS_WITH_SPACE
        elif ids[: len(plain)] != plain or not row["answer_tokens"]:
            row["reason"] = rejections.OTHER_TOKENS
        elif max_tokens and len(bos) + len(ids) > max_tokens:
            row["reason"] = f"prompt and answer are longer than {max_tokens} tokens"
        if row["reason"]:
            row["status"] = "rejected"
        rows.append(row)
    if all(row["reason"] for row in rows):
        reasons = "; ".join(f"{reason}: {n}" for reason, n in Counter(row["reason"] for row in rows).most_common())
        raise StudyError(f"generation.prompts.{name}: every prompt was rejected ({reasons})")
    return rows


def ids_of(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Ids without special tokens."""
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def corrupted_of_length(
    name: str, corrupted: list[str], tokenizer: PreTrainedTokenizerBase, prepend_bos: bool, length: int
) -> list[list[int]]:
    """The ids of the corrupted texts that have ``length`` tokens; raises StudyError where none has."""
    bos = [tokenizer.bos_token_id] if prepend_bos else []
    found = [bos + ids for ids in ids_of(tokenizer, corrupted) if len(bos) + len(ids) == length]
    if not found:
        raise StudyError(
            f"generation.prompts.{name}: a prompt has {length} tokens and none of the {len(corrupted)} corrupted texts "
            "does, so there is no mean to ablate with; add some to `corrupted`, or set generation.kind: zero"
        )
    return found


def text_after(tokenizer: PreTrainedTokenizerBase, tokens: list[int], new: list[int], end: int | None) -> str:
    """The text that ``new`` ids add to a prompt's, up to the end mark."""
    new = new[: new.index(end)] if end in new else new
    before, after = (str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in (tokens, tokens + new))
    return after[len(before) :] if after.startswith(before) else str(tokenizer.decode(new))
