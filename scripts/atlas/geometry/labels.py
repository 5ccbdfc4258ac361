"""Labels by rule: what a list of top tokens has in common, by word lists and the classes of the study.

What a direction, a neuron, a head or a feature writes is read as the tokens that it raises most. A token is of a kind
by its text alone: a member of a class of the study (`geometry.classes`), a filler of its prompts, digits, punctuation,
and so on; it may be of several kinds (V is a letter and a roman numeral). Where it is known which members are read,
tokens have a relation to these as well: `same member`, `next member` (one place on in its class), `previous member`,
`same class`.

The share of a kind is the share of the listed tokens that are of it; its base is the mean of that share over ``null``,
the lists of random directions. Its surprise is -log of the chance that a list of independent tokens, each of the kind
with the base's chance, has as many of it: so wide kinds have to fill a list, and of a rare one some tokens say much. A
label is the kind of largest surprise, of those that at least half of the list are of, more than their base; ties go to
relations before classes and to classes before wider kinds. A list without such a kind is `mixed`. Tokens of a list are
not independent: where embeddings lie in clusters, random directions too list tokens of one kind. So p is the share of
random lists that have, of any kind, a surprise as large, the list itself counted in, (1 + those) / (1 + all): the
choice among kinds is paid for. No outside service is asked, and nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.prompts.tasks import expand_members
from atlas.prompts.tokens import special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAME, NEXT, PREVIOUS, SAME_CLASS, MIXED = "same member", "next member", "previous member", "same class", "mixed"
RELATIONS = (NEXT, SAME, PREVIOUS, SAME_CLASS)
WIDE: tuple[str, ...] = ("digits", "function words", "punctuation", "spaces", "capitalised words", "pieces of words")
WIDE += ("other scripts", "bytes")  # bytes: parts of characters, and what no one prints
FLOOR = 0.5  # share of the list that a label needs
MARKS = ("\u0120", "\u2581")  # in front of a token that begins a word: byte-level and SentencePiece vocabularies
LAST_LATIN = 0x24F

OF_GRAMMAR = (
    "a about after again against all also although an and another any are as at be because been before",
    "being below between both but by can could did do does down during each either for from had has have",
    "he her here hers him his how i if in into is it its just many may me might more most much must my",
    "neither no nor not of off on only or other our out over own shall she should since so some such than",
    "that the their them then there these they this those though through to too under until up upon us",
    "very was we were what when where whether which while who whom whose why will with within without",
    "would yet you your",
)
FUNCTION_WORDS = frozenset(" ".join(OF_GRAMMAR).split())


@dataclass(frozen=True)
class Label:
    """``share`` of the list that is of the kind ``name``, ``base``: its mean over random lists; ``p`` of a share like
    that. Of `mixed`, they are those of the kind of largest surprise, ``nearest``."""

    name: str
    share: float
    base: float
    p: float
    nearest: str

    def columns(self) -> dict[str, Any]:
        """As columns of a table."""
        return {"label": self.name, "label_share": self.share, "label_base": self.base, "label_p": self.p} | {
            "nearest": self.nearest
        }


@dataclass(frozen=True)
class Lexicon:
    """The kinds of all tokens of a model. ``of`` [kinds, V]; ``members``: token id -> (class, place) of those that are
    members, in any spelling; ``sizes``: class -> number of its members, and whether it is cyclic."""

    kinds: tuple[str, ...]
    of: np.ndarray
    members: Mapping[int, tuple[tuple[str, int], ...]]
    sizes: Mapping[str, tuple[int, bool]]

    @classmethod
    def make(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        size: int,
        classes: Mapping[str, Mapping[str, Any] | None],
        fillers: Mapping[str, Sequence[str]],
    ) -> Lexicon:
        """``size``: V of the unembedding, which may have more rows than the tokenizer has tokens; these are of no kind.

        ``classes``: `geometry.classes`, ``fillers``: `prompts.fillers`, of the configuration.
        """
        texts, begins = texts_of(tokenizer, size)
        words: dict[str, list[tuple[str, int]]] = {}
        sizes = {}
        for name, block in classes.items():
            if block is None:
                continue
            own = expand_members(block["members"])
            sizes[name] = (len(own), bool(block.get("cyclic")))
            for place, word in enumerate(own):
                for spelled in spellings(word):
                    words.setdefault(spelled, []).append((name, place))
        members = {i: tuple(words[text]) for i, text in enumerate(texts) if text in words}
        kinds = (*sizes, *(f"{name} fillers" for name in fillers), *WIDE)
        of = np.zeros((len(kinds), size), dtype=bool)
        for token, entries in members.items():
            for name, _ in entries:
                of[kinds.index(name), token] = True
        for name, listed in fillers.items():
            chosen = {spelled for word in listed for spelled in spellings(word)}
            of[kinds.index(f"{name} fillers")] = [text in chosen for text in texts]
        for name, held in zip(WIDE, wide_kinds(texts, begins), strict=True):
            of[kinds.index(name)] = held
        return cls(kinds, of, members, sizes)

    def columns(self, reads: Sequence[int] = ()) -> tuple[str, ...]:
        """Names of what `shares` gives: relations only where members are read."""
        return (*RELATIONS, *self.kinds) if reads else self.kinds

    def shares(self, lists: np.ndarray, reads: Sequence[int] = ()) -> np.ndarray:
        """[n, `columns`] share of each kind in each list of token ids [n, k]; ``reads``: token ids of members read."""
        found: np.ndarray = self.of[:, lists].mean(-1).T
        if not reads:
            return found
        targets = self.relations(reads)
        ordered = [np.isin(lists, list(targets[name])).mean(-1) for name in RELATIONS]
        return np.concatenate([np.stack(ordered, 1), found], axis=1)

    def relations(self, reads: Sequence[int]) -> dict[str, set[int]]:
        """Relation -> the token ids that have it to a member that is read."""
        at = {entry for token in reads for entry in self.members.get(token, ())}
        places: dict[str, set[tuple[str, int]]] = {SAME: at}
        for name, step in ((NEXT, 1), (PREVIOUS, -1)):
            moved = [(c, p + step, *self.sizes[c]) for c, p in at]
            places[name] = {(c, p % size if cyclic else p) for c, p, size, cyclic in moved}
        read = {c for c, _ in at}
        found = {
            name: {token for token, entries in self.members.items() if wanted & set(entries)}
            for name, wanted in places.items()
        }
        return found | {SAME_CLASS: {t for t, entries in self.members.items() if read & {c for c, _ in entries}}}


def label(lexicon: Lexicon, tokens: Sequence[int], null: np.ndarray, reads: Sequence[int] = ()) -> Label:
    """The label of a list of top tokens [k].

    ``null`` [n, k]: lists of as many tokens of random directions (`readings.random_lists`). ``reads``: token ids of the
    members that what is labelled reads, where that is known; random lists are held against the same ones. Raises
    ValueError where the lists are not of one length.
    """
    listed = np.asarray(tokens)[None]
    if null.ndim != 2 or null.shape[1] != listed.shape[1]:
        raise ValueError(f"random lists are {null.shape}, of other lengths than one of {len(tokens)} tokens")
    drawn, own = lexicon.shares(null, reads), lexicon.shares(listed, reads)[0]
    base, names, k = drawn.mean(0), lexicon.columns(reads), listed.shape[1]
    table = surprises((drawn.sum(0) * k + 0.5) / (len(null) * k + 1), k)
    of_null = table[np.arange(len(names)), np.rint(drawn * k).astype(int)].max(1)
    of_own = table[np.arange(len(names)), np.rint(own * k).astype(int)]
    p = (1 + int((of_null >= of_own.max() - 1e-9).sum())) / (1 + len(null))
    held = [i for i in range(len(names)) if own[i] >= FLOOR and own[i] > base[i]]
    best = max(held or range(len(names)), key=lambda i: (round(of_own[i], 6), -i))
    return Label(names[best] if held else MIXED, float(own[best]), float(base[best]), p, names[best])


def surprises(chances: np.ndarray, k: int) -> np.ndarray:
    """[kinds, k + 1] -log of the chance of at least so many of k independent tokens, each with ``chances`` [kinds]."""
    x = np.arange(k + 1)
    ways = np.array([math.comb(k, int(i)) for i in x], dtype=float)
    exactly = ways * chances[:, None] ** x * (1 - chances[:, None]) ** (k - x)
    at_least = np.cumsum(exactly[:, ::-1], axis=1)[:, ::-1]
    return -np.log(np.clip(at_least, 1e-300, 1.0))


# ---- tokens --------------------------------------------------------------------------------------------------
def texts_of(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[list[str | None], list[bool]]:
    """Of each of ``size`` token ids its text without spaces around it (None: no text, as of special tokens and of ids
    that the tokenizer does not have), and whether it begins a word.

    Where no token of a vocabulary is marked as the beginning of a word, each is taken to begin one.
    """
    known, special = min(size, len(tokenizer)), special_ids(tokenizer)
    texts = tokenizer.batch_decode([[i] for i in range(known)])
    pieces = tokenizer.convert_ids_to_tokens(list(range(known)))
    marked = [bool(piece) and piece.startswith(MARKS) for piece in pieces]
    if not any(marked):
        marked = [True] * known
    found = [None if i in special or piece is None else texts[i].strip() for i, piece in enumerate(pieces)]
    return [*found, *[None] * (size - known)], [*marked, *[False] * (size - known)]


def spellings(word: str) -> tuple[str, ...]:
    """A word as it is written, and, of one in lower case, with a capital: Three for three, but no may for May."""
    return (word, word.capitalize()) if word.islower() and len(word) > 1 else (word,)


def wide_kinds(texts: Sequence[str | None], begins: Sequence[bool]) -> list[np.ndarray]:
    """[V] for each of `WIDE`."""

    def where(test: Any) -> np.ndarray:
        return np.array([text is not None and bool(test(text, i)) for i, text in enumerate(texts)], dtype=bool)

    return [
        where(lambda t, i: t.isdecimal()),
        where(lambda t, i: t.lower() in FUNCTION_WORDS and (len(t) > 1 or t in "aI")),
        where(lambda t, i: t and t != "\ufffd" and not any(c.isalnum() for c in t) and all(c.isprintable() for c in t)),
        where(lambda t, i: not t),
        where(lambda t, i: len(t) > 1 and t.isalpha() and t[0].isupper() and t[1:].islower()),
        where(lambda t, i: t.isalpha() and t.islower() and not begins[i] and latin(t)),
        where(lambda t, i: any(c.isalpha() and ord(c) > LAST_LATIN for c in t)),
        where(lambda t, i: t and any(c == "\ufffd" or not c.isprintable() for c in t)),
    ]


def latin(text: str) -> bool:
    """Whether all its characters are Latin letters."""
    return all(ord(c) <= LAST_LATIN for c in text)
