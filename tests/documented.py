"""The shell commands and code blocks that the documents, presets and profiles show."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from study import ROOT

PAGES = ["*.md", "docs/*.md", "config/*.md", "resources/models/*/*.md"]
COMMENTED = ["presets/*.yaml", "profiles/*/*.yaml", "envs/*.yaml", "resources/models/*/*.yaml", "rules/*.smk"]
COMMENTED += ["Dockerfile"]
PROGRAMS = "snakemake|make|source|pip|git|docker|apptainer|python"
STUDY = "snakemake --cores 2 "
SHELL = ("", "sh")  # languages of fenced blocks that hold commands; output that is shown is `text`


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(page.relative_to(ROOT).as_posix(), language, text) for language, text in found]


def commands() -> dict[str, str]:
    """Command -> the first file that shows it: in a block, in backticks, or as a comment line of its own."""
    found: dict[str, str] = {}
    for page in pages():
        name, text = page.relative_to(ROOT).as_posix(), page.read_text()
        shown = [line for block in blocks(page) if block.language in SHELL for line in block.text.splitlines()]
        for command in (*map(bare, shown), *in_backticks(re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))):
            found.setdefault(command, name)
    for path in sorted(path for pattern in COMMENTED for path in ROOT.glob(pattern)):
        comments = re.findall(r"^ *#(.*)$", path.read_text(), re.MULTILINE)
        lines = [bare(line) for line in comments if re.match(rf" {{3}}(?:{PROGRAMS}) ", line)]
        for command in (*lines, *in_backticks("\n".join(comments))):
            found.setdefault(command, path.relative_to(ROOT).as_posix())
    return {command: where for command, where in found.items() if command}


def bare(line: str) -> str:
    """A command line without the comment behind it."""
    return re.sub(r"(^|\s+)# .*$", "", line).strip()


def in_backticks(text: str) -> Iterator[str]:
    """Commands within running text, and options of the study that stand alone; `snakemake` by itself is none."""
    for span in re.findall(rf"(?<!`)`((?:{PROGRAMS}|--config)\s[^`]+)`", text):
        yield STUDY * span.startswith("--") + " ".join(span.split())
