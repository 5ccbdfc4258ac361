"""Captions of figures: templates in report/, in reStructuredText, and what they say as plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from atlas.report import wording
from atlas.report.shown import Shown


def rendered(template: str, wildcards: Any, config: Mapping[str, Any]) -> str:
    """A caption as Snakemake's report renders it; ``wildcards``: of the figure's job, with ``model``.

    Raises jinja2's UndefinedError where it names what is not there.
    """
    from jinja2 import Environment, StrictUndefined  # not read by every job

    job = SimpleNamespace(wildcards=wildcards, config=config)
    return Environment(undefined=StrictUndefined).from_string(template).render(snakemake=job)


def plain(caption: str) -> str:
    """A caption without marks of reStructuredText, on one line."""
    return " ".join(re.sub(r"\*\*|`+|(?<!\w)\*(?=\w)|(?<=\w)\*", "", caption).split())


def of(row: Shown, root: Path, wildcards: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """``title`` and ``caption`` of a figure, which its files hold."""
    text = rendered((root / row.caption_file).read_text(), dict(wildcards.items()), config)
    about = [wording.words(wildcards[row.wildcard])] if row.wildcard else []
    title = row.title[:1].upper() + row.title[1:]
    return {"title": ", ".join([f"{title}: {wildcards['model']}", *about]), "caption": plain(text)}
