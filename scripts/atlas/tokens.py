"""From prompt texts to aligned token ids, on any fast Hugging Face tokenizer.

The ids of a prompt are those that the text *with its answer* has, up to the token where the correct and the incorrect
answer part ways. So the answer position comes from ids, and a tokenizer that puts a lone space before a digit
(Llama-2) gets that space into the prompt, where it stands when the text goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atlas import layouts
from atlas.errors import StudyError
from atlas.layouts import Places

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Offsets = Sequence[tuple[int, int]]  # character spans


@dataclass
class Encoded:
    """Aligned prompts (``rows``, with token fields added) and what happened on the way."""

    rows: list[dict[str, Any]]
    layouts: list[dict[str, Any]]  # the largest first (`layouts.grouped`)
    rejected_rows: list[tuple[dict[str, Any], str]] = field(default_factory=list)  # row, reason

    @property
    def rejected(self) -> Counter[str]:
        """Reason -> number of prompts."""
        return Counter(reason for _, reason in self.rejected_rows)

    @property
    def layout(self) -> dict[str, Any]:
        """The layout of most prompts, without their number."""
        return {key: value for key, value in self.layouts[0].items() if key != "prompts"}


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or hub id; must be a fast one, because positions come from character offsets."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # missing, damaged, unknown, or with code of its own: each raises its own kind
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise StudyError(f"tokenizer of {source}: cannot be loaded ({said}); fetch its files again") from None
    if not tokenizer.is_fast:
        raise StudyError(f"tokenizer of {source}: not a fast tokenizer; convert it (tokenizer.json is missing)")
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Ids without special tokens, and the character span of each token."""
    if not texts:
        return [], []
    out = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    return out["input_ids"], out["offset_mapping"]


def covering(span: tuple[int, int], offsets: Offsets) -> list[int]:
    """Indices of the tokens that share a character with ``span``."""
    return [i for i, (a, b) in enumerate(offsets) if a < span[1] and b > span[0]]


def drifted(tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> list[bool]:
    """For each row of ids (no BOS): does its text, tokenised again, give other ids?"""
    if not ids:
        return []
    texts = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
    again, _ = encode(tokenizer, texts)
    return [a != b for a, b in zip(ids, again, strict=True)]


# ---- checks before prompts are made --------------------------------------------------------------------------
def tokens_in_text(tokenizer: PreTrainedTokenizerBase, words: list[str], before: str) -> list[int]:
    """For each word the number of tokens it takes after ``before``."""
    _, offsets = encode(tokenizer, [before + word for word in words])
    start = len(before)
    return [len(covering((start, start + len(word)), row)) for word, row in zip(words, offsets, strict=True)]


def single_token_fillers(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> list[str]:
    """The words that are one token at the start of a text and after a space."""
    words = list(words)
    counts = zip(words, tokens_in_text(tokenizer, words, ""), tokens_in_text(tokenizer, words, "so "), strict=True)
    return [word for word, first, inside in counts if first == inside == 1]


def check_members(tokenizer: PreTrainedTokenizerBase, task_name: str, members: Sequence[str]) -> None:
    """Raise StudyError naming the members that are more than one token after a space."""
    counts = tokens_in_text(tokenizer, list(members), "so ")
    long = [f"{m!r} ({n} tokens)" for m, n in zip(members, counts, strict=True) if n != 1]
    if long:
        raise StudyError(
            f"tasks.{task_name}.members: {', '.join(long[:5])}{' ...' if len(long) > 5 else ''} not one token in this "
            "model's tokenizer; leave them out (for numerals, a shorter range), or set multi_token: true"
        )


# ---- prompts -------------------------------------------------------------------------------------------------
def encode_prompts(
    rows: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
    task_name: str,
    multi_token: bool = False,
    min_layout: int | None = None,
) -> Encoded:
    """Add ``tokens``, ``corrupted_tokens``, ``answer_token``, ``incorrect_token`` and ``layout`` to rows; reject some.

    With ``multi_token`` members and answers may have several tokens. Rows then gain ``answer_tokens`` and
    ``incorrect_tokens`` instead: the ids that follow the text's own when both are tokenised together. A lone space
    before a digit is the first of them.

    Rows hold ``text``, ``corrupted_text``, ``answer``, ``incorrect`` and, where known, the character spans of the
    members (``spans``, ``corrupted_spans``). A row is rejected, with its reason counted, when an answer is not one
    token or merges with the text, when a text ends with a space (its answer brings one), when the text alone has other
    tokens than within the whole, or when the text of a row of ids has other ids (see `drifted`); with ``multi_token``
    also when one answer begins with the other, since the longer one can then not be the more probable.

    A row is also rejected when its token count or member positions differ from those of most rows; StudyError is raised
    when a template is rejected altogether. Not so with ``min_layout``: rows may then be of several layouts, and those
    of the smaller ones are rejected where fewer than ``min_layout`` agree.
    """
    bos = [tokenizer.bos_token_id] if prepend_bos else []
    if prepend_bos and bos == [None]:
        raise StudyError("models: prepend_bos is true but the tokenizer has no BOS token; set it to false")
    continuation = [row["answer"] if row["answer"][:1].isspace() else " " + row["answer"] for row in rows]
    wrong = [row["incorrect"] if row["incorrect"][:1].isspace() else " " + row["incorrect"] for row in rows]
    plain, _ = encode(tokenizer, [row["text"] for row in rows])
    corrupted_plain, _ = encode(tokenizer, [row["corrupted_text"] for row in rows])
    right_ids, right_spans = encode(tokenizer, [row["text"] + a for row, a in zip(rows, continuation, strict=True)])
    wrong_ids, _ = encode(tokenizer, [row["text"] + a for row, a in zip(rows, wrong, strict=True)])
    corrupted_ids, corrupted_spans = encode(
        tokenizer, [row["corrupted_text"] + a for row, a in zip(rows, continuation, strict=True)]
    )

    each = (drifted(tokenizer, ids) for ids in (right_ids, wrong_ids, corrupted_ids))
    drifts = [any(row) for row in zip(*each, strict=True)]

    rejected_rows: list[tuple[dict[str, Any], str]] = []
    kept: list[tuple[dict[str, Any], Places]] = []
    for i, row in enumerate(rows):
        reason = _reason(row)
        if not reason and multi_token:
            texts = plain[i], corrupted_plain[i]
            reason = _reason_of_several(*texts, right_ids[i], wrong_ids[i], corrupted_ids[i])
        elif not reason:
            reason = _reason_of_one(row, plain[i], right_ids[i], wrong_ids[i], corrupted_ids[i], right_spans[i])
        places = _places(row.get("spans"), right_spans[i], multi_token)
        corrupted_places = _places(row.get("corrupted_spans"), corrupted_spans[i], multi_token)
        if not reason and (places is None or corrupted_places is None):
            reason = "a member is not found in the tokens" if multi_token else "a member is not one token"
        if not reason and corrupted_places and corrupted_places != places:
            reason = "corrupted members stand at other positions"
        if not reason and drifts[i]:
            reason = "the text of its tokens has other tokens"
        if reason:
            rejected_rows.append((row, reason))
            continue
        row = {k: v for k, v in row.items() if k not in ("spans", "corrupted_spans")}
        n = len(plain[i]) if multi_token else len(right_ids[i]) - 1
        row |= {"tokens": bos + right_ids[i][:n], "corrupted_tokens": bos + corrupted_ids[i][:n]}
        if multi_token:
            row |= {"answer_tokens": right_ids[i][n:], "incorrect_tokens": wrong_ids[i][n:]}
        else:
            row |= {"answer_token": right_ids[i][n], "incorrect_token": wrong_ids[i][n]}
        kept.append((row, (len(row["tokens"]), tuple((a + len(bos), b + len(bos)) for a, b in places or ()))))

    rejected = Counter(reason for _, reason in rejected_rows)
    if not kept:
        reasons = "; ".join(f"{reason}: {n}" for reason, n in rejected.most_common())
        remedy = "; set multi_token: true to have several" if any("not one token" in r for r in rejected) else ""
        raise StudyError(f"tasks.{task_name}: every prompt was rejected ({reasons}){remedy}")
    if min_layout is None:
        _refuse_misaligned_templates(kept, Counter(places for _, places in kept).most_common(1)[0][0], task_name)
    used, found, left_out = layouts.grouped(kept, min_layout, multi_token)
    reason = layouts.OTHER if min_layout is None else layouts.FEW
    return Encoded(used, found, rejected_rows + [(row, reason) for row in left_out])


def _reason(row: Mapping[str, Any]) -> str:
    """Why a prompt cannot be used whatever its tokens, or an empty string."""
    if row["answer"].strip() == row["incorrect"].strip():
        return "answer and incorrect answer are equal"
    if row["text"].endswith(" ") or row["corrupted_text"].endswith(" "):
        return "the text ends with a space"
    return ""


def _reason_of_one(
    row: Mapping[str, Any], plain: list[int], right: list[int], wrong: list[int], corrupted: list[int], spans: Offsets
) -> str:
    """The same for answers of one token, from the ids of the text alone and with either answer."""
    if len(right) != len(wrong) or right[:-1] != wrong[:-1]:
        return "an answer is not one token"
    if spans[-1][1] <= len(row["text"]) or (spans[-1][0] < len(row["text"])):
        return "the answer merges with the text before it"
    if right[: len(plain)] != plain:
        return "the text has other tokens when its answer follows"
    if len(corrupted) != len(right) or corrupted[-1] != right[-1]:
        return "the corrupted text has another number of tokens"
    return ""


def _reason_of_several(
    plain: list[int], corrupted_plain: list[int], right: list[int], wrong: list[int], corrupted: list[int]
) -> str:
    """The same for answers of several tokens."""
    n = len(plain)
    texts = (right, plain), (wrong, plain), (corrupted, corrupted_plain)
    if any(ids[: len(text)] != text or len(ids) == len(text) for ids, text in texts):
        return "the text has other tokens when an answer follows"
    if len(corrupted_plain) != n:
        return "the corrupted text has another number of tokens"
    if corrupted[n:] != right[n:]:
        return "the answer has other tokens after the corrupted text"
    shorter, longer = sorted((right[n:], wrong[n:]), key=len)
    if longer[: len(shorter)] == shorter:
        return "one answer begins with the other"
    return ""


def _places(spans: Offsets | None, offsets: Offsets, multi_token: bool) -> tuple[tuple[int, int], ...] | None:
    """First and last token of each member: () where spans are unknown, None where one has none, or more than it may."""
    found = [covering(span, offsets) for span in spans or ()]
    refused = any(not f or (len(f) > 1 and not multi_token) for f in found)
    return None if refused else tuple((f[0], f[-1]) for f in found)


def _refuse_misaligned_templates(kept: list[tuple[dict[str, Any], Places]], layout: Places, task_name: str) -> None:
    by_template: dict[str, Counter[Places]] = {}
    for row, found in kept:
        by_template.setdefault(row["template"], Counter())[found] += 1
    for template, own in by_template.items():
        if layout not in own:
            (length, members), _ = own.most_common(1)[0]
            raise StudyError(
                f"tasks.{task_name}.templates: {template!r} gives {length} tokens with members at {_shown(members)}, "
                f"others give {layout[0]} with members at {_shown(layout[1])}; all templates of a task must align"
            )


def _shown(places: Iterable[tuple[int, int]]) -> list[Any]:
    return [first if first == last else f"{first}-{last}" for first, last in places]
