"""From prompt texts to aligned token ids, on any fast Hugging Face tokenizer.

The ids of a prompt are those that the text *with its answer* has, up to the token where the correct and the incorrect
answer part ways. So the answer position comes from ids, and a tokenizer that puts a lone space before a digit
(Llama-2) gets that space into the prompt, where it stands when the text goes on. How an answer joins its text: see
`joining`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from atlas.core.errors import StudyError, one_line
from atlas.core.positions import Layout
from atlas.prompts import joining, layouts, rejections

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Offsets = Sequence[tuple[int, int]]  # character spans


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or hub id; must be a fast one, because positions come from character offsets."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # missing, damaged, unknown, or with code of its own: each raises its own kind
        raise StudyError(
            f"tokenizer of {source}: cannot be loaded ({one_line(error)}); fetch its files again"
        ) from None
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


def strings(text: str, offsets: Offsets) -> list[str]:
    """The characters of a text that each of its tokens adds to those before it; none for one that ends within one."""
    return [text[a:b] for a, b in pairwise([0, *(end for _, end in offsets)])]


def drifted(tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> list[bool]:
    """For each row of ids (no BOS): does its text, tokenised again, give other ids?"""
    if not ids:
        return []
    texts = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
    again, _ = encode(tokenizer, texts)
    return [a != b for a, b in zip(ids, again, strict=True)]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that are no text: BOS, padding, unknown, marks of a chat."""
    added = tokenizer.added_tokens_decoder.items()
    return {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}


def unreadable(
    tokenizer: PreTrainedTokenizerBase, special: set[int], text: str, ids: Sequence[int], offsets: Offsets
) -> str:
    """Why the model does not read this text as it stands, or an empty string; ids and spans of `encode`.

    A special token in it (``special``: see `special_ids`), a token for what the tokenizer does not know, or characters
    that no token holds.
    """
    found = special.intersection(ids)
    if found:
        unknown = found == {tokenizer.unk_token_id} and str(tokenizer.unk_token) not in text
        return rejections.UNKNOWN if unknown else rejections.SPECIAL
    held = bytearray(len(text))
    for a, b in offsets:
        held[a:b] = b"\1" * (b - a)
    lost = (c for c, known in zip(text, held, strict=True) if not known)
    return rejections.UNKNOWN if any(unicodedata.category(c)[0] in "LNPS" for c in lost) else ""


# ---- prompts -------------------------------------------------------------------------------------------------
def encode_prompts(
    rows: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    prepend_bos: bool,
    task_name: str,
    multi_token: bool = False,
    min_layout: int | None = None,
) -> layouts.Encoded:
    """Add ``tokens``, ``corrupted_tokens``, ``answer_token``, ``incorrect_token`` and ``layout`` to rows; reject some.

    With ``multi_token`` members and answers may have several tokens. Rows then gain ``answer_tokens`` and
    ``incorrect_tokens`` instead: the ids that follow the text's own when both are tokenised together. A lone space
    before a digit is the first of them.

    Rows hold ``text``, ``corrupted_text``, ``answer``, ``incorrect``, what stands between a text and an answer
    (``join``; a space where it is not given) and, where known, the character spans of the members (``spans``,
    ``corrupted_spans``). A row is rejected, with its reason (rejections.py), where the model would not read the text
    that is shown, or where the answers are no continuations of it that differ in their tokens; with ``multi_token``
    also when one answer begins with the other, since the longer one can then not be the more probable.

    A row is also rejected when its token count or member positions differ from those of most rows; StudyError is raised
    when a template is rejected altogether. Not so with ``min_layout``: rows may then be of several layouts, and those
    of the smaller ones are rejected where fewer than ``min_layout`` agree.
    """
    bos = [tokenizer.bos_token_id] if prepend_bos else []
    if prepend_bos and bos == [None]:
        raise StudyError("models: prepend_bos is true but the tokenizer has no BOS token; set it to false")
    special = special_ids(tokenizer)
    rejected_rows: list[tuple[dict[str, Any], str]] = []
    kept: list[tuple[dict[str, Any], Layout]] = []
    for read in _tokenised(rows, tokenizer):
        reason, places = _judged(read, tokenizer, special, bos, multi_token)
        if reason:
            rejected_rows.append((read.row, reason))
            continue
        row = _with_tokens(read, bos, multi_token)
        members = tuple((a + len(bos), b + len(bos)) for a, b in places)
        kept.append((row, Layout(len(row["tokens"]), members, len(row["tokens"]) - 1, prepend_bos)))
    if not kept:
        rejected = Counter(reason for _, reason in rejected_rows)
        reasons = "; ".join(f"{reason}: {n}" for reason, n in rejected.most_common())
        remedy = rejections.REMEDIES[rejected.most_common(1)[0][0]]
        raise StudyError(f"tasks.{task_name}: every prompt was rejected ({reasons}); {remedy}")
    if min_layout is None:
        _refuse_misaligned_templates(kept, Counter(layout for _, layout in kept).most_common(1)[0][0], task_name)
    used, found, left_out = layouts.grouped(kept, min_layout)
    reason = rejections.OTHER_LAYOUT if min_layout is None else rejections.FEW_OF_LAYOUT
    return layouts.Encoded(used, found, rejected_rows + [(row, reason) for row in left_out])


class _Text(NamedTuple):
    """A text with its answer, as the tokenizer splits it; ``drifted``: would the text of its tokens be split again?"""

    text: str
    ids: list[int]
    spans: Offsets
    drifted: bool


class _Read(NamedTuple):
    """A prompt as the tokenizer splits it: ``plain``, the ids of its texts alone, and the texts with their answers."""

    row: dict[str, Any]
    join: str
    plain: list[int]
    corrupted_plain: list[int]
    right: _Text
    wrong: _Text
    corrupted: _Text  # with the right answer


def _tokenised(rows: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> Iterator[_Read]:
    """Each row; all texts of one kind are split together."""
    joins = [row.get("join", " ") for row in rows]
    plain, corrupted_plain = (encode(tokenizer, [row[key] for row in rows])[0] for key in ("text", "corrupted_text"))
    whole = []
    for text, answer in (("text", "answer"), ("text", "incorrect"), ("corrupted_text", "answer")):
        texts = [row[text] + joining.continuation(row[answer], join) for row, join in zip(rows, joins, strict=True)]
        ids, spans = encode(tokenizer, texts)
        whole.append([_Text(*each) for each in zip(texts, ids, spans, drifted(tokenizer, ids), strict=True)])
    return (_Read(*each) for each in zip(rows, joins, plain, corrupted_plain, *whole, strict=True))


def _with_tokens(read: _Read, bos: list[int], multi_token: bool) -> dict[str, Any]:
    """The row with the ids of its texts and answers, instead of the characters where its members stand."""
    row = {k: v for k, v in read.row.items() if k not in ("spans", "corrupted_spans")}
    right, wrong = read.right.ids, read.wrong.ids
    n = len(read.plain) if multi_token else len(right) - 1
    row |= {"tokens": bos + right[:n], "corrupted_tokens": bos + read.corrupted.ids[:n]}
    if multi_token:
        return row | {"answer_tokens": right[n:], "incorrect_tokens": wrong[n:]}
    return row | {"answer_token": right[n], "incorrect_token": wrong[n]}


# ---- why a prompt is rejected --------------------------------------------------------------------------------
def _judged(
    read: _Read, tokenizer: PreTrainedTokenizerBase, special: set[int], bos: list[int], multi_token: bool
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Why a prompt cannot be used, or an empty string; and first and last token of each member."""
    row = read.row
    reason = _reason(row, read.join) or _reason_of_tokens(read, tokenizer, special, bos)
    reason = reason or (_reason_of_several(read) if multi_token else _reason_of_one(read))
    places, lost = _places(row["text"], row.get("spans"), read.right.spans, multi_token)
    corrupted_places, corrupted_lost = _places(
        row["corrupted_text"], row.get("corrupted_spans"), read.corrupted.spans, multi_token
    )
    reason = reason or lost or corrupted_lost
    if not reason and corrupted_places and corrupted_places != places:
        reason = rejections.MEMBERS_MOVED
    if not reason and (read.right.drifted or read.wrong.drifted or read.corrupted.drifted):
        reason = rejections.DRIFTED
    return reason, places


def _reason(row: Mapping[str, Any], join: str) -> str:
    """Why a prompt cannot be used whatever its tokens, or an empty string."""
    if joining.continuation(row["answer"], join) == joining.continuation(row["incorrect"], join):
        return rejections.EQUAL
    if join and (row["text"].endswith(" ") or row["corrupted_text"].endswith(" ")):
        return rejections.ENDS_WITH_SPACE
    return ""


def _reason_of_tokens(read: _Read, tokenizer: PreTrainedTokenizerBase, special: set[int], bos: list[int]) -> str:
    """Why the model would not read the texts as they stand, or an empty string."""
    for text, ids, spans, _ in (read.right, read.wrong, read.corrupted):
        if bos and ids[:1] == bos:
            return rejections.BEGINS_WITH_BOS
        reason = unreadable(tokenizer, special, text, ids, spans)
        if reason:
            return reason
    return ""


def _reason_of_one(read: _Read) -> str:
    """The same for answers of one token, from the ids of the texts alone and with their answers."""
    right, wrong, corrupted = read.right.ids, read.wrong.ids, read.corrupted.ids
    first, end = read.right.spans[-1]
    if right == wrong:
        return rejections.SAME_TOKENS
    if len(right) != len(wrong) or right[:-1] != wrong[:-1]:
        return rejections.SEVERAL_TOKENS
    if end <= len(read.row["text"]) or first < len(read.row["text"]):
        return rejections.MERGES
    if right[: len(read.plain)] != read.plain or corrupted[: len(read.corrupted_plain)] != read.corrupted_plain:
        return rejections.OTHER_TOKENS
    if len(corrupted) != len(right) or corrupted[-1] != right[-1]:
        return rejections.OTHER_LENGTH
    return ""


def _reason_of_several(read: _Read) -> str:
    """The same for answers of several tokens."""
    n, right, wrong, corrupted = len(read.plain), read.right.ids, read.wrong.ids, read.corrupted.ids
    texts = (right, read.plain), (wrong, read.plain), (corrupted, read.corrupted_plain)
    if right == wrong:
        return rejections.SAME_TOKENS
    if any(ids[: len(text)] != text or len(ids) == len(text) for ids, text in texts):
        return rejections.OTHER_TOKENS_SEVERAL
    if len(read.corrupted_plain) != n:
        return rejections.OTHER_LENGTH
    if corrupted[n:] != right[n:]:
        return rejections.OTHER_ANSWER
    shorter, longer = sorted((right[n:], wrong[n:]), key=len)
    if longer[: len(shorter)] == shorter:
        return rejections.ONE_BEGINS
    return ""


def _places(
    text: str, spans: Offsets | None, offsets: Offsets, multi_token: bool
) -> tuple[tuple[tuple[int, int], ...], str]:
    """First and last token of each member, () where spans are unknown; and why they cannot be used, or ""."""
    found = [covering(span, offsets) for span in spans or ()]
    if not all(found):
        return (), rejections.MEMBER_LOST if multi_token else rejections.MEMBER_SEVERAL
    if not multi_token and any(len(tokens) > 1 for tokens in found):
        return (), rejections.MEMBER_SEVERAL
    for (start, end), tokens in zip(spans or (), found, strict=True):
        if text[offsets[tokens[0]][0] : offsets[tokens[-1]][1]].strip() != text[start:end]:
            return (), rejections.MEMBER_MERGES
    return tuple((tokens[0], tokens[-1]) for tokens in found), ""


def _refuse_misaligned_templates(kept: list[tuple[dict[str, Any], Layout]], layout: Layout, task_name: str) -> None:
    by_template: dict[str, Counter[Layout]] = {}
    for row, found in kept:
        by_template.setdefault(row["template"], Counter())[found] += 1
    for template, own in by_template.items():
        if layout not in own:
            (other, _), *_ = own.most_common(1)
            raise StudyError(
                f"tasks.{task_name}.templates: {template!r} gives {other.tokens} tokens with members at "
                f"{_shown(other.members)}, others give {layout.tokens} with members at "
                f"{_shown(layout.members)}; all templates of a task must align"
            )


def _shown(places: Iterable[tuple[int, int]]) -> list[Any]:
    return [first if first == last else f"{first}-{last}" for first, last in places]
