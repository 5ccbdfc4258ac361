"""Write docs/gallery.md and its pictures from the figures of a finished study, and copy some of its pages.

PYTHONPATH=scripts python docs/build_gallery.py [--results results] [--model ladder-6x8]

Titles and captions are those that the figures' files hold. Ends with one line where a figure is missing.
"""

import argparse
import sys
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from atlas.core.errors import StudyError
from atlas.report import contents
from atlas.report.shown import SHARED, Shown
from atlas.store.artifacts import atomic

DOCS = Path(__file__).resolve().parent
PICTURES = "images/gallery"
WIDE, COLOURS = 860, 96  # pixels of a picture, and its colours: about 40 kB each
SIZE = 1_700_000  # bytes of all pictures together, at most
MISSING = {"published"}  # figures that the default study has none of
SAMPLE = "sample"  # where copies of these pages lie, in their places to each other, which their links need
PAGES = ["{model}/atlas.html", *(f"figures/{{model}}/{{model}}.{name}.html" for name in ("summary", "heads", "data"))]
ALL = 5_000_000  # bytes of pictures and pages together, at most

HEAD = """# Gallery

Every figure of a study, here of the default one (`make run`); `make gallery` makes this page from them. Each is written
as SVG, PDF and PNG at the width of a paper's page (6.8 inches) or less, with its caption in the file. The command below
a figure draws it, and makes first what it is drawn from and is not there yet. A figure that there is of every task or
circuit is shown for one of them. Studies that name published figures also draw theirs against ours (`published`).

Pages of the same study lie in `docs/sample`, as files to open in a browser: the
[atlas page](sample/{model}/atlas.html), the [summary](sample/figures/{model}/{model}.summary.html), whose links lead
into it, the [heads](sample/figures/{model}/{model}.heads.html) and the
[data](sample/figures/{model}/{model}.data.html). The whole report is larger; `make run` writes it.
"""


def example(row: Shown, folder: Path, model: str) -> Path:
    """The file of a figure that is shown: of those of circuits what the main tasks share, of tasks the first."""
    pattern = Path(row.path.format(model=model, task="*", circuit="*")).name
    files = sorted(folder.glob(pattern))
    if not files:
        raise StudyError(f"{folder}/{pattern}: no such figure; run the study first, `make run`")
    return next((file for file in files if f".{SHARED}." in file.name), files[0])


def said_of(svg: Path) -> tuple[str, str]:
    """(title, caption) that a figure's file holds."""
    found = {child.tag.rpartition("}")[2]: child.text or "" for child in ElementTree.parse(svg).getroot()}
    if not {"title", "desc"} <= set(found):
        raise StudyError(f"{svg}: holds no title or caption; draw it again with `snakemake --cores 2 --force {svg}`")
    return found["title"], found["desc"]


def small(png: Path, out: Path) -> int:
    """A smaller copy of a picture, in few colours; its size in bytes."""
    with Image.open(png) as image:
        whole = image.convert("RGB")
    high = round(whole.height * WIDE / whole.width)
    copy = whole.resize((WIDE, high), Image.Resampling.LANCZOS) if whole.width > WIDE else whole
    copy = copy.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with atomic(out) as part:
        copy.save(part, format="png", optimize=True)
    return out.stat().st_size


def entry(row: Shown, svg: Path) -> str:
    """A figure of the page: its title, picture, caption and command."""
    title, caption = said_of(svg)
    name = title.split(": ")[0]
    target = svg.as_posix()[svg.as_posix().index("results/figures/") :]
    command = f"```text\nsnakemake --cores 2 {target}\n```"
    return f"### {name}\n\n![{title}]({PICTURES}/{row.name}.png)\n\n{caption}\n\n{command}\n"


def write(results: Path, model: str, docs: Path) -> int:
    """Write the page and its pictures; the bytes of all pictures. Raises StudyError where a figure is missing."""
    folder, size, page = results / "figures" / model, 0, [HEAD.format(model=model)]
    (docs / PICTURES).mkdir(parents=True, exist_ok=True)
    rows = [row for row in contents.SHOWN if not row.page and row.name not in MISSING]
    for category in dict.fromkeys(row.category for row in rows):
        page.append(f"## {category.lstrip('0123456789 ')}\n")
        for row in (row for row in rows if row.category == category):
            svg = example(row, folder, model)
            size += small(svg.with_suffix(".png"), docs / PICTURES / f"{row.name}.png")
            page.append(entry(row, svg))
    if size > SIZE:
        raise StudyError(f"{docs / PICTURES}: {size} bytes of pictures, more than {SIZE}; lower WIDE or COLOURS")
    size += copied(results, model, docs / SAMPLE)
    if size > ALL:
        raise StudyError(f"{docs}: {size} bytes of pictures and pages, more than {ALL}; leave out some of PAGES")
    (docs / "gallery.md").write_text("\n".join(page))
    return size


def copied(results: Path, model: str, out: Path) -> int:
    """Copy the pages of `PAGES`; their size in bytes."""
    size = 0
    for name in (page.format(model=model) for page in PAGES):
        if not (results / name).is_file():
            raise StudyError(f"{results / name}: no such page; run the study first, `make run`")
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic(out / name) as part:
            part.write_bytes((results / name).read_bytes())
        size += (out / name).stat().st_size
    return size


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=DOCS.parent / "results")
    parser.add_argument("--model", default="ladder-6x8")
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args(arguments)
    print(f"{write(given.results, given.model, given.docs)} bytes of pictures and pages")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StudyError as error:
        sys.exit(str(error))
