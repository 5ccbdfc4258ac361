"""A whole small study with answers of several tokens, as a user runs it, and what such tasks leave out."""

import json
import re

import pandas as pd
import pytest
import torch

from atlas.circuit.hooks import edits
from atlas.circuit.replacement import Replacement
from atlas.core.components import all_components, from_json
from atlas.model import models
from atlas.prompts.clean_scores import kept_prompts
from atlas.store import tensors
from study import Study

pytestmark = pytest.mark.slow

PAIRS = [f"{i} {i + 1}" for i in range(1, 40, 2)]
LETTERS = [f"{a} {b}" for a, b in zip("ACEGIKMOQSUW", "BDFHJLNPRTVX", strict=True)]
TASKS = {
    "numeral_pairs": {"members": PAIRS, "templates": ["{m}"], "multi_token": True},
    "letter_pairs": {"members": LETTERS, "templates": ["{m}"], "shown": 3, "multi_token": True},
}
EXPLAINED = (
    "explain_task",
    "explain_heads",
    "score_roles",
    "label_heads",
    "write_head_pages",
    "plot_patching",
    "plot_lens",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One main task and one transfer task of several tokens beside one of each of one token; no edges."""
    made = Study(tmp_path_factory.mktemp("several"))
    made.config["tasks"] |= TASKS
    made.config["study"] |= {"tasks": ["numerals", "numeral_pairs"], "transfer_tasks": ["days", "letter_pairs"]}
    made.config["edges"]["methods"] = []
    made.config["stability"]["seeds"] = [1]
    made.config["generation"]["prompts"] = dict.fromkeys(made.config["generation"]["prompts"])
    made.write_config(made.config)
    made.snakemake()
    return made


def folder(study, task=""):
    return study.folder / "results" / "ladder-6x8" / task


def test_a_finished_study_has_nothing_to_do(study):
    assert study.would_run() == {}


def test_the_atlas_page_shows_what_such_tasks_have_and_says_what_they_lack(study):
    page = (folder(study) / "atlas.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    tasks = {task["name"]: task for task in data["models"][0]["tasks"]}
    for name, task in tasks.items():
        assert task["several_tokens"] == (name in TASKS) and task["edges"] is None
        assert all(("attention" in prompt) == (name not in TASKS) for prompt in task["prompts"])
    scores = pd.read_parquet(folder(study, "numeral_pairs") / "component_scores.parquet")
    scores = scores[(scores.metric == "logit_diff") & (scores.kind == "mean")].set_index(["prompt", "component"]).value
    for prompt in tasks["numeral_pairs"]["prompts"]:
        assert prompt["ablated"]["mean"][2 * 9 + 8] == pytest.approx(scores[prompt["prompt"], "m2"], rel=5.1e-4)
    said = " ".join(data["note"])
    assert "Answers of numeral pairs and letter pairs have several tokens" in said and "Edges are left out." in said


def test_circuits_of_both_sorts_are_evaluated_on_tasks_of_both_sorts(study):
    cross = pd.read_parquet(folder(study, "comparison") / "cross.parquet")
    shares = cross[cross.metric == "percent_of_full"].set_index(["circuit", "task"]).value
    assert set(shares.index.get_level_values("task")) == {"numerals", "numeral_pairs", "days", "letter_pairs"}
    assert {"numerals", "numeral_pairs", "shared", "union", "all but shared"} == set(
        cross.circuit
    ) and shares.notna().all()
    controls = pd.read_parquet(folder(study, "comparison") / "controls_summary.parquet").set_index(["question", "task"])
    assert controls.loc[("sufficiency", "numeral_pairs"), "controls"].item() == 20
    assert controls.loc[("necessity", "letter_pairs"), "value"].item() < 100


@pytest.mark.parametrize("task", ["numeral_pairs", "letter_pairs"])
def test_the_reported_share_is_that_of_teacher_forced_sums(study, task):
    """The circuit of numeral pairs, by a plain loop: each answer token by token through TransformerLens hooks, on means
    over the rows of `activations.pt`. Float32 rounding of sums of log-probabilities is below 1e-4 of values of order 7,
    0.01 percent of full."""
    model = models.load(study.model, device="cpu")
    (reported,) = json.loads((folder(study, "numeral_pairs") / "chosen.json").read_text())["circuits"]
    circuit = from_json(reported)
    tables = (pd.read_parquet(folder(study, task) / f"{name}.parquet") for name in ("prompts", "clean"))
    frame = kept_prompts(*tables, "held_out")
    corrupted = tensors.read(folder(study, task) / "activations.pt")["corrupted"]
    sides = {"answer_tokens": 0, "incorrect_tokens": 1}  # which rows of the cache
    means = {
        key: {name: x[:, side::2].mean(1, keepdim=True) for name, x in corrupted.items()} for key, side in sides.items()
    }

    def score(row, key, keep):
        total, ids = 0.0, list(row[key])
        for i, token in enumerate(ids):
            text = torch.tensor([[*row.tokens, *ids[:i]]])
            s = text.shape[1]
            used = Replacement(means[key]["z"][:, :, :s], means[key]["mlp_out"][:, :, :s], torch.zeros(1).long())
            logits = model.run(text, list(edits(model, keep, used)), on_bridge=True)[0]
            total += float(logits.log_softmax(-1)[token])
        return total

    everything = frozenset(all_components(model.n_layers, model.n_heads))
    of = {
        name: sum(score(row, "answer_tokens", c) - score(row, "incorrect_tokens", c) for _, row in frame.iterrows())
        for name, c in (("circuit", circuit), ("full", everything))
    }
    cross = pd.read_parquet(folder(study, task) / "cross.parquet").set_index(["circuit", "metric"])
    assert cross.loc[("numeral_pairs", "percent_of_full"), "value"] == pytest.approx(
        100 * of["circuit"] / of["full"], abs=0.01
    )


def test_circuits_of_several_tokens_are_searched_and_assessed(study):
    own = folder(study, "numeral_pairs")
    found = pd.read_parquet(own / "faithfulness.parquet")
    found = found[(found.split == "search") & (found.metric == "percent_of_full")]
    assert len(found) and (100 - found.value < found.threshold).all()
    metrics = pd.read_parquet(own / "evaluation.parquet").set_index(["circuit", "metric"]).value
    assert metrics["full", "kl"] == pytest.approx(0, abs=1e-5) and metrics["nodes", "kl"] > 0.01
    assert metrics["full", "logit_diff"] > metrics["empty", "logit_diff"]
    assert set(pd.read_parquet(own / "positions.parquet").role) == {"members", "last"}
    assert {"bootstrap", "seeds"} <= set(pd.read_parquet(own / "stability_summary.parquet").family)
    effects = pd.read_parquet(own / "component_effects.parquet")
    assert len(effects[effects.metric == "percent_of_full"]) == 6 * 9


def test_the_tables_and_pages_say_how_many_tokens(study):
    layout = json.loads((folder(study, "letter_pairs") / "prompts.json").read_text())["layout"]
    prompts = pd.read_parquet(folder(study, "letter_pairs") / "prompts.parquet")
    assert layout["members"] == [[0, 1], [2, 3], [4, 5]] and layout["answer_tokens"] == {"2": len(prompts)}
    assert {"answer_tokens", "incorrect_tokens"} <= set(prompts.columns) and "answer_token" not in prompts
    means = tensors.read(folder(study, "letter_pairs") / "means.pt")
    assert means["longest"].tolist() == [7, 7] and means["corrupted"]["z"].shape[1:3] == (2, 7)
    page = (study.folder / "results/figures/ladder-6x8/ladder-6x8.summary.html").read_text()
    assert f"Letter pairs: answers are of 2 tokens ({len(prompts)} prompts)" in page


def test_heads_are_explained_on_tasks_of_one_token_alone(study):
    for task, known in (("numerals", True), ("days", True), ("numeral_pairs", False), ("letter_pairs", False)):
        for name in ("patching", "lens", "attention", "ov", "backup"):
            assert (folder(study, task) / f"{name}.parquet").is_file() == known, (task, name)
    refused = study.snakemake("results/ladder-6x8/letter_pairs/ov.parquet", "--dry-run", check=False)
    assert refused.returncode and "MissingRuleException" in refused.stderr + refused.stdout


def test_a_study_of_such_tasks_alone_explains_no_head(study):
    def change(config):
        config["study"] |= {"tasks": ["numeral_pairs"], "transfer_tasks": ["letter_pairs"]}

    would = study.with_config(change)
    assert would["write_summary"] == 1 and not set(EXPLAINED) & set(would)


def test_edges_of_other_tasks_stay(study):
    def change(config):
        config["study"] |= {"tasks": ["numerals"], "transfer_tasks": ["letter_pairs"]}
        config["edges"]["methods"] = ["eap_ig", "iterative_edges"]

    would = study.with_config(change)
    assert would["search_edges"] == 1 and would["explain_heads"] == 1, "of numerals"
