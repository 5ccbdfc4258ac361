"""Circuits where no search looked: which prompts stand in which cell, and values against runs of their own."""

import pandas as pd
import pytest

from atlas.circuit import cells, cross, unseen
from atlas.circuit.remade import Maker
from atlas.core.statistics import Bootstrap
from atlas.proof import exact
from atlas.proof.fixtures import circuit
from planted_tasks import PlantedTask

BOOTSTRAP = Bootstrap(100)


def test_prompts_of_a_file_have_the_cells_of_their_own_wordings(tmp_path):
    """A planted task: no other wording can be made, and held-out prompts show sequences that were searched on."""
    planted = PlantedTask(exact.two_heads("llama"), tmp_path)
    data = planted.data()
    block = {"file": {"clean": "x"}, "hold_out": "prompts", "held_out_share": 0.5, "templates": [], "per_template": 8}
    maker = Maker.of(data, block, None, False, None)
    found = list(unseen.cells(data, maker, [["{object} is {m}."]], 8))
    assert [cell["sequences"] for cell, _ in found] == [cells.SEARCHED]
    rows = unseen.rows_of(iter(found), {"t": circuit("0.1 2.2")}, [("sufficiency", "t")], 20, 0, BOOTSTRAP)
    assert len(rows) == 1 and rows[0]["value"] == pytest.approx(100, abs=1e-3) and rows[0]["note"] == cells.UNASKED
    table = cells.summary(pd.DataFrame(rows).assign(model="m", task="t"), ["t"])
    assert table["circuit"].tolist() == ["reported"] and table["state"].tolist() == [""]


def test_random_sets_stand_in_the_newest_cell_alone(tmp_path):
    planted = PlantedTask(exact.two_heads("llama"), tmp_path)
    ablator = planted.data().ablator("search")
    made = [
        ({"sequences": s, "wordings": w, "wording": "x" if w == cells.NEW else ""}, ablator)
        for s in (cells.SEARCHED, cells.NEW)
        for w in (cells.SEARCHED, cells.NEW)
    ]
    circuits = {"t": circuit("0.1 2.2"), "shared": circuit("0.1")}
    questions = [("sufficiency", "t"), ("necessity", "t"), ("necessity", "shared")]
    rows = pd.DataFrame(unseen.rows_of(iter(made), circuits, questions, 15, 0, BOOTSTRAP), columns=list(cells.COLUMNS))
    drawn = rows[rows["set"] == "control"]
    assert set(drawn["sequences"]) == set(drawn["wordings"]) == {cells.NEW}
    alone, _ = cross.control_rows(ablator, circuits, questions, 15, 0, BOOTSTRAP)
    newest = rows[(rows["sequences"] == cells.NEW) & (rows["wordings"] == cells.NEW)]
    assert newest["value"].tolist() == [row["value"] for row in alone]
    table = cells.summary(rows.assign(model="m", task="t"), ["t"])
    assert len(table) == 12 and (table["state"] != "").sum() == 3
    asked = table[table["state"] != ""].set_index(["question", "circuit"])
    row = asked.loc["sufficiency", "reported"]
    assert row["controls"] == 15 and row["control_median"] == pytest.approx(0, abs=1e-3) and row["p"] == 1 / 16
    assert row["state"] == "untestable" and "15 such sets" in row["reason"]


def test_without_other_wordings_no_random_set_is_asked_for(tmp_path):
    planted = PlantedTask(exact.two_heads("llama"), tmp_path)
    ablator = planted.data().ablator("search")
    made = [({"sequences": cells.NEW, "wordings": cells.SEARCHED, "wording": ""}, ablator)]
    rows = unseen.rows_of(iter(made), {"t": circuit("0.1")}, [("necessity", "t")], 15, 0, BOOTSTRAP)
    assert [row["draw"] for row in rows] == [-1]
