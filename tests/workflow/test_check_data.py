"""A look at data as a user runs it: what it runs, what it says, and that its numbers are those of the study."""

import re

import pandas as pd
import pytest

from study import Study


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


# ---- before a study ------------------------------------------------------------------------------------------
WRONG = """text,corrupted_text,answer,incorrect
one two,two one,nine,three
two three,three two,ten,four
three four,four three,eight,five
one two,two one,nine ten,three
one two,two one,three,three
one two,two one one,nine,three
"""


@pytest.mark.slow
def test_a_file_that_a_study_would_refuse_can_be_looked_at(tmp_path):
    """Rows of four kinds, and answers that the model finds unlikely: all is said before, and nothing is searched."""
    made = Study(tmp_path / "own")
    (made.folder / "wrong.csv").write_text(WRONG)
    made.config["tasks"]["wrong"] = {"file": {"clean": "wrong.csv"}}
    made.config["study"] |= {"tasks": ["wrong"], "transfer_tasks": []}
    made.write_config(made.config)
    folder = made.folder / "results" / "ladder-6x8"

    said = made.snakemake("check_data").stdout
    assert "wrong: 3 of 6 prompts kept" in said and said.count("  rejected: 1 for:") == 3
    assert "an answer is not one token -> set multi_token: true" in said
    assert re.search(
        r"STOPS THE STUDY: the model's clean logit difference on the 2 prompts to search on is -.*, not positive", said
    )
    table = pd.read_parquet(folder / "wrong" / "rejected.parquet")
    assert table.prompt.tolist() == [3, 4, 5] and table.reason.nunique() == 3
    assert (table.model == "ladder-6x8").all() and (table.task == "wrong").all()
    assert "Stops the study" in (made.folder / "results/figures/ladder-6x8/ladder-6x8.data.html").read_text()

    failed = made.snakemake(check=False)
    text = failed.stdout + failed.stderr
    assert (
        failed.returncode
        and "tasks.wrong: the model's clean logit difference on the 2 prompts to search on is -" in text
    )
    assert "`snakemake --cores 2 check_data` shows its prompts and scores" in text
    assert "Traceback" not in text and not (folder / "wrong" / "trace.parquet").exists()
    for later in ("score_components", "search_nodes", "evaluate_circuits", "explain_task"):
        assert f"rule {later}" not in text
