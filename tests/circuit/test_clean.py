"""What a model does unharmed: scores, their summary, and the activations and means of the prompts searched on."""

import pandas as pd
import pytest
import torch

from atlas.circuit import clean
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.proof import exact
from planted_tasks import PlantedTask


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return PlantedTask(exact.two_heads("gpt2"), tmp_path_factory.mktemp("task"))


def logits_of(model, tokens):
    with torch.no_grad():
        return model.bridge(torch.tensor([list(tokens)]))[0, -1]


def test_scores_are_those_of_the_bridge_prompt_by_prompt(task):
    model, table = task.data().model, task.data().clean
    shuffled = clean.score(model, task.frame.sample(frac=1, random_state=0), None, False)
    pd.testing.assert_frame_equal(shuffled, table), "the order of prompts changes nothing"
    values = table.pivot(index=["prompt", "run"], columns="metric", values="value")
    for row in task.frame.iloc[::7].itertuples():
        for run, tokens in (("clean", row.tokens), ("corrupted", row.corrupted_tokens)):
            logits, found = logits_of(model, tokens), values.loc[row.prompt, run]
            right, wrong = logits[row.answer_token], logits[row.incorrect_token]
            assert found["logit_diff"] == pytest.approx(float(right - wrong), abs=1e-4)
            assert found["top1"] == float(logits.argmax() == row.answer_token)
            assert found["log_prob"] == pytest.approx(float(logits.log_softmax(-1)[row.answer_token]), abs=1e-4)


def test_a_filter_marks_the_prompts_that_pass(task):
    """No answer is 10^9 times as likely as the incorrect one where the logits differ by 8."""
    model = task.data().model
    assert not clean.score(model, task.frame, {"probability_ratio": 1e9}, False).kept.any()
    assert clean.score(model, task.frame, {"probability_ratio": 10}, False).kept.all()


def test_what_is_not_finite_is_refused(task, monkeypatch):
    nan = torch.full((len(task.frame), 50), float("nan"))
    monkeypatch.setattr(clean, "answer_logits", lambda *_: nan)
    with pytest.raises(StudyError, match=r"tasks.t: what m makes of clean prompts is not finite"):
        clean.score(task.data().model, task.frame, None, False)


def test_the_summary_is_of_each_split_and_of_all(task):
    table = task.data().clean
    summary = clean.summarise(table, Bootstrap(50, 0))
    assert set(summary.split) == {"search", "held_out", "all"}
    cells = table[(table.run == "clean") & (table.metric == "logit_diff")]
    row = summary[(summary.run == "clean") & (summary.metric == "logit_diff")].set_index("split")
    assert row.value["all"] == pytest.approx(cells.value.mean()) and row.prompts["all"] == len(task.frame)
    assert row.value["search"] == pytest.approx(cells.value[cells.split == "search"].mean())
    assert (summary.ci_low <= summary.value).all() and (summary.share_kept == 1).all()


def test_means_are_those_of_the_activations_that_are_kept(task):
    data = task.data()
    for run in ("clean", "corrupted"):
        for name in ("z", "mlp_out"):
            assert torch.allclose(data.means[run][name], data.cache[run][name].mean(1, keepdim=True), atol=1e-6)
    assert data.cache["prompt"].tolist() == data.prompts("search").prompt


def test_a_task_that_no_circuit_can_be_searched_on_is_refused(task):
    data = task.data()
    wrong = data.clean.assign(value=-data.clean.value)
    with pytest.raises(StudyError, match=r"tasks.t: .* not positive.*check_data` shows its prompts"):
        clean.search_prompts(data.every_prompt, wrong, "all", False)
    prompts, groups = clean.search_prompts(data.every_prompt, wrong, "all", True)
    assert prompts.prompt == data.prompts("search").prompt and groups == ["all"]
