"""How an answer joins its text: one rule for prompt files, templates and generation.

An answer that begins with whitespace is taken as written. Any other follows after a space (`join: space`) or as it is
written (`join: exact`). Where no join is said, the text tells: after a word or a closing mark stands a space, after a
line break or a tab nothing. What can be read both ways (a number that goes on, an open bracket, a sign) is never
guessed: `between` raises `Unclear`, and who called it says which key settles it.
"""

import re
import unicodedata

JOINS = ("space", "exact")
CLOSING = frozenset(".,;:!?)]}%…”»")  # marks after which a word follows after a space
APART = frozenset(("=", "==", "->", "=>", "→", "|", "&"))  # as words of their own they stand between spaces
NUMERAL = re.compile(r"[+-]?\d[\d.,:/]*")
ENDINGS = frozenset(["s", "es", "ed", "er", "est", "ing", "ly", "st", "nd", "rd", "th"])  # of words and ordinals
SPACELESS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts whose words stand together


class Unclear(Exception):
    """A text and an answer that could stand together with or without a space; says why, and both readings."""


def between(text: str, answers: tuple[str, ...], join: str | None) -> str:
    """What stands between a text and those of its answers that bring no whitespace: a space, or nothing.

    ``join``: `space`, `exact`, or None where nothing is said; raises Unclear where the text then does not tell.
    """
    if join is not None:
        return " " if join == "space" else ""
    bare = [answer for answer in answers if not answer[:1].isspace()]
    if text[-1:].isspace():
        return " " if text.endswith(" ") else ""  # a text that ends with a space is rejected, and counted
    if bare and any(answer[:1].isspace() and answer[0] != " " for answer in answers):
        raise Unclear(f"the answers {answers[0]!r} and {answers[1]!r} begin in different ways")
    for answer in bare:
        if not (_closed(text) and answer[0].isalnum() and not _goes_on(text, answer)):
            raise Unclear(f"{_end(text) + ' ' + answer!r} and {_end(text) + answer!r} are both possible")
    return " "


def continuation(answer: str, join: str) -> str:
    """The answer as it follows its text; ``join``: what `between` found."""
    return answer if answer[:1].isspace() else join + answer


def last_word(text: str) -> str:
    """The letters and digits that a text ends with."""
    found = re.search(r"[^\W_]+$", text)
    return found[0] if found else ""


def listed(text: str, answer: str) -> bool:
    """Does the answer go on with numerals, or single letters, that stand apart by spaces, as in `1 2 3` and `4`?"""
    words = [*text.split()[-2:], answer]
    return len(words) == 3 and (all(map(NUMERAL.fullmatch, words)) or all(len(w) == 1 and w.isalpha() for w in words))


def _closed(text: str) -> bool:
    """Does the text end in a word, a closing mark, or a sign that stands apart?"""
    last = text[-1:]
    if last == '"':
        return text.count('"') % 2 == 0
    is_word = last.isalnum() or unicodedata.category(last or " ").startswith("M")
    return is_word or last in CLOSING or text.split()[-1] in APART


def _goes_on(text: str, answer: str) -> bool:
    """Could a number, a word, or a text in a script without spaces go on with the answer?"""
    last, first = text[-1], answer[0]
    if last.isdigit() and first.isdigit():
        return not listed(text, answer)
    if first.isdigit() and re.search(r"\d[.,:]$", text):
        words = text.split()[-2:]  # `1, 2,` shows that a space follows the mark
        return not (len(words) == 2 and all(re.search(rf"\d{re.escape(last)}$", word) for word in words))
    spaceless = all(unicodedata.name(c, "").startswith(SPACELESS) for c in (last, first))
    return spaceless or (last.isalnum() and answer.casefold() in ENDINGS and not listed(text, answer))


def _end(text: str) -> str:
    """The end of a text, for a message."""
    return text if len(text) <= 24 else "..." + text[-21:]
