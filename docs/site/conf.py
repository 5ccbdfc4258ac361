"""The documents as a site: `make site` writes docs/site/html, from the pages where they lie in the repository.

Links between pages, to headings and to files are checked; what leads nowhere is an error. Nothing is fetched, neither
here nor by who reads the pages.
"""

import json
from pathlib import Path
from typing import Any

from myst_parser.parsers.sphinx_ import MystParser

ROOT = Path(__file__).resolve().parents[2]

project = "Circuit Atlas"
html_title = project
extensions = ["myst_parser"]
root_doc = "README"
source_suffix = {".md": "markdown", ".ipynb": "notebook"}
include_patterns = ["*.md", "docs/*.md", "docs/*.ipynb", "config/README.md", "resources/models/*/README.md"]
exclude_patterns = [".*", "results", "logs", "benchmarks", "tests", "scripts", "bench", "**/node_modules", "docs/site"]
exclude_patterns += [f"{name}/**" for name in exclude_patterns if "*" not in name] + [".*/**"]
myst_heading_anchors = 4  # links name headings as GitHub does
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path: list[str] = []
nitpicky = True

# The menu: part -> pages; those that no part names stand in the last one
MENU = {
    "First steps": ["docs/tutorial", "docs/atlas", "docs/notebook", "docs/usage"],
    "What is found": ["docs/gallery", "docs/findings", "resources/models/ladder-6x8/README"],
    "What it means": ["docs/methods", "docs/artifacts", "docs/published", "docs/fixtures"],
    "Your data and models": [
        "docs/tasks",
        "docs/configuration",
        "docs/bad_input",
        "docs/models",
        "docs/architectures",
        "docs/extending",
    ],
    "Running it": ["docs/cluster", "docs/scale", "docs/performance", "docs/reliability", "docs/incremental"],
}
LAST = "The project"


def menu(pages: set[str]) -> str:
    """Tables of contents of all pages but the root, as Markdown."""
    parts = {part: [page for page in names if page in pages] for part, names in MENU.items()}
    listed = {page for names in parts.values() for page in names}
    parts[LAST] = sorted(pages - listed - {root_doc})
    blocks = (f"```{{toctree}}\n:hidden:\n:caption: {part}\n\n" + "\n".join(names) for part, names in parts.items())
    return "\n```\n\n".join(blocks) + "\n```\n"


def add_menu(app: Any, name: str, text: list[str]) -> None:
    """The README has no tables of contents of its own."""
    if name == root_doc:
        text[0] += "\n\n" + menu(set(app.env.found_docs))


class NotebookParser(MystParser):
    """A notebook as a page: its text, its code, and below each cell what it showed when it was committed."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: Any) -> None:
        super().parse(as_markdown(json.loads(inputstring)), document)


def as_markdown(notebook: dict[str, Any]) -> str:
    """Of a notebook that holds its outputs."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts += [shown(output) for output in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def shown(output: dict[str, Any]) -> str:
    """An output of a cell: as HTML, else as a picture, else as text."""
    data = output.get("data", {"text/plain": output.get("text", [])})
    plain = "".join(data["text/plain"])
    if "text/html" in data:
        kept = (line for line in "".join(data["text/html"]).splitlines() if line.strip())  # a blank line ends HTML
        return "```{raw} html\n" + "\n".join(kept) + "\n```"
    if "image/png" in data:
        return f'```{{raw}} html\n<img alt="{plain}" src="data:image/png;base64,{data["image/png"]}">\n```'
    return f"```text\n{plain}\n```"


def write_front(app: Any, error: Exception | None) -> None:
    """`index.html`, which servers and people look for, leads to the root."""
    if error is None:
        page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={root_doc}.html">'
        page += f'<title>{project}</title><a href="{root_doc}.html">{project}</a>\n'
        (Path(app.outdir) / "index.html").write_text(page)


def setup(app: Any) -> None:
    app.add_source_parser(NotebookParser)
    app.connect("source-read", add_menu)
    app.connect("build-finished", write_front)
