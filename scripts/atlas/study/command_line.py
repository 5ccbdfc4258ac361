"""Types of values on the command line: Snakemake makes text of numbers, true, false and null in a block there."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from atlas.study.config_text import PLAIN

WORDS = ("true", "false", "null")


def retype(config: dict[str, Any], said: Mapping[str, Any], validator: Validator) -> None:
    """Where the schema takes no text, put what such a text says as YAML in its place in ``config``.

    ``said``: what stood behind `--config`, as Snakemake read it; nothing else is touched, no text that the schema
    takes, and none that YAML would change (010, 1:30, no): it is refused then.
    """
    while wrong := {path: text for path, text in _texts(validator.iter_errors(config)) if _at(said, path) == text}:
        read = {path: yaml.safe_load(text) for path, text in wrong.items() if _is_plain(text)}
        for (*above, last), value in read.items():
            _at(config, above)[last] = value
        if not read:
            return


def _texts(errors: Iterable[ValidationError]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Place and text wherever text is not what is allowed."""
    for error in errors:
        if error.context:
            yield from _texts(error.context)
        elif error.validator in ("type", "enum") and isinstance(error.instance, str) and error.absolute_path:
            yield tuple(error.absolute_path), error.instance


def _is_plain(text: str) -> bool:
    if text in WORDS:
        return True
    if not any(pattern.fullmatch(text) for pattern in PLAIN.values()):
        return False
    pattern = PLAIN.get(type(yaml.safe_load(text)).__name__)  # 010 is 8 to YAML, and 1e5 a text
    return pattern is not None and pattern.fullmatch(text) is not None


def _at(given: Any, path: Iterable[str | int]) -> Any:
    """What stands at a place; nothing where there is no such place."""
    for key in path:
        if isinstance(given, Mapping):
            given = given.get(key)
        else:
            given = given[key] if isinstance(given, list) and isinstance(key, int) and key < len(given) else None
    return given
