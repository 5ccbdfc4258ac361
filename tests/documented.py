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


def files(root: Path, patterns: list[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in root.glob(pattern))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def blocks(root: Path = ROOT) -> list[Block]:
    """The fenced blocks of all pages, in the order of the pages' names."""
    found = []
    for page in files(root, PAGES):
        for language, text in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL):
            found.append(Block(page.relative_to(root).as_posix(), language, text))
    return found


def commands(root: Path = ROOT) -> dict[str, str]:
    """Command -> the first file that shows it: in a block, in backticks, or as a comment line of its own."""
    found: dict[str, str] = {}
    for block in blocks(root):
        if block.language in SHELL:
            found |= {bare(line): block.page for line in block.text.splitlines() if bare(line) not in found}
    for page in files(root, PAGES):
        prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for command in in_backticks(prose):
            found.setdefault(command, page.relative_to(root).as_posix())
    for path in files(root, COMMENTED):
        comments = re.findall(r"^ *#(.*)$", path.read_text(), re.MULTILINE)
        lines = [bare(line) for line in comments if re.match(rf" {{3}}(?:{PROGRAMS}) ", line)]
        for command in (*lines, *in_backticks("\n".join(comments))):
            found.setdefault(command, path.relative_to(root).as_posix())
    return {command: where for command, where in found.items() if command}


def bare(line: str) -> str:
    """A command line without the comment behind it."""
    return re.sub(r"(^|\s+)# .*$", "", line).strip()


def in_backticks(text: str) -> Iterator[str]:
    """Commands within running text, and options of the study that stand alone; `snakemake` by itself is none."""
    for span in re.findall(rf"(?<!`)`((?:{PROGRAMS}|--config(?:file)?)\s[^`]+)`", text):
        yield STUDY * span.startswith("--") + " ".join(span.split())
