"""`snakemake --cores 2 quick`: an atlas page of one task, made of what the whole study makes too."""

import json

import pandas as pd
import pytest

from atlas.report.atlas import first
from atlas.report.atlas.study import Settings
from atlas.report.atlas.tables import FIRST, Inputs
from atlas.report.shown import MAIN, MODEL, TASK
from study import Study, artifacts_of

NAME, SEARCHED = "ladder-6x8", "numerals"
PAGE = f"results/{NAME}/first.html"
SETTINGS = Settings(
    "A study", kind="mean", threshold=20, thresholds=[20], orders=["layers"], labels={}, k=5, megabytes=12
)


def page_of(results) -> dict:
    """The data of the page of a finished study's first task."""
    folders = {of: results / NAME / ("" if of == MODEL else SEARCHED) for of in {t.of for t in FIRST.values()}}
    files = {name: [str(folders[table.of] / table.file)] for name, table in FIRST.items()}
    page = first.page(NAME, Inputs(files, [NAME], {TASK: [SEARCHED], MAIN: [SEARCHED]}), SETTINGS)
    _, _, rest = page.partition('<script type="application/json" id="data">')
    return json.loads(rest.partition("</script>")[0])


# ---- the page ------------------------------------------------------------------------------------------------
def test_its_numbers_are_those_of_the_tables(study):
    """And of what is not computed yet it holds nothing."""
    results = study.folder / "results"
    data = page_of(results)
    (model,) = data["models"]
    (task,) = model["tasks"]
    folder = results / NAME / SEARCHED
    entry = json.loads((folder / "chosen.json").read_text())["circuits"][0]
    (circuit,) = [c for c in task["circuits"] if c["reported"]]
    assert [f"{i // 9}.{i % 9}" if i % 9 < 8 else f"m{i // 9}" for i in circuit["members"]] == sorted(
        [*entry["heads"], *entry["mlps"]], key=lambda name: (int(name.strip("m").split(".")[0]), name[0] == "m", name)
    )
    choice = pd.read_parquet(folder / "choice.parquet")
    kept = choice[choice.reported & (choice.metric == "percent_of_full") & (choice.split == "held_out")].iloc[0]
    assert circuit["percent"] == pytest.approx([kept.value, kept.ci_low, kept.ci_high], rel=1e-3)
    effects = pd.read_parquet(folder / "component_effects.parquet")
    rows = effects[(effects.kind == "mean") & (effects.metric == "percent_of_full")]
    for row in rows.itertuples():
        at = row.layer * 9 + (8 if row.head < 0 else row.head)
        assert task["effects"]["mean"]["value"][at] == pytest.approx(row.value, rel=1e-3)
    assert len(rows) == 54 and len(task["traces"]) == 1 and task["main"]
    assert task["prompts"] == task["roles"] == data["between"] == model["compare"]["cross"] == []
    assert task["edges"] is task["attribution"] is model["compare"]["shared"] is None
    assert "first look at numerals" in model["warning"] and "nothing twice" in data["note"][-1]


# ---- the target ----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_finished_study_has_all_that_it_needs_but_the_page(study):
    assert study.would_run("quick") == {"write_first_page": 1, "quick": 1}
    assert study.would_run() == {}, "no part of the study itself"


@pytest.mark.slow
def test_the_study_goes_on_from_there_and_nothing_is_made_twice(study, tmp_path):
    """Its artifacts are, to the byte, those of the whole study; the plan of the rest lacks its jobs."""
    fresh = Study(tmp_path / "fresh")
    whole = fresh.would_run()
    done = fresh.snakemake("quick")
    assert f"Open {PAGE}" in done.stdout + done.stderr
    made, reference = artifacts_of(fresh.folder / "results"), artifacts_of(study.folder / "results")
    assert made.pop(PAGE.removeprefix("results/")) and set(made) < set(reference)
    assert [name for name, content in made.items() if content != reference[name]] == []
    jobs = {"check_model", "make_prompts", "score_clean", "cache_activations"}
    jobs |= {"score_components", "search_nodes", "choose_circuit"}
    rest = fresh.would_run()
    assert {rule: whole[rule] - rest.get(rule, 0) for rule in whole if whole[rule] != rest.get(rule)} == dict.fromkeys(
        jobs, 1
    )
