"""From prompt texts to aligned token ids, on any fast Hugging Face tokenizer.

The ids of a prompt are those that the text *with its answer* has, up to the token where the correct and the incorrect
answer part ways. So the answer position comes from ids, and a tokenizer that puts a lone space before a digit
(Llama-2) gets that space into the prompt, where it stands when the text goes on. How an answer joins its text: see
`joining`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.prompts import joining, layouts, rejections

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


Offsets = Sequence[tuple[int, int]]  # character spans


@dataclass
class Encoded:
    """Aligned prompts (``rows``, with token fields added) and what happened on the way."""

    rows: list[dict[str, Any]]
    layouts: list[dict[str, Any]]  # the largest first (`layouts.grouped`)
    rejected_rows: list[tuple[dict[str, Any], str]] = field(default_factory=list)  # row, reason (rejections.py)

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


# ---- checks before prompts are made --------------------------------------------------------------------------
def ids_in_text(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], before: str) -> list[list[int]]:
    """For each word the ids of the tokens that it has a part in when it follows ``before``."""
    ids, offsets = encode(tokenizer, [before + word for word in words])
    start = len(before)
    return [
        [row[i] for i in covering((start, start + len(word)), spans)]
        for word, row, spans in zip(words, ids, offsets, strict=True)
    ]


def tokens_in_text(tokenizer: PreTrainedTokenizerBase, words: list[str], before: str) -> list[int]:
    """For each word the number of tokens it takes after ``before``."""
    return [len(ids) for ids in ids_in_text(tokenizer, words, before)]


def single_token_fillers(tokenizer: PreTrainedTokenizerBase, words: Iterable[str]) -> list[str]:
    """The words that are one token at the start of a text and after a space, one that no word before them has."""
    words, special, seen, found = list(words), special_ids(tokenizer), set(), []
    both = zip(words, ids_in_text(tokenizer, words, ""), ids_in_text(tokenizer, words, "so "), strict=True)
    for word, first, inside in both:
        if len(first) == len(inside) == 1 and inside[0] not in seen and not _unreadable_word(tokenizer, special, word):
            seen.add(inside[0])
            found.append(word)
    return found


def words_in_place(
    tokenizer: PreTrainedTokenizerBase, frame: pd.DataFrame, positions: Sequence[int], words: Iterable[str]
) -> np.ndarray:
    """[N, K, W] ids of words as they stand where the K members of N aligned prompts stand: after a space, or not.

    ``frame``: `prompts.parquet`, its members at ``positions``. Only words that are one token either way, and no member.
    """
    shown = sorted({word for members in frame.members for word in members})
    usable = [word for word in single_token_fillers(tokenizer, words) if word not in shown]

    def either_way(texts: list[str]) -> list[tuple[list[int], list[int]]]:
        return list(zip(*(ids_in_text(tokenizer, texts, before) for before in ("so ", "so (")), strict=True))

    ids = np.array([[a[0], j[0]] for a, j in either_way(usable) if len(a) == len(j) == 1], dtype=int).reshape(-1, 2)
    joined = {word: j for word, (a, j) in zip(shown, either_way(shown), strict=True) if a != j}
    where = [
        [int(joined.get(member) == [row[at]]) for member, at in zip(members, positions, strict=True)]
        for row, members in zip(frame.tokens, frame.members, strict=True)
    ]
    found: np.ndarray = ids.T[np.array(where)]
    return found


def check_members(
    tokenizer: PreTrainedTokenizerBase,
    task_name: str,
    members: Sequence[str],
    before: Iterable[str] = ("so ",),
    multi_token: bool = False,
) -> None:
    """Raise StudyError naming members that the model does not read, that share their tokens, or that are several.

    ``before``: the texts that members follow, see `Template.before_member`; with ``multi_token`` several are allowed.
    """
    where, special = f"tasks.{task_name}.members", special_ids(tokenizer)
    for member in members:
        reason = _unreadable_word(tokenizer, special, member)
        if reason:
            raise StudyError(f"{where}: {member!r}: {reason} of this model; leave it out")
    for text in dict.fromkeys(before):
        ids = ids_in_text(tokenizer, members, text)
        long = [f"{m!r} ({len(row)} tokens)" for m, row in zip(members, ids, strict=True) if len(row) != 1]
        if long and not multi_token:
            after = "" if text == "so " else f" after {text[2:].lstrip(' ')!r}"
            raise StudyError(
                f"{where}: {', '.join(long[:5])}{' ...' if len(long) > 5 else ''} not one token{after} in this "
                "model's tokenizer; leave them out (for numerals, a shorter range), or set multi_token: true"
            )
        first: dict[tuple[int, ...], str] = {}
        for member, row in zip(members, ids, strict=True):
            other = first.setdefault(tuple(row), member)
            if other != member:
                raise StudyError(f"{where}: {other!r} and {member!r} have the same tokens in this model; leave one out")


def _unreadable_word(tokenizer: PreTrainedTokenizerBase, special: set[int], word: str) -> str:
    """The same for a word within a text."""
    (ids,), (offsets,) = encode(tokenizer, [f"so {word}"])
    start = len("so ")
    own = covering((start, start + len(word)), offsets)
    spans = [(max(offsets[i][0] - start, 0), offsets[i][1] - start) for i in own]
    return unreadable(tokenizer, special, word, [ids[i] for i in own], spans)


def refuse_continued_words(
    tokenizer: PreTrainedTokenizerBase, task_name: str, rows: Iterable[Mapping[str, Any]], where: str
) -> None:
    """Raise StudyError where a text's last word and its answer together are one token, as in `walk` and `ing`.

    For rows whose join is not said: the answer could be a word of its own, or the rest of one.
    """
    pairs = {
        (joining.last_word(row["text"]), row[key]): row["text"]
        for row in rows
        for key in ("answer", "incorrect")
        if row["join"] and row[key].isalnum() and not joining.listed(row["text"], row[key])
    }
    pairs = {(word, answer): text for (word, answer), text in pairs.items() if word}
    wholes, special = [word + answer for word, answer in pairs], special_ids(tokenizer)
    for (word, answer), whole, n in zip(pairs, wholes, tokens_in_text(tokenizer, wholes, "so "), strict=True):
        if n == 1 and not _unreadable_word(tokenizer, special, whole):
            raise StudyError(
                f"tasks.{task_name}.{where}: {word!r} and the answer {answer!r} could be {word + ' ' + answer!r} or "
                f"{whole!r}; say which, with join: space or join: exact"
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
    joins = [row.get("join", " ") for row in rows]
    right_texts, wrong_texts, corrupted_texts = (
        [row[text] + joining.continuation(row[answer], join) for row, join in zip(rows, joins, strict=True)]
        for text, answer in (("text", "answer"), ("text", "incorrect"), ("corrupted_text", "answer"))
    )
    plain, _ = encode(tokenizer, [row["text"] for row in rows])
    corrupted_plain, _ = encode(tokenizer, [row["corrupted_text"] for row in rows])
    right_ids, right_spans = encode(tokenizer, right_texts)
    wrong_ids, wrong_spans = encode(tokenizer, wrong_texts)
    corrupted_ids, corrupted_spans = encode(tokenizer, corrupted_texts)

    each = (drifted(tokenizer, ids) for ids in (right_ids, wrong_ids, corrupted_ids))
    drifts = [any(row) for row in zip(*each, strict=True)]

    special = special_ids(tokenizer)
    rejected_rows: list[tuple[dict[str, Any], str]] = []
    kept: list[tuple[dict[str, Any], Layout]] = []
    for i, row in enumerate(rows):
        whole = [
            (right_texts[i], right_ids[i], right_spans[i]),
            (wrong_texts[i], wrong_ids[i], wrong_spans[i]),
            (corrupted_texts[i], corrupted_ids[i], corrupted_spans[i]),
        ]
        texts = plain[i], corrupted_plain[i]
        reason = _reason(row, joins[i]) or _reason_of_tokens(tokenizer, special, whole, bos)
        if not reason and multi_token:
            reason = _reason_of_several(*texts, right_ids[i], wrong_ids[i], corrupted_ids[i])
        elif not reason:
            reason = _reason_of_one(row, *texts, right_ids[i], wrong_ids[i], corrupted_ids[i], right_spans[i])
        places, lost = _places(row["text"], row.get("spans"), right_spans[i], multi_token)
        corrupted_places, corrupted_lost = _places(
            row["corrupted_text"], row.get("corrupted_spans"), corrupted_spans[i], multi_token
        )
        reason = reason or lost or corrupted_lost
        if not reason and corrupted_places and corrupted_places != places:
            reason = rejections.MEMBERS_MOVED
        if not reason and drifts[i]:
            reason = rejections.DRIFTED
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
    return Encoded(used, found, rejected_rows + [(row, reason) for row in left_out])


def _reason(row: Mapping[str, Any], join: str) -> str:
    """Why a prompt cannot be used whatever its tokens, or an empty string."""
    if joining.continuation(row["answer"], join) == joining.continuation(row["incorrect"], join):
        return rejections.EQUAL
    if join and (row["text"].endswith(" ") or row["corrupted_text"].endswith(" ")):
        return rejections.ENDS_WITH_SPACE
    return ""


def _reason_of_tokens(
    tokenizer: PreTrainedTokenizerBase,
    special: set[int],
    texts: Iterable[tuple[str, list[int], Offsets]],
    bos: list[int],
) -> str:
    """Why the model would not read the texts (with ids and spans) as they stand, or an empty string."""
    for text, ids, spans in texts:
        if bos and ids[:1] == bos:
            return rejections.BEGINS_WITH_BOS
        reason = unreadable(tokenizer, special, text, ids, spans)
        if reason:
            return reason
    return ""


def _reason_of_one(
    row: Mapping[str, Any],
    plain: list[int],
    corrupted_plain: list[int],
    right: list[int],
    wrong: list[int],
    corrupted: list[int],
    spans: Offsets,
) -> str:
    """The same for answers of one token, from the ids of the texts alone and with their answers."""
    if right == wrong:
        return rejections.SAME_TOKENS
    if len(right) != len(wrong) or right[:-1] != wrong[:-1]:
        return rejections.SEVERAL_TOKENS
    if spans[-1][1] <= len(row["text"]) or (spans[-1][0] < len(row["text"])):
        return rejections.MERGES
    if right[: len(plain)] != plain or corrupted[: len(corrupted_plain)] != corrupted_plain:
        return rejections.OTHER_TOKENS
    if len(corrupted) != len(right) or corrupted[-1] != right[-1]:
        return rejections.OTHER_LENGTH
    return ""


def _reason_of_several(
    plain: list[int], corrupted_plain: list[int], right: list[int], wrong: list[int], corrupted: list[int]
) -> str:
    """The same for answers of several tokens."""
    n = len(plain)
    texts = (right, plain), (wrong, plain), (corrupted, corrupted_plain)
    if right == wrong:
        return rejections.SAME_TOKENS
    if any(ids[: len(text)] != text or len(ids) == len(text) for ids, text in texts):
        return rejections.OTHER_TOKENS_SEVERAL
    if len(corrupted_plain) != n:
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
