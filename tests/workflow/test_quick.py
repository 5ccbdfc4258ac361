"""`snakemake --cores 2 quick`: the circuit of one task as a page, made of what the whole study makes too."""

import json
import re

import pandas as pd
import pytest

from atlas.report import first_page
from atlas.store import artifacts
from study import Study, artifacts_of

MODEL, TASK = "ladder-6x8", "numerals"
PAGE = f"results/{MODEL}/first.html"


def given(folder, **changed):
    """The arguments of `page`, from the tables of a finished study."""
    names = {"info": "prompts.json", "clean": "clean_summary.parquet"}
    names |= {"choice": "choice.parquet", "effects": "component_effects.parquet"}
    read = {
        name: artifacts.read_json if file.endswith(".json") else artifacts.read_table for name, file in names.items()
    }
    tables = {name: read[name](folder / file) for name, file in names.items()}
    (entry,) = artifacts.read_json(folder / "chosen.json")["circuits"]
    about = {"task": TASK, "title": "A study", "entry": entry, "kind": "mean"}
    return about | tables | {"colours": {"clean": "#4477AA", "circuit": "#EE6677"}} | changed


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.replace("\u00a0", " ")))


# ---- the page ------------------------------------------------------------------------------------------------
def test_its_numbers_are_those_of_the_tables(study):
    folder = study.folder / "results" / MODEL / TASK
    page = first_page.page(**given(folder))
    text = plain(page)
    entry = json.loads((folder / "chosen.json").read_text())["circuits"][0]
    choice = pd.read_parquet(folder / "choice.parquet")
    kept = choice[choice.reported & (choice.metric == "percent_of_full") & (choice.split == "held_out")].iloc[0]
    size = f"{len(entry['heads'])} heads and {len(entry['mlps'])} MLPs, of 54 components"
    assert f"{size}, keep {kept.value:.1f} % [{kept.ci_low:.1f}, {kept.ci_high:.1f}] of that lead on held-out" in text
    effects = pd.read_parquet(folder / "component_effects.parquet")
    rows = effects[(effects.kind == "mean") & (effects.metric == "percent_of_full")].set_index("component")
    shown = re.findall(r'<td class="text">([\dm.]+)</td><td>([^ ]+) \[', page)
    assert [name for name, _ in shown] == rows.value[[*entry["heads"], *entry["mlps"]]].sort_values().index.tolist()
    assert all(value.replace("\u2212", "-") == f"{rows.value[name]:.1f}" for name, value in shown)
    drawn = set(re.findall(r">(\d\.\d|m\d)</text>", page))
    assert drawn == set(rows.index), "all components of a small model, those outside the circuit faint"
    assert page.count("<svg") == page.count("</svg>") == 1 and "<?xml" not in page


def test_a_circuit_below_the_floor_is_said_to_be(study):
    folder = study.folder / "results" / MODEL / TASK
    entry = given(folder)["entry"]
    assert "The floor is 80 %." in plain(first_page.page(**given(folder)))
    text = plain(first_page.page(**given(folder, entry=entry | {"passes": False, "candidates": 3})))
    assert "below the floor of 80 %: no search found a circuit" in text and "candidates" not in text
    several = plain(first_page.page(**given(folder, entry=entry | {"candidates": 3})))
    assert "the smallest of 3 candidates that passes" in several


# ---- the target ----------------------------------------------------------------------------------------------
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
