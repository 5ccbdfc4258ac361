"""The notebook of the documents runs on any finished study; the one that is committed shows what its code made."""

import base64
import json
import runpy

import nbformat
import pandas as pd
import pytest

from conftest import ROOT

build = runpy.run_path(str(ROOT / "docs" / "build_notebook.py"))
NOTEBOOK = json.loads(build["NOTEBOOK"].read_text())


def texts(notebook, mime="text/plain") -> list[str]:
    """What the cells of a notebook show: printed, or of this type."""
    shown = (output for cell in notebook["cells"] for output in cell.get("outputs", ()))
    return ["".join(o["text"] if "text" in o else o["data"].get(mime, "")) for o in shown]


def test_it_runs_on_a_finished_study_and_shows_its_numbers(study, monkeypatch):
    monkeypatch.setenv("ATLAS_RESULTS", str(study.folder / "results"))
    monkeypatch.delenv("ATLAS_MODEL", raising=False)
    made = build["run"](NOTEBOOK)
    nbformat.validate(nbformat.from_dict(made))
    folder = study.folder / "results" / "ladder-6x8"
    cross = pd.read_parquet(folder / "comparison" / "cross.parquet")
    kept = cross[(cross.circuit == "numerals") & (cross.task == "numerals") & (cross.metric == "percent_of_full")].iloc[
        0
    ]
    said = f"{kept.value:.1f} % [{kept.ci_low:.1f}, {kept.ci_high:.1f}]"
    assert sum(said in text for text in texts(made, "text/html")) == 2, "the study, and its circuit"
    effects = pd.read_parquet(folder / "numerals" / "component_effects.parquet")
    circuit = json.loads((folder / "comparison" / "circuits.json").read_text())["circuits"]["numerals"]["heads"]
    rows = effects[(effects.metric == "percent_of_full") & (effects.kind == "mean") & effects.component.isin(circuit)]
    most = rows.nsmallest(4, "value").component.tolist()
    assert all(name in texts(made)[2] for name in most)
    assert texts(made)[6].count("points") == 6 and texts(made)[6].startswith(f"{most[0]} and {most[1]}: ")
    (picture,) = filter(None, texts(made, "image/png")[3:4])
    drawn = study.folder / "results" / "figures" / "ladder-6x8" / "ladder-6x8.numerals.circuit_diagram.png"
    assert base64.b64decode(picture) == drawn.read_bytes()


def test_a_cell_shows_what_jupyter_would():
    """What it prints; the value of its last line, by each way it has; nothing of a statement or of None."""
    names = {}
    (printed,) = build["outputs"]("a = 2\nprint(a)", names, 1)
    assert printed == {"output_type": "stream", "name": "stdout", "text": ["2\n"]}
    (value,) = build["outputs"]("a + 1", names, 2)
    assert value["data"] == {"text/plain": ["3"]} and value["execution_count"] == 2
    assert build["outputs"]("None", names, 3) == build["outputs"]("b = 1", names, 4) == []
    with pytest.raises(ZeroDivisionError):
        build["outputs"]("1 / 0", names, 5)


def test_the_committed_notebook_was_run_with_its_present_code():
    """`PYTHONPATH=scripts python docs/build_notebook.py --model smollm2` runs it anew."""
    nbformat.validate(nbformat.from_dict(NOTEBOOK))
    assert NOTEBOOK["metadata"].get("code") == build["digest"](NOTEBOOK)
    assert len(texts(NOTEBOOK)) >= sum(cell["cell_type"] == "code" for cell in NOTEBOOK["cells"])
