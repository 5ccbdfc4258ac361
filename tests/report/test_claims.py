"""The page of claims: every item on tables that agree, on tables that do not, on what cannot be tested and without."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

from atlas.core.errors import StudyError
from atlas.report.claims import of_edits, of_heads, of_shapes, page
from atlas.report.claims.item import ABSENT, AGREES, DIFFERS, UNTESTABLE
from atlas.report.findings import claims as findings
from atlas.report.findings.reading import Results
from atlas.store import artifacts
from study import ROOT

AGREEING, DISAGREEING = True, False
BY_TITLE = {item.title: item for item in page.ITEMS}


def item(start):
    (found,) = (item for title, item in BY_TITLE.items() if title.startswith(start))
    return found


# ---- tables --------------------------------------------------------------------------------------------------
def successors(agree):
    """Head 1.1 is sure for two of three classes, or for none; without MLP 0 it falls, and it favours later members."""
    rows = []
    for kind in ("months", "days", "letters"):
        for target in ("next", "greater"):
            for source in ("mlp0", "without_mlp0"):
                for layer, head in ((-1, -1), (1, 0), (1, 1)):
                    hit = agree and kind != "letters" and head == 1 and source == "mlp0"
                    row = {"class": kind, "input": source, "target": target, "layer": layer, "head": head}
                    row |= {"value": 0.75 if hit else 0.25, "members": 12, "random_median": 0.1, "random_hi": 0.2}
                    rows.append(row | {"p": 0.001 if hit else 0.5, "p_holm": 0.002 if hit else 1.0})
    return {"geometry/successors": pd.DataFrame(rows)}


def one_class(agree):
    """Sure for one class alone, or for two; the score does not fall without MLP 0, or does; no bias, or one."""
    table = successors(True)["geometry/successors"]
    table.loc[(table["class"] == "days") & (table["head"] == 1), ["p", "p_holm", "value"]] = (0.5, 1.0, 0.25)
    own = (table["class"] == "months") & (table["head"] == 1)
    table.loc[own & (table["input"] == "without_mlp0"), "value"] = 0.9
    table.loc[own & (table["target"] == "greater"), ["p", "value"]] = (0.5, 0.5)
    return {"geometry/successors": table}


def probes(agree):
    rows = []
    for tested, value in (("all", 0.5), ("beyond ten", 0.4)):
        for point in (0, 1):
            row = {"point": point, "label": "mod 10", "trained_on": "other classes", "tested_on": tested}
            row |= {"metric": "accuracy", "value": value if agree else 0.1, "ci_low": 0.05, "ci_high": 0.6}
            rows.append(row | {"chance": 0.1, "null_high": 0.2, "p": 0.01, "p_holm": 0.02 if agree else 0.6})
    return {"geometry/probes": pd.DataFrame(rows)}


ANYWAY = ("circle", "random orders"), ("helix", "random orders")  # sure where the claim fails too


def shapes(agree):
    """Days and months on circles; or arcs, of which `closed` says so. Numerals on a helix; or beyond orders alone."""
    rows = []
    for kind, of in (("days", "circle closed"), ("months", "circle closed"), ("numerals", "helix")):
        for shape in of.split():
            for null in ("random orders", "random periods") if shape == "helix" else ("random orders",):
                for point in (0, 1):
                    sure = point == 1 and (agree or (shape, null) in ANYWAY)
                    row = {"class": kind, "at": "member", "point": point, "shape": shape, "null": null}
                    row |= {"control": False, "members": 12, "value": 0.9 if sure else 0.1}
                    row |= {"null_mean": 0.0, "null_low": -0.2, "null_high": 0.2}
                    rows.append(row | {"bound": 0.95, "p": 0.01, "p_holm": 0.02 if sure else 0.4})
    return {"geometry/shapes": pd.DataFrame(rows)}


def patches(agree):
    rows = []
    for task, shape in (("days", "circle"), ("numerals", "helix")):
        fitted = 0.8 if agree else 0.4
        for which, value, draws in (("fitted", fitted, 1), ("permuted", 0.4, 19), ("random", 0.1, 5), ("pca", 0.8, 1)):
            row = {"task": task, "class": task, "shape": shape, "point": 1, "chosen": True, "patched": which}
            row |= {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1, "draws": draws}
            rows.append(row | {"draws_low": value - 0.2, "draws_high": value + 0.2 * (draws > 1), "p": 0.05})
    return {"geometry/shape_patches": pd.DataFrame(rows)}


def displacements(agree):
    rows = []
    for measure in ("cosine", "transfer"):
        row = {"class": "numerals", "other": "number_words", "point": 1, "measure": measure, "steps": 19}
        row |= {"value": 0.4, "unmatched": 0.0, "unmoved": 0.1, "null_low": -0.1, "null_high": 0.1}
        rows.append(row | {"p": 0.01, "p_holm": 0.03 if agree else 0.3})
    return {"geometry/displacements": pd.DataFrame(rows)}


QUALITY = pd.DataFrame({"autoencoder": ["reported", "untrained"], "hook": "blocks.0.hook_resid_post"})
QUALITY = QUALITY.assign(kl_recovered=[0.9, 0.1], l0=12.0)


def feature_tests(agree):
    row = {"test": "index modulo 10", "class": "", "features": 3, "value": 0.5, "null_mean": 0.1, "null_high": 0.3}
    rows = [row | {"p_holm": 0.03 if agree else 0.4}]
    return {"geometry/feature_tests": pd.DataFrame(rows), "geometry/features": QUALITY}


def feature_heads(agree):
    row = {"layer": 1, "head": 4, "class": "months", "edit": "ablate", "untouched": 2.0, "reconstruction": 1.8}
    row |= {"value": 1.5, "ci_low": 1.0, "ci_high": 2.0, "random": 0.1, "p_holm": 0.03 if agree else 0.4}
    return {"geometry/feature_heads": pd.DataFrame([row]), "geometry/features": QUALITY}


def steering(agree):
    row = {"source": "numerals", "target": "months", "metric": "top1", "split": "held_out", "draws": 20}
    row |= {"ci_low": 0.4, "ci_high": 0.8, "random_hi": 0.1, "shuffled_hi": 0.2 if agree else 0.7, "p_holm": 0.02}
    rows = [row | {"method": "difference of means", "chosen": True, "value": 0.6}]
    rows.append(row | {"method": "unsteered", "chosen": False, "value": 0.0, "draws": 0})
    return {"geometry/steering": pd.DataFrame(rows)}


CASES = {
    "Successor heads exist": successors,
    "Successor heads need": lambda agree: successors(True) if agree else one_class(agree),
    "One head": lambda agree: successors(True) if agree else one_class(agree),
    "Successor heads favour": lambda agree: successors(True) if agree else one_class(agree),
    "The index modulo 10": probes,
    "Days": shapes,
    "Months lie": shapes,
    "Patching": patches,
    "Numbers lie": shapes,
    "The helix alone": lambda agree: patches(agree) | shapes(agree),
    "A step": displacements,
    "Features of": feature_tests,
    "Features feed": feature_heads,
    "One class": steering,
}


def results_of(folder, tables, model="m") -> Results:
    description = {"model": model, "architecture": "FakeForCausalLM", "n_layers": 2, "n_heads": 2}
    artifacts.write_json(description, folder / "results" / model / "model.json", {})
    for name, table in tables.items():
        artifacts.write_table(table, folder / "results" / model / f"{name}.parquet", {})
    return Results(folder / "results", model)


# ---- verdicts ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("agree", [AGREEING, DISAGREEING])
@pytest.mark.parametrize("start", CASES)
def test_a_verdict_follows_from_the_tables(start, agree, tmp_path):
    found = item(start).of(results_of(tmp_path, CASES[start](agree)))
    assert found.verdict == (AGREES if agree else DIFFERS)
    assert found.number and found.control and not found.reason
    assert "nan" not in found.number + found.control


@pytest.mark.parametrize("start", [*CASES, "Months are added", "Numerals, number words"])
def test_without_its_tables_a_claim_is_not_measured(start, tmp_path):
    found = item(start).of(results_of(tmp_path, {}))
    assert found.verdict == ABSENT and "absent" in found.reason
    nothing = item(start).of(Results(tmp_path, "other"))
    assert nothing.verdict == ABSENT and nothing.reason == "no results of other"


def test_every_item_has_a_case():
    assert len(page.ITEMS) == len(CASES) + 2 >= 10
    for one in page.ITEMS:
        assert (
            one.claim.endswith(".")
            and one.rule.endswith(".")
            and one.difference.endswith(".")
            and "arXiv" in one.source
        )


@pytest.mark.parametrize(
    ("start", "make", "name", "rows", "reason"),
    [
        ("Successor heads need", lambda agree: successors(False), "successors", slice(None), "no head is sure"),
        ("One head", lambda agree: successors(False), "successors", slice(None), "no head is sure"),
        ("Successor heads favour", lambda agree: successors(False), "successors", slice(None), "no head is sure"),
        ("Successor heads exist", successors, "successors", slice(0), "no class has enough members"),
        ("Days", shapes, "shapes", slice(8, None), "fewer than four days are one token"),
        ("Numbers lie", shapes, "shapes", slice(8), "numerals are not among"),
        ("Patching", patches, "shape_patches", slice(4, None), "no main task"),
        ("The helix alone", patches, "shape_patches", slice(4), "no helix was fitted"),
        ("The index", probes, "probes", slice(2), "members beyond ten"),
        ("A step", displacements, "displacements", slice(0), "not both among"),
        ("One class", steering, "steering", slice(1, None), "no two classes"),
        ("Features of", feature_tests, "feature_tests", slice(0), "no class has members enough"),
        ("Features feed", feature_heads, "feature_heads", slice(0), "no head was tested"),
    ],
)
def test_what_cannot_be_tested_says_why(start, make, name, rows, reason, tmp_path):
    tables = make(True)
    tables[f"geometry/{name}"] = tables[f"geometry/{name}"].iloc[rows]
    found = item(start).of(results_of(tmp_path, tables))
    assert found.verdict == UNTESTABLE and reason in found.reason


TWO, SIX = "If it is May now, two months after is", "Six months after May is"


@pytest.mark.parametrize(
    ("texts", "status", "said", "reason"),
    [
        ([TWO, SIX], "failed", "right on 0 of 2 texts", "does not add"),
        ([TWO], "used", "right on 1 of 1 text that", "no patch of the sum"),
        (["What comes after May is", "the months of the year"], "used", "", "no text of the study asks"),
        ([TWO], "rejected", "", "no text of the study asks"),
    ],
)
def test_sums_of_months_are_never_decided(texts, status, said, reason, tmp_path):
    table = pd.DataFrame({"text": texts, "status": status})
    found = item("Months are added").of(results_of(tmp_path, {"generation/prompts": table}))
    assert found.verdict == UNTESTABLE and said in found.number and reason in found.reason


@pytest.mark.parametrize(
    ("verdict", "control", "expected"),
    [
        (findings.HOLDS, "1 by chance", AGREES),
        (findings.FAILS, "1 by chance", DIFFERS),
        (findings.UNTESTED, "1 by chance", UNTESTABLE),
        (findings.UNTESTED, "", UNTESTABLE),
    ],
)
def test_the_shared_circuit_has_the_verdict_of_the_findings(verdict, control, expected, tmp_path, monkeypatch):
    claim = findings.Claim("c", "m", verdict, "3 heads", control, ())
    monkeypatch.setattr(findings, "shared_circuit", lambda results: claim)
    assert of_heads.shared(results_of(tmp_path, {})).verdict == expected


def test_numbers_are_those_of_the_tables(tmp_path):
    found = of_heads.exist(results_of(tmp_path, successors(True)))
    assert found.number == "2 of 3 classes; best: months 1.1 (75 %) and days 1.1 (75 %)"
    assert "months 10 %, up to 20 %" in found.control and "0.002 after Holm over 2 heads" in found.control
    circle = of_shapes.circle_of("days")(results_of(tmp_path, shapes(True)))
    assert circle.number == "after layer 1: circle 0.90 (p = 0.02 after Holm), closed 0.90 (p = 0.02 after Holm)"
    patch = of_shapes.plane_patch(results_of(tmp_path, patches(True)))
    assert patch.number == "days 80 [70, 90] % after layer 1 (p = 0.05)" and "0.20 to 0.60 in 19" in patch.control
    steer = of_edits.steered(results_of(tmp_path, steering(True)))
    assert steer.number == "1 of 1 pairs: numerals to months 60 [40, 80] % (p = 0.02 after Holm)"
    assert steer.control.endswith("random directions up to 10 %, labels shuffled up to 20 %, unsteered 0 %")


# ---- the page ------------------------------------------------------------------------------------------------
def test_the_page_has_every_claim_and_model_and_says_what_is_absent(tmp_path):
    whole = {name: table for make in CASES.values() for name, table in make(True).items()}
    parts = {"whole": whole, "part": successors(False)}
    models = [results_of(tmp_path, tables, name) for name, tables in parts.items()] + [Results(tmp_path, "none")]
    said = page.write(models, tmp_path / "claims.md", "make claims")
    text = (tmp_path / "claims.md").read_text()
    assert said[0] == f"no results of none: none of its {len(page.ITEMS)} claims is measured"
    assert "not measured: part, Days lie on a circle: `part/geometry/shapes.parquet` absent" in said
    assert not any("whole, Days" in line for line in said)
    for i, one in enumerate(page.ITEMS, 1):
        assert f"\n## {i}. {one.title}\n" in text and f"(#{page.anchor(i, one)})" in text
    for name in ("whole", "none"):
        assert sum(line.startswith(f"| `{name}` |") for line in text.splitlines()) == len(page.ITEMS)
    assert f"`whole`: agrees {len(CASES)}, not measured 2" in text
    assert page.anchor(1, page.ITEMS[0]) == "1-successor-heads-exist-for-several-kinds-of-order"
    cells = {line.count("|") for line in text.splitlines() if line.startswith("| `")}
    assert cells == {5}, "no bar in a cell"


def test_without_any_study_nothing_is_written(tmp_path):
    with pytest.raises(StudyError, match=r"no results of one and two; run a study"):
        page.write([Results(tmp_path, "one"), Results(tmp_path, "two")], tmp_path / "claims.md", "make claims")
    assert not (tmp_path / "claims.md").exists()


def test_the_command_writes_the_page_and_prints_what_is_absent(tmp_path, monkeypatch, capsys):
    results_of(tmp_path, successors(True), "ladder-6x8")
    arguments = ["build_claims.py", "--results", str(tmp_path / "results"), "--docs", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    monkeypatch.syspath_prepend(ROOT / "docs")
    runpy.run_path(str(ROOT / "docs" / "build_claims.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "no results of smollm2" in printed and "not measured: ladder-6x8, Months lie on a circle" in printed
    assert Path(tmp_path / "claims.md").is_file()
    monkeypatch.setattr("sys.argv", [*arguments, "other"])
    with pytest.raises(SystemExit, match="no results of other"):
        runpy.run_path(str(ROOT / "docs" / "build_claims.py"), run_name="__main__")
