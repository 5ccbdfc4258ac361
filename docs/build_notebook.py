"""Run docs/notebook.ipynb on a finished study, and keep in it what its cells show.

PYTHONPATH=scripts python docs/build_notebook.py [--results results] [--model MODEL]. Cells run as they do in Jupyter,
one after the other in one namespace; of each the value of its last line is shown. No kernel is needed.
"""

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
NOTEBOOK = DOCS / "notebook.ipynb"
MIME = {"_repr_html_": "text/html", "_repr_png_": "image/png"}  # the methods by which objects show themselves


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def digest(notebook: dict[str, Any]) -> str:
    """Of the code of all cells: what is shown was made by it."""
    code = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells; what a cell raises is raised."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell = cell | {"execution_count": count, "outputs": outputs(source(cell), names, count)}
        cells.append(cell)
    return notebook | {"cells": cells, "metadata": notebook["metadata"] | {"code": digest(notebook)}}


def outputs(code: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a cell prints, and how the value of its last line shows itself."""
    tree, printed, value = ast.parse(code), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {count}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        found.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown(value)})
    return found


def shown(value: Any) -> dict[str, Any]:
    """MIME type -> content, of all ways in which an object shows itself."""
    data: dict[str, Any] = {"text/plain": lines(repr(value))}
    for method, mime in MIME.items():
        if hasattr(value, method):
            made = getattr(value, method)()
            data[mime] = base64.b64encode(made).decode() if isinstance(made, bytes) else lines(made)
    return data


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=DOCS.parent / "results")
    parser.add_argument("--model")
    given = parser.parse_args()
    os.environ["ATLAS_RESULTS"] = str(given.results)
    if given.model:
        os.environ["ATLAS_MODEL"] = given.model
    made = run(json.loads(NOTEBOOK.read_text()))
    NOTEBOOK.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
