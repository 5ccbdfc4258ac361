"""The page of claims, in Markdown: every number is read from the tables of finished studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atlas.core.errors import StudyError
from atlas.report.claims import of_edits, of_heads, of_shapes
from atlas.report.claims.item import ABSENT, AGREES, DIFFERS, UNTESTABLE, Finding, Item
from atlas.report.findings.page import table
from atlas.report.findings.reading import Results, source_of
from atlas.report.wording import count, listing
from atlas.store.artifacts import atomic

ITEMS: tuple[Item, ...] = (*of_heads.ITEMS[:4], *of_shapes.ITEMS, *of_edits.ITEMS, of_heads.ITEMS[4])
VERDICTS = (AGREES, DIFFERS, UNTESTABLE, ABSENT)
HEAD = """# Published claims about order, and our numbers

`{command}` writes this page from the tables of finished studies of {models}: no number
or verdict on it was typed. A verdict follows from the rule that stands with each claim, and from nothing else; a claim
that does not hold here stands as plainly as one that does. *{untestable}*: the model, its tokenizer or the study does
not allow the test, and the reason is given. *{absent}*: a table is absent. Every number has its control or null beside
it; brackets hold 95 % bootstrap intervals. *After layer* 0 is after the embedding, 1 after block 0. What the numbers
mean: [methods.md](methods.md); the tables: [artifacts.md](artifacts.md).
"""


def found(models: Sequence[Results]) -> list[tuple[Item, list[Finding]]]:
    """Every claim with what each model's tables say of it."""
    return [(item, [item.of(results) for results in models]) for item in ITEMS]


def page(models: Sequence[Results], command: str) -> str:
    """The whole page; ``command``: what writes it."""
    every = found(models)
    names = listing(f"`{results.model}`" for results in models)
    head = HEAD.format(command=command, models=names, untestable=UNTESTABLE.capitalize(), absent=ABSENT.capitalize())
    return "\n".join([head, studied(models), overview(models, every), *sections(models, every)])


def studied(models: Sequence[Results]) -> str:
    """A line for each model."""
    lines = []
    for results in models:
        there = results.has("model.json")
        lines.append(
            f"- `{results.model}`: {source_of(results.description) if there else 'no study of it was finished'}."
        )
    return "\n".join([*lines, ""])


def overview(models: Sequence[Results], every: list[tuple[Item, list[Finding]]]) -> str:
    """The verdicts in one table, and how many there are of each."""
    body = [
        [str(i), f"[{item.title}](#{anchor(i, item)})", *(finding.verdict for finding in findings)]
        for i, (item, findings) in enumerate(every, 1)
    ]
    counts = []
    for column, results in enumerate(models):
        said = [findings[column].verdict for _, findings in every]
        parts = [f"{verdict} {said.count(verdict)}" for verdict in VERDICTS if verdict in said]
        counts.append(f"`{results.model}`: {', '.join(parts)}")
    header = ["", "claim", *(f"`{results.model}`" for results in models)]
    return f"{table(header, body)}\nOf {count(len(every), 'claim')}: {'; '.join(counts)}.\n"


def anchor(number: int, item: Item) -> str:
    """The anchor that Markdown gives an item's heading."""
    kept = "".join(c for c in f"{number}. {item.title}".lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def sections(models: Sequence[Results], every: list[tuple[Item, list[Finding]]]) -> list[str]:
    """A section for each claim."""
    out = []
    for i, (item, findings) in enumerate(every, 1):
        body = [
            [f"`{results.model}`", finding.number or "\u2013", finding.control or "\u2013", verdict(finding)]
            for results, finding in zip(models, findings, strict=True)
        ]
        files = ", ".join(f"`<model>/{Results(Path(), '').name_of(name)}`" for name in item.tables)
        out.append(
            f"## {i}. {item.title}\n\n{item.claim} ({item.source})\n\nOur measure: {item.measure}\n\n"
            f"Rule: {item.rule}\n\n{table(['model', 'our number', 'control or null', 'verdict'], body)}\n"
            f"Why a difference may be: {item.difference} ({files})\n"
        )
    return out


def verdict(finding: Finding) -> str:
    """The verdict with its reason, where there is one; no bar, which would end a cell."""
    said = f"{finding.verdict}: {finding.reason}" if finding.reason else f"**{finding.verdict}**"
    return said.replace("|", "/")


def write(models: Sequence[Results], path: Path, command: str) -> list[str]:
    """Write the page; returns a line for each model without a study and for each claim that is else not measured.

    Raises StudyError, before anything is written, where no study of any of the models was finished.
    """
    absent = [results.model for results in models if not results.has("model.json")]
    if len(absent) == len(models):
        raise StudyError(f"{models[0].folder}: no results of {listing(absent)}; run a study to its end first")
    text, every = page(models, command), found(models)
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    lines = [f"no results of {model}: none of its {len(ITEMS)} claims is measured" for model in absent]
    return lines + [
        f"not measured: {results.model}, {item.title}: {finding.reason}"
        for item, findings in every
        for results, finding in zip(models, findings, strict=True)
        if finding.verdict == ABSENT and results.model not in absent
    ]
