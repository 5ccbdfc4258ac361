"""What the job of generation computes, without Snakemake, against writing token by token with hooks."""

import numpy as np
import pandas as pd
import pytest
import torch

from ablated_heads import hooks
from atlas.circuit.controls import matched_sets
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.generate import prompts as prompt_sets
from atlas.generate.writing import OUTPUT_COLUMNS, OWN, Ablated, Writer, generate
from atlas.model.models import z_hook
from conftest import load_tokenizer

BLOCKS = {
    "counting": {
        "texts": [
            ["Apple found in {0}. Boat found in {1}. Chair found in", " {2}"],
            ["Apple found in {0}. Boat found in {1}. Chair found in {2}. Desk found in", " {3}"],
        ],
        "members": [str(n) for n in range(1, 13)],
        "step": 1,
        "cyclic": False,
    },
    "pairs": {
        "texts": [
            ["Apple found in 1. Boat found in 2. Chair found in", " 3."],
            ["Apple found in 1. Boat found in 2. Chair found in", " 7"],
            ["Apple found in", " 3 4"],
        ],
        "corrupted": ["Apple found in 5. Boat found in 5. Chair found in", "Apple found in"],
    },
}
SETS = {"both": frozenset({Component(1, 4), Component(2, 3)}), "one": frozenset({Component(1, 4)})}


@pytest.fixture(scope="module")
def ablated():
    return Ablated.of(SETS, 6, 8, controls=2, seed=0)


def writer(model, kind) -> Writer:
    return Writer(model, load_tokenizer("shipped"), False, 40, kind)


@pytest.fixture(scope="module", params=["zero", "mean"])
def made(request, shipped_model, ablated):
    tables = generate(writer(shipped_model, request.param), BLOCKS, 3, 0, ablated, Bootstrap(50, 0))
    return request.param, tables


def by_hand(model, tokens, n, heads, means) -> list[int]:
    """``n`` greedy tokens, the whole text read again for each; ``means`` [L, S, H, d_head], None for zero."""
    text = torch.tensor([tokens])
    for _ in range(n):
        logits = model.run(text, hooks(heads, means, len(tokens), model.n_layers), on_bridge=True)
        text = torch.cat((text, logits.argmax(-1, keepdim=True)), 1)
    return text[0, len(tokens) :].tolist()


def means_by_hand(model, name, length):
    """Of z over the set's corrupted texts of this length."""
    tokenizer = load_tokenizer("shipped")
    texts = prompt_sets.make_set(name, BLOCKS[name], 3, 0)[1]
    ids = [row for row in tokenizer(texts)["input_ids"] if len(row) == length]
    _, cache = model.bridge.run_with_cache(torch.tensor(ids), names_filter=lambda n: n.endswith("hook_z"))
    return torch.stack([cache[z_hook(layer)].mean(0) for layer in range(model.n_layers)])


# ---- heads ---------------------------------------------------------------------------------------------------
def test_every_set_has_its_controls_from_outside(ablated):
    assert list(ablated.draws) == ["both", "one"] and ablated.notes == {"both": "", "one": ""}
    for name, draws in ablated.draws.items():
        assert list(draws) == [OWN, 0, 1] and draws[OWN] == SETS[name]
        assert [draws[0], draws[1]] == matched_sets(SETS[name], 6, 8, 2, 0, outside=True)[0]
    assert len(ablated.distinct) == len(set(ablated.distinct)) <= 6
    few = Ablated.of({"all of a layer": frozenset(Component(1, h) for h in range(8))}, 6, 8, 2, 0)
    assert few.notes["all of a layer"].startswith("no control") and list(few.draws["all of a layer"]) == [OWN]
    table = ablated.table()
    assert list(table) == ["heads", "draw", "components", "note"] and len(table) == 6
    assert table.components[0] == "1.4 2.3" and table.components[3] == "1.4"


# ---- what is written -----------------------------------------------------------------------------------------
def test_outputs_equal_writing_token_by_token(shipped_model, ablated, made):
    kind, tables = made
    prompts, outputs = tables["prompts"].set_index(["set", "prompt"]), tables["outputs"]
    assert list(outputs) == [*OUTPUT_COLUMNS, "sensitive"]
    drawn = outputs.iloc[np.linspace(0, len(outputs) - 1, 12).astype(int)]
    for row in drawn.itertuples():
        prompt = prompts.loc[(row.set, row.prompt)]
        means = means_by_hand(shipped_model, row.set, len(prompt.tokens)) if kind == "mean" else None
        heads = ablated.draws[row.heads][row.draw]
        expected = by_hand(shipped_model, prompt.tokens, len(prompt.answer_tokens), heads, means)
        assert row.output_tokens == expected and row.right == (expected == prompt.answer_tokens)
        assert row.output == load_tokenizer("shipped").decode(expected, skip_special_tokens=True)


def test_prompts_keep_what_the_unablated_model_writes(shipped_model, made):
    _, tables = made
    prompts, outputs = tables["prompts"], tables["outputs"]
    assert prompts.groupby("set").size().to_dict() == {"counting": 6, "pairs": 3}
    assert set(prompts.status) <= set(prompt_sets.STATUS) and {"used", "failed"} <= set(prompts.status)
    for row in prompts.itertuples():
        expected = by_hand(shipped_model, row.tokens, len(row.answer_tokens), (), None)
        assert row.output_tokens == expected
        assert (row.status == "used") == (expected == row.answer_tokens)
        assert row.reason == ("" if row.status == "used" else "the unablated model gives another answer")
    used = prompts[prompts.status == "used"]
    written = outputs.groupby(["set", "prompt"]).size()
    assert sorted(written.index) == sorted(zip(used["set"], used.prompt, strict=True)), "nothing after the others"
    assert (written == 6).all(), "two sets with two controls each"


def test_the_summary_counts_every_set_of_prompts_and_heads(made):
    _, tables = made
    summary = tables["summary"]
    assert list(tables) == ["prompts", "heads", "outputs", "summary"]
    assert len(summary) == 2 * 2 * 2 and set(zip(summary["set"], summary["heads"], strict=True)) == {
        (name, heads) for name in BLOCKS for heads in SETS
    }
    shares = tables["outputs"].query("draw == -1").groupby(["set", "heads"]).right.mean()
    of_all = summary[summary.over == "all"].set_index(["set", "heads"]).value.dropna()
    pd.testing.assert_series_equal(of_all, shares.reindex(of_all.index), check_names=False, check_dtype=False)


def test_a_prompt_without_corrupted_texts_of_its_length_is_refused(shipped_model, ablated):
    block = BLOCKS["pairs"] | {
        "texts": [["Apple found in 1. Boat found in 2. Chair found in", " 3"]],
        "corrupted": ["so"],
    }
    with pytest.raises(StudyError, match=r"generation\.prompts\.pairs: .* no mean to ablate with"):
        writer(shipped_model, "mean").write("pairs", block, 3, 0, ablated)
    assert writer(shipped_model, "zero").write("pairs", block, 3, 0, ablated)[1], "zero needs none"
