"""Classes of members in their order, as tokens of a model: what successor heads, shapes and probes are measured on.

A member is used where the tokenizer gives it, after a space, one token, or a lone space and one token (numerals of
Llama's and SmolLM2's tokenizers); its id is that token's. Members of several tokens are left out, and with them what
comes next to them: January of a class without February has no successor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas.prompts.tasks import expand_members
from atlas.prompts.tokens import encode, special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST = 4  # members without which a class tells nothing


@dataclass(frozen=True)
class Members:
    """The members of a class that are one token.

    ``ids``: their token ids; ``places``: their indices in the whole class, from 0, rising; ``size``: of that class.
    """

    name: str
    words: tuple[str, ...]
    ids: tuple[int, ...]
    places: tuple[int, ...]
    size: int
    cyclic: bool = False

    def __len__(self) -> int:
        return len(self.words)

    def steps(self, step: int = 1) -> dict[int, int]:
        """Number of a member, among those used -> number of the one ``step`` places on, where there is one.

        Around the end of a cyclic class; none where the other member is not used.
        """
        at = {place: i for i, place in enumerate(self.places)}
        found = {}
        for i, place in enumerate(self.places):
            target = (place + step) % self.size if self.cyclic else place + step
            if target in at and at[target] != i:
                found[i] = at[target]
        return found


def of(classes: Mapping[str, Mapping[str, Any] | None], tokenizer: PreTrainedTokenizerBase) -> list[Members]:
    """Those of the configured classes (name -> ``members``, ``cyclic``) that have `LEAST` members of one token.

    A token that two members share (of a tokenizer without case, say) is none of theirs.
    """
    found = []
    for name, block in classes.items():
        if block is None:
            continue
        words = expand_members(block["members"])
        ids = tokens_of(words, tokenizer)
        times = Counter(ids)
        used = {i: token for i, token in enumerate(ids) if token is not None and times[token] == 1}
        if len(used) >= LEAST:
            own = tuple(words[i] for i in used)
            found.append(Members(name, own, tuple(used.values()), tuple(used), len(words), bool(block.get("cyclic"))))
    return found


def tokens_of(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int | None]:
    """The id of the one token that each word is after a space; None where it has several, or one that is no text."""
    special, found = special_ids(tokenizer), []
    texts = [f" {word}" for word in words]
    for word, text, ids, spans in zip(words, texts, *encode(tokenizer, texts), strict=True):
        held = [token for token, (a, b) in zip(ids, spans, strict=True) if text[a:b].strip()]
        whole = len(held) == 1 and held[0] not in special and ids[-1] == held[0] and spans[-1][1] == len(text)
        found.append(held[0] if whole and text[slice(*spans[-1])].strip() == word else None)
    return found
