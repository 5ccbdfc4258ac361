"""Gates of edges in a study: their circuit, its trace, and its curve."""

import json

import pandas as pd
import pytest

from study import Study

pytestmark = pytest.mark.slow


def test_a_study_learns_gates_of_edges(tmp_path):
    study = Study(tmp_path / "study")
    study.config["edges"]["methods"].append("edge_gates")
    study.write_config(study.config)
    tables = [f"results/ladder-6x8/numerals/{name}.parquet" for name in ("edge_trace", "edge_choice", "edge_curves")]
    study.snakemake(*tables)
    folder = study.folder / "results" / "ladder-6x8" / "numerals"
    content = json.loads((folder / "edge_circuits.json").read_text())
    found = next(c for c in content["circuits"] if c["method"] == "edge_gates")
    start = next(c for c in content["circuits"] if c["method"] == "node_circuit")
    assert set(found["edges"]) < set(start["edges"]) and found["percent_of_full"] > 60 == 100 - found["setting"]
    assert found["seed"] == study.config["statistics"]["seed"] and found["penalty"] > 0
    trace, choice, curves = (pd.read_parquet(study.folder / name) for name in tables)
    rows = trace[trace["method"] == "edge_gates"]
    assert len(rows) and rows["edges"].iloc[-1] == len(found["edges"]) and (rows["percent"][rows["removed"]] > 60).all()
    assert {"edge_gates", "iterative_edges"} & set(choice["method"]) and "edge_gates" in set(curves["method"])
