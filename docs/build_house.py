"""Draw the packages of the library and what each imports, from their import statements (`make docs`)."""

import ast
from html import escape
from pathlib import Path

import atlas
from atlas.store import sources

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "scripts" / "atlas"
PICTURE = ROOT / "docs" / "images" / "house.svg"
ROW, CELL, NAME, TEXT, TOP = 30, 22, 92, 660, 86  # pixels
STYLE = """text { font: 13px Verdana, 'DejaVu Sans', sans-serif; fill: #222222 }
.name { font-weight: bold } .small { font-size: 11px; fill: #767676 }"""


def modules(package: str) -> list[Path]:
    return sorted(path for path in (LIBRARY / package).rglob("*.py") if path.name != "__init__.py")


def imported(package: str) -> dict[str, int]:
    """Other package -> how many modules of this one import from it."""
    found = dict.fromkeys(atlas.PACKAGES, 0)
    for path in modules(package):
        files = {file for name in sources.imports(path.read_text()) for file in sources.files_of(name)}
        for other in {file.relative_to(LIBRARY).parts[0] for file in files if file.parent != LIBRARY} - {package}:
            found[other] += 1
    return found


def sentence(package: str) -> str:
    """The first sentence of its docstring."""
    text = ast.get_docstring(ast.parse((LIBRARY / package / "__init__.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def picture() -> str:
    """Rows in the order of imports, first below; a dot where a package imports from another one, larger for more."""
    names = list(reversed(atlas.PACKAGES))
    left, width = NAME + TEXT, NAME + TEXT + CELL * len(names) + 20
    height = TOP + ROW * len(names) + 16
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">']
    out += [f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="white"/>']
    out.append(f'<text x="{left}" y="16" class="small">imports from; larger dots: from more modules</text>')
    for column, name in enumerate(reversed(names)):
        x = left + CELL * (column + 0.5)
        out.append(f'<text transform="translate({x + 4} {TOP - 8}) rotate(-60)" class="small">{name}</text>')
    for row, name in enumerate(names):
        y, shade = TOP + ROW * row, "#F5F5F5" if row % 2 == 0 else "white"
        out.append(f'<rect x="0" y="{y}" width="{width}" height="{ROW}" fill="{shade}"/>')
        out.append(f'<text x="8" y="{y + 20}" class="name">{name}</text>')
        out.append(f'<text x="{NAME}" y="{y + 20}" class="small">{escape(sentence(name))}</text>')
        for other, count in imported(name).items():
            x = left + CELL * (atlas.PACKAGES.index(other) + 0.5)
            if other == name:
                out.append(f'<rect x="{x - 6}" y="{y + 9}" width="12" height="12" fill="#C4C4C4"/>')
            elif count:
                out.append(f'<circle cx="{x}" cy="{y + 15}" r="{min(8, 2 + count**0.5):.1f}" fill="#4477AA"/>')
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture())
