"""A configuration against the schema of its keys: defaults filled in, and what is wrong said in one line."""

import copy
import math
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from atlas.core.errors import StudyError
from atlas.prompts import generator
from atlas.study import command_line


def filled(given: object, schema: dict[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with defaults filled in; raises StudyError where it is not what the schema allows.

    ``said``: what of it stands on the command line, whose texts may mean numbers, true, false or null.
    """
    if not isinstance(given, dict):
        raise StudyError(f"{shown(given)} is no configuration; give keys and values such as study: {{...}}")
    _refuse_odd_text(given, ())
    config = copy.deepcopy(given)
    validator = _STRICT(of_tasks(schema, given))
    command_line.retype(config, said, validator)
    error = best_match(validator.iter_errors(config))  # fills in defaults on its way
    if error is not None:
        raise StudyError(explain(error))
    return config


def of_tasks(schema: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The schema with the keys of its own that the generator of a task has; raises StudyError on an unknown one."""
    blocks = given["tasks"] if isinstance(given.get("tasks"), dict) else {}
    named = {name: block for name, block in blocks.items() if isinstance(block, dict) and "generator" in block}
    if not named:
        return schema
    out = copy.deepcopy(schema)
    tasks, known = out["properties"]["tasks"], generator.names()
    for name, block in named.items():
        if block["generator"] not in known:
            raise StudyError(
                f"tasks.{name}.generator: {shown(block['generator'])} is unknown; there are {', '.join(known)}"
            )
        own, every = generator.of(block), tasks["additionalProperties"]
        node = every | {"properties": {**own.keys, **every["properties"]}, "required": list(own.required)}
        tasks.setdefault("properties", {})[name] = node
    return out


def _with_defaults(
    validator: Any, properties: dict[str, Any], instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for name, node in properties.items():
            if "default" in node:
                instance.setdefault(name, copy.deepcopy(node["default"]))
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)


def _is_integer(_: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# JSON's integers include 96.0 and its numbers NaN; neither is what a count or a threshold can be
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
_STRICT = validators.extend(Draft202012Validator, {"properties": _with_defaults}, type_checker=_TYPES)


def _refuse_odd_text(value: object, path: tuple[object, ...]) -> None:
    """Refuse keys that are no text, and text that no file and no tokenizer should get."""
    at = ".".join(map(str, path)) or "the configuration"
    if isinstance(value, str):
        odd = next((c for c in value if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"), None)
        if odd is not None:
            raise StudyError(f"{at}: {shown(value)} holds the control character {odd!r}; remove it")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise StudyError(f"{at}: the key {shown(key)} is no text; put it in quotes")
            _refuse_odd_text(key, path)
            _refuse_odd_text(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_odd_text(inner, (*path, i))


def shown(value: object) -> str:
    """A value for a message: on one line, and cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def explain(error: Any) -> str:
    """One line for a jsonschema ValidationError: the key, the value, and what is allowed."""
    key = ".".join(str(part) for part in error.absolute_path)
    value = shown(error.instance)
    at = f"{key}: " if key else ""
    match error.validator:
        case "additionalProperties" if isinstance(error.instance, dict) and "properties" in error.schema:
            allowed = error.schema["properties"]
            unknown = next(name for name in error.instance if name not in allowed)
            return f"{at}unknown key {shown(unknown)}; allowed are {', '.join(allowed)}"
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{at}key {missing!r} is missing"
        case "enum":
            return f"{at}{value} is not allowed; one of {', '.join(map(str, error.validator_value))}"
        case "type":
            kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
            quotes = "string" in kinds and not isinstance(error.instance, str | list)
            return f"{at}{value} is of the wrong type; needs {' or '.join(kinds)}{', text in quotes' if quotes else ''}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            schema, bounds = error.schema, []
            for word, sign in (
                ("minimum", ">="),
                ("exclusiveMinimum", ">"),
                ("maximum", "<="),
                ("exclusiveMaximum", "<"),
            ):
                if word in schema:
                    bounds.append(f"{sign} {schema[word]}")
            return f"{at}{value} is out of range; needs {' and '.join(bounds)}"
        case "minItems" | "minProperties":
            return f"{at}{value} has too few entries; needs at least {error.validator_value}"
        case "maxItems" | "maxLength" | "maxProperties":
            return f"{at}{value} is too long; at most {error.validator_value}"
        case "minLength":
            return f"{at}{value} is too short; at least {error.validator_value}"
        case "uniqueItems":
            return f"{at}{value} has an entry twice; name each once"
        case "pattern":
            said = f"{at}{value} does not match {shown(error.validator_value)}"
            return said + (f"; {error.schema['description']}" if "description" in error.schema else "")
        case "not":
            return f"{at}{value} is reserved; choose another name"
    return f"{at}{value} is not allowed ({error.validator}: {shown(error.validator_value)})"
