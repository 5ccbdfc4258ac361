"""A look at the data: its numbers, its table, and its digest."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.prompts import clean_scores
from atlas.report import data_check, data_page
from atlas.report.data_check import look
from prompt_tables import data, fake_clean, fake_prompts, fake_tokens


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_table_can_be_looked_at(draw):
    """Whatever the sides, the filter and the scores: a look has a page, a table and a digest, and counts add up."""
    n = draw.draw(st.integers(1, 12))
    prompts = fake_prompts(n)
    sides = draw.draw(st.lists(st.sampled_from(["search", "held_out"]), min_size=n, max_size=n))
    numbers = st.lists(st.floats(-5, 5), min_size=n, max_size=n)
    kept = np.array(draw.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    prompts = prompts.assign(split=sides)
    clean = fake_clean(prompts, kept, logit_diff=draw.draw(numbers), corrupted_logit_diff=draw.draw(numbers))
    reasons = draw.draw(
        st.lists(st.sampled_from(["an answer is not one token", "one answer begins with the other"]), max_size=4)
    )
    found = look(data(prompts, clean, reasons, filter={"probability_ratio": 2}))
    counts = found.counts
    assert counts["read"] == counts["kept"] + counts["rejected"] == n + len(reasons)
    assert counts["kept"] == counts["search"] + counts["held_out"]
    assert counts["pass the filter"] == kept.sum()
    assert found.answers[["search", "held_out"]].to_numpy().sum() == n
    refused = clean_scores.refusal(found.data.prompts, "all", False)
    assert [warned.stops for warned in found.warnings].count(True) == (refused is not None)
    assert "<u>" not in data_page.page([found], {"t": fake_tokens(prompts)}, "T <u>", "", ["t"])
    assert (data_check.data_table(found)["value"] == 0).isin([True, False]).all()
    assert data_check.digest([found]).count("->") == len(found.warnings) + len(found.reasons)


def test_scores_are_means_of_the_prompts_they_name():
    prompts = fake_prompts()
    clean = fake_clean(prompts)
    scores = look(data(prompts, clean)).scores
    assert set(scores.split) == {"all", "search", "held_out"} and set(scores.template) == {"", "{m} is.", "{m} was."}
    for _, row in scores[scores.metric == "logit_diff"].iterrows():
        chosen = prompts[(row.split == "all") | (prompts.split == row.split)]
        chosen = chosen[(row.template == "") | (chosen.template == row.template)]
        own = clean[(clean.run == "clean") & (clean.metric == "logit_diff") & clean.prompt.isin(chosen.prompt)]
        assert row.value == pytest.approx(own.value.mean()) and row.prompts == len(own)
        assert row.ci_low <= row.value <= row.ci_high
    p = scores[(scores.metric == "probability") & (scores.split == "all")].value
    assert p.to_numpy() == pytest.approx(np.exp(-0.5))


def test_the_table_holds_what_the_page_shows():
    found = look(data(reasons=["an answer is not one token"] * 20, clean=fake_clean(fake_prompts(), logit_diff=-1)))
    table = data_check.data_table(found)
    assert list(table.columns) == list(data_check.COLUMNS)
    values = table.set_index(["part", "name"])["value"]
    assert values["count", "read"] == 148 and values["rejected", "an answer is not one token"] == 20
    assert table[table.part == "answer"].value.sum() == 128
    assert values["warning", "refused"] == 1 and values["warning", "many rejected"] == 0
    assert len(table[table.part == "score"]) == len(found.scores)


def test_the_digest_names_every_reason_and_warning():
    text = data_check.digest([look(data(reasons=["an answer is not one token"] * 20)), look(data())])
    assert "t: 128 of 148 prompts kept; 64 to search on, 64 held out" in text
    assert "rejected: 20 for: an answer is not one token -> set multi_token: true" in text
    assert "warning: 14 % of 148 prompts were rejected" in text and text.endswith("nothing looks wrong\n")


def test_looks_at_all_tasks_make_one_table():
    looks = [look(data()), look(data(reasons=["an answer is not one token"] * 3))]
    table = data_check.tables(looks, "m")
    assert list(table.columns) == ["model", "task", *data_check.COLUMNS] and set(table.model) == {"m"}
    pd.testing.assert_frame_equal(
        table.drop(columns=["model", "task"]), pd.concat(map(data_check.data_table, looks), ignore_index=True)
    )
