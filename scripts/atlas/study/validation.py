"""From what a user gives to the configuration that a study runs on."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from atlas.study import checks, lengths, names, random_weights, schema


def validated(
    given: object, keys: dict[str, Any], published: Path, said: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The configuration that a study runs on, with defaults filled in and everything checked; ``given`` stays as it is.

    ``keys``: schemas/config.schema.yaml. ``published``: the folder of publications. ``said``: what of ``given`` stands
    on the command line. Raises StudyError with one line that names the key, the value and what is allowed; whatever a
    YAML or JSON file can hold may be given.
    """
    resolved = random_weights.resolve(lengths.resolve(schema.filled(given, names.filled(keys), said)))
    checks.check(resolved)
    checks.check_published(resolved, published)
    return resolved
