"""Draws a figure, or writes a page, by the module of its name in figures/.

Imported by name, so a rule that draws tracks the module beside its script (rules/figures.smk).
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from atlas.report import style
from atlas.store import artifacts

COLOURS = ("clean", "corrupted", "circuit")  # settings that `draw` takes as one argument, `colours`


def name_of(file: Path | str) -> str:
    """The figure that a file holds: `overlap` of `results/figures/model/model.overlap.svg`."""
    return Path(file).stem.rpartition(".")[2]


def module_of(name: str) -> ModuleType:
    """The module of figures/ that draws the figure, or writes the page, of this name."""
    return importlib.import_module(f"atlas.report.figures.{name}")


def read(files: str | list[str]) -> Any:
    """A table or the content of a JSON file; of several files, their tables as one."""
    if not isinstance(files, str):
        return artifacts.read_tables(files)
    return artifacts.read_json(files) if files.endswith(".json") else artifacts.read_table(files)


def call(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call with those of the things given that the function names; raises TypeError where one that it needs is not."""
    return function(**{name: given[name] for name in inspect.signature(function).parameters if name in given})


def arguments(tables: Mapping[str, Any], settings: Mapping[str, Any], of: Mapping[str, str]) -> dict[str, Any]:
    """What figures are drawn from; ``of``: the `task` or `circuit` that a figure is drawn for."""
    colours = {name: colour for name, colour in settings.items() if name in COLOURS}
    others = {name: value for name, value in settings.items() if name not in COLOURS}
    return {**of, **others, **tables, "colours": colours}


def draw(files: list[str], given: Mapping[str, Any], dpi: int, provenance: dict[str, Any]) -> None:
    """Write each SVG with the PNG and PDF beside it, and each page, from what is given to all of them.

    ``given`` has the ``note`` that stands below each figure, which circuits it shows, and ``said``: the title and
    caption of each by its name, as `captions.of` makes them.
    """
    for file in files:
        module = module_of(name_of(file))
        if file.endswith(".svg"):
            said = given["said"][name_of(file)]
            style.save(call(module.draw, given), file, dpi, provenance, given["note"], **said)
        elif file.endswith(".html"):
            artifacts.write_text(file, call(module.page, given))
