"""A look at the data of a finished study: what it runs, and that its numbers are those of the study."""

import pandas as pd
import pytest


def test_a_look_at_the_data_of_a_finished_study_runs_nothing_else(study):
    assert study.would_run("check_data") == {"check_data": 1}
    done = study.snakemake("check_data")
    assert "numerals: 64 of 64 prompts kept; 32 to search on, 32 held out" in done.stdout
    assert (study.folder / "results/figures/ladder-6x8/ladder-6x8.data.html").is_file()


def test_a_look_needs_no_search(study):
    would = study.would_run("--forceall", "check_data")
    wanted = {"check_model": 1, "make_prompts": 3, "score_clean": 3}
    wanted |= {"write_data_page": 1, "check_data": 1}
    assert would == wanted


def test_scores_of_the_page_are_those_of_the_summary(study):
    folder = study.folder / "results" / "ladder-6x8"
    table = pd.read_parquet(folder / "data_check.parquet")
    shown = table[(table.part == "score") & (table.template == "")].set_index(["task", "split", "name"])
    for task in ("numerals", "number_words", "days"):
        clean = pd.read_parquet(folder / task / "clean_summary.parquet").set_index(["split", "run", "metric"])
        for split in ("search", "held_out", "all"):
            for run, prefix in (("clean", ""), ("corrupted", "corrupted_")):
                for metric in ("top1", "logit_diff"):
                    for column in ("value", "ci_low", "ci_high"):
                        own = shown.loc[(task, split, prefix + metric), column]
                        assert own == pytest.approx(clean.loc[(split, run, metric), column], abs=1e-12)
