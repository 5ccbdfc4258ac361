"""What all HTML pages share: the frame around them (frame.html), and how a page is made from its template.

The template of a module lies beside it under the same name, `lens_page.html` beside `lens_page.py`, and counts as part
of the module wherever its content matters (store/sources.py). Pages need nothing from outside.
"""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

BRIEF = 26  # letters of a name


def text_columns(rows: list[list[str]]) -> list[Markup]:
    """The class of each column's cells: columns with words are set left, columns of numbers right.

    Words that are short, as names are, stay on one line (`brief`).
    """
    classes = []
    for column in zip(*rows, strict=True):
        brief = " brief" if max(map(len, column)) <= BRIEF else ""
        text = any(re.match(r"[^\W\d_]", cell) for cell in column)
        classes.append(Markup(' class="text{}"').format(brief) if text else Markup(""))
    return classes


def tied(sentence: str) -> str:
    """With spaces that do not break within `80 %` and `p = 0.02`."""
    return re.sub(r" (?=%|[=<] [\d.])|(?<=[=<]) (?=[\d.])", "\u00a0", sentence)


HTML = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
HTML.filters |= {"text_columns": text_columns, "tied": tied}


def render(module: str, title: str, lead: str = "", warning: str = "", **content: Any) -> str:
    """The page of a module (its ``__file__``).

    ``warning`` stands above everything else; ``content`` is what its template shows below.
    """
    template = HTML.get_template(Path(module).with_suffix(".html").name)
    return template.render(title=title, lead=lead, warning=warning, **content)
