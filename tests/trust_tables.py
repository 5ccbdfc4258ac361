"""Tables of the tests of circuits, as their jobs make them, with made-up numbers."""

import numpy as np
import pandas as pd

from atlas.circuit import cells, doubts
from atlas.compare import consensus, specificity
from atlas.core.components import columns, parse
from atlas.core.graph import Edge
from atlas.core.multiple import corrected
from edge_tables import interval

UNRELATED = "repeated_words"


def add(study, base, chosen, names, controls, rng) -> None:
    """`consensus_edges`, `hypotheses`, `member_tests`, `unseen` and `specificity` of a study whose circuits are
    ``chosen``: task -> names of its components; ``names``: of all (name, layer, head)."""
    study.consensus_edges = _edges(study, chosen)
    tests = [_test(task, test, circuit) for task in study.main for test in doubts.NULLS for circuit in CIRCUITS]
    study.hypotheses = doubts.decided(pd.DataFrame(tests).assign(**base, split="held_out"))
    members = [row for task in study.main for row in _members(task, chosen[task], len(names), rng)]
    columns_ = ["task", *doubts.MEMBER_COLUMNS]
    study.member_tests = pd.DataFrame(members, columns=columns_).assign(**base, split="held_out")
    rows = [row for task in study.main for row in unseen_rows(task, controls)]
    study.unseen = cells.summary(pd.DataFrame(rows).assign(**base), study.main)
    own, elsewhere = specificity_rows(study.main, [UNRELATED], controls)
    found = specificity.rows_of(own, elsewhere, [UNRELATED])
    table = pd.DataFrame(found, columns=list(specificity.COLUMNS)).assign(**base)
    study.specificity = specificity.decided(table)


CIRCUITS = ("reported", "core", "core and contingent")


def _edges(study, chosen) -> pd.DataFrame:
    rows = []
    for task in study.main:
        heads = [name for name in chosen[task] if "." in name]
        found = frozenset(Edge("embed", f"{name}.v") for name in heads) | {Edge(name, "logits") for name in heads}
        searches = {("own", "reported"): found, ("seeds", "seed 1"): frozenset(sorted(found)[1:])}
        rows += [{"task": task} | row for row in consensus.edge_agreement(searches)]
    return pd.DataFrame(rows, columns=list(consensus.EDGE_COLUMNS)).assign(model=study.model)


def _test(task, test, circuit) -> dict:
    row = {"task": task, "test": test, "circuit": circuit, "null": doubts.NULLS[test]}
    row |= {"statistic": doubts.STATISTICS[test], "ties": 0, "prompts": 48}
    if test == doubts.EQUIVALENCE:
        return row | interval(0.1, 0.05) | {"draws": 0, "p": 1e-9, "p_least": 2.0**-47}
    row |= {"value": 0.02, "ci_low": np.nan, "ci_high": np.nan}
    return row | {"draws": 199, "p": 0.3 if circuit == "reported" else 0.005, "p_least": 0.005}


def _members(task, circuit, size, rng) -> list[dict]:
    rows = []
    for place, name in enumerate(sorted(circuit)):
        value = rng.uniform(2, 40) if place else 0.1
        row = {"task": task, "circuit": "reported"} | columns(parse(name)) | {"loss": value + 3, "bar": 3.0}
        row |= {"outside": size - len(circuit), "place": 0.9, **interval(value, 0.5)}
        rows.append(row | {"p": 1e-6 if place else 0.6, "state": "needed" if place else "like random"})
    return corrected(pd.DataFrame(rows), "minimality of reported").to_dict("records") if rows else []


def unseen_rows(task, controls) -> list[dict]:
    """Of four cells: 80 % kept and 10 % left where searched, 70 and 15 on what no search saw; random sets 20 and 70."""
    rows = []
    for sequences in (cells.SEARCHED, cells.NEW):
        for wordings in (cells.SEARCHED, cells.NEW):
            newest = (sequences, wordings) == (cells.NEW, cells.NEW)
            cell = {"task": task, "sequences": sequences, "wordings": wordings, "prompts": 24}
            cell["wording"] = "{object} is {m}." if wordings == cells.NEW else ""
            for question, circuit, value, random in (
                ("sufficiency", task, 70 if newest else 80, 20),
                ("necessity", task, 15 if newest else 10, 70),
                ("necessity", "shared", 25, 75),
            ):
                row = cell | {"question": question, "circuit": circuit, "note": "" if newest else cells.UNASKED}
                rows.append(row | {"set": "circuit", "draw": -1, "components": "0.1", **interval(value, 3)})
                for draw in range(controls if newest else 0):
                    own = {"set": "control", "draw": draw, "components": f"0.{draw}"}
                    rows.append(row | own | interval(random + draw % 5, 3))
    return rows


def specificity_rows(main, unrelated, controls) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of controls on own tasks and elsewhere: ablated, a circuit leaves 10 of its own, 30 of other main tasks and
    90 of unrelated ones, random sets 70 of all; kept, 80, 50 and 5, random sets 20."""
    own, elsewhere = [], []
    values = {"necessity": (10, 30, 90, 70), "sufficiency": (80, 50, 5, 20)}
    for question, (mine, searched, other, random) in values.items():
        for circuit in [*main, "shared"] if question == "necessity" else main:
            for task in [*main, *unrelated]:
                is_own = task == circuit or (circuit == "shared" and task in main)
                row = {"question": question, "circuit": circuit, "task": task}
                value = mine if is_own else other if task in unrelated else searched
                rows = own if is_own else elsewhere
                rows.append(row | {"set": "circuit", "draw": -1, "components": "0.1", **interval(value, 2)})
                for draw in range(controls if is_own or task in unrelated else 0):
                    made = {"set": "control", "draw": draw, "components": f"1.{draw}"}
                    rows.append(row | made | interval(random + draw % 7, 2))
    return pd.DataFrame(own), pd.DataFrame(elsewhere, columns=list(own[0]))
