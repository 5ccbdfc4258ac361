"""Refuses what YAML turns into something other than the text that stands in a configuration file.

YAML reads 010 as 8, 1:30 as 90, no as false and 2024-01-01 as a date. A count may be written in one way only, plain
decimals, and where texts stand (members, templates, fillers, ...) only text and plain whole numbers are taken.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from atlas.core.errors import StudyError

TEXTS = ("members", "templates", "fillers", "random_words", "texts", "corrupted")  # keys below which texts stand
PLAIN = {
    "int": re.compile(r"0|-?[1-9][0-9]*"),
    "float": re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ABSENT = object()

Place = tuple[str | int, ...]  # keys from the top


def refuse_changed_text(files: Iterable[Path], given: Mapping[str, Any]) -> None:
    """Raise StudyError naming key, text and remedy where a value of ``given`` is not what a file of it says.

    ``given``: the configuration made of the files, later ones over earlier ones; what a later file, or the command
    line, puts in place of a value is not looked at. Also refuses a key that stands twice in one place.
    """
    for file in files:
        try:
            node = yaml.compose(file.read_text(encoding="utf-8"), Loader=LOADER)
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue  # no file of its own, or JSON that is no YAML; whoever loads it says so
        if isinstance(node, yaml.MappingNode) and not any(key.value == "__use_yte__" for key, _ in node.value):
            _walk(node, (), given, file.name, ())


def _walk(node: yaml.Node, path: Place, given: Any, file: str, within: tuple[yaml.Node, ...]) -> None:
    if given is ABSENT or node in within:  # replaced elsewhere, or an anchor that holds itself
        return
    if isinstance(node, yaml.ScalarNode):
        _check(node, path, given)
    elif isinstance(node, yaml.SequenceNode):
        if isinstance(given, list) and len(given) == len(node.value):
            for i, (inner, value) in enumerate(zip(node.value, given, strict=True)):
                _walk(inner, (*path, i), value, file, (*within, node))
    elif isinstance(node, yaml.MappingNode) and isinstance(given, Mapping) and not _holds_text(path):
        _refuse_repeated(node, path, file)
        for key, inner in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged = inner.value if isinstance(inner, yaml.SequenceNode) else [inner]
                for part in merged:
                    _walk(part, path, given, file, (*within, node))
            elif isinstance(key, yaml.ScalarNode):
                _walk(inner, (*path, key.value), given.get(key.value, ABSENT), file, (*within, node))


def _check(node: yaml.ScalarNode, path: Place, given: Any) -> None:
    """Refuse a number in an odd form, and where texts stand what YAML takes for no text; unless it was replaced."""
    kind, text = node.tag.rsplit(":", 1)[-1], node.value
    if kind == "str" or repr(given) != repr(SafeConstructor().construct_object(node)):
        return
    at, holds_text = ".".join(map(str, path)), _holds_text(path)
    plain = kind in PLAIN and PLAIN[kind].fullmatch(text)
    if holds_text and not (kind == "int" and plain):
        raise StudyError(f'{at}: YAML reads {text or "nothing"} as {given!r}; put it in quotes: "{text}"')
    if kind in PLAIN and not plain:
        raise StudyError(f'{at}: YAML reads {text} as {given}; write {given}, or "{text}" where it is text')


def _holds_text(path: Place) -> bool:
    """Does text stand at this place, in a list of it or below it?"""
    match path:
        case ("prompts" | "stability", *rest) | ("tasks", _, *rest) | ("generation", "prompts", _, *rest):
            return len(rest) > 1 and rest[0] in TEXTS and rest[1] != "range"
    return False


def _refuse_repeated(node: yaml.MappingNode, path: Place, file: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                at = ".".join(map(str, (*path, key.value)))
                raise StudyError(f"{at}: stands twice in {file}, again in line {key.start_mark.line + 1}; remove one")
            seen.add(key.value)
