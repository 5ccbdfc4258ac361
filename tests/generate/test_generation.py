"""Generation under ablation: the cache against recomputing, TransformerLens hooks and Hugging Face; prompts; scores.

Logits are compared in float64 on random models, with the tolerances of random_models (Llama's norm rounds to float32);
ids are compared exactly.
"""

import copy
import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from transformers import AutoModelForCausalLM

from ablated_heads import hooks
from atlas.circuit import controls
from atlas.circuit.verdicts import UNTESTABLE
from atlas.core.components import Component, all_components
from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.generate import prompts as prompt_sets
from atlas.generate.decoding import Cache, Generator, Removal, forward
from atlas.generate.scores import head_sets, mark_sensitive, summarise, together
from atlas.model import models
from atlas.report.figures import generation as drawing
from atlas.report.sections import generation as section
from atlas.study import checks, settings
from conftest import ROOT, SHIPPED, every_other, load_tokenizer
from random_models import EVERY, FAMILIES, VOCAB, H, L, S, build

PROMPT, STEPS = 3, S - 3  # as many tokens as the random models have positions
HEADS = [c for c in all_components(L, H) if not c.is_mlp]
head_set = st.sets(st.sampled_from(HEADS)).map(frozenset)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("random") / "model"
    network = build(request.param)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)  # with b_V 0, zeroing folded and unfolded z would be the same
    network.save_pretrained(folder)
    load_tokenizer("shipped").save_pretrained(folder)  # the bridge wants one; it is not used
    loaded = models.load(folder, device="cpu", dtype="float64", batch_size=5)
    loaded.tolerance, loaded.folder = EVERY[request.param], folder
    return loaded


@pytest.fixture(scope="module")
def texts():
    return torch.randint(VOCAB, (40, PROMPT), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def means(model):
    shape = (L, PROMPT, H, model.d_head)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def by_hand(model, text, heads, means=None):
    """Logits after one text, read as a whole through the bridge, with heads zero or at their means in the prompt."""
    return model.run(text[None], hooks(heads, means, PROMPT, L), on_bridge=True)[0]


# ---- decoding ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", every_other(["zero", "mean"]))
@given(sets=st.lists(head_set, min_size=1, max_size=6), first=st.integers(0, 30))
@budget(max_examples=8)
def test_ablation_with_a_cache_equals_hooks_on_the_whole_text(model, texts, means, kind, sets, first):
    """At every step, in a batch whose rows have different heads ablated."""
    used, means = texts[first : first + len(sets)], means if kind == "mean" else None
    generator = Generator(model)
    assert generator.weights is not None
    removal, cache = Removal.of(sets, L, H, means), Cache(S)
    text = unread = used
    with torch.no_grad():
        for _ in range(STEPS):
            logits = forward(generator.weights, unread, removal, cache)
            expected = torch.stack([by_hand(model, row, heads, means) for row, heads in zip(text, sets, strict=True)])
            assert (logits - expected).abs().max() < model.tolerance
            unread = logits.argmax(-1, keepdim=True)
            text = torch.cat((text, unread), 1)
    assert generator.generate(used, STEPS, sets, means).equal(text[:, PROMPT:])


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_ablation_with_a_cache_equals_recomputing_everything(model, texts, means, kind):
    rng, means = np.random.default_rng(0), means if kind == "mean" else None
    sets = [frozenset(c for c in HEADS if rng.random() < 0.3) for _ in texts]
    generator, text = Generator(model), texts
    removal = Removal.of(sets, L, H, means)
    with torch.no_grad():
        for _ in range(STEPS):
            logits = forward(generator.weights, text, removal, Cache(S))
            text = torch.cat((text, logits.argmax(-1, keepdim=True)), 1)
    cached = generator.generate(texts, STEPS, sets, means)
    assert cached.equal(text[:, PROMPT:])
    assert cached.equal(Generator(model, use_engine=False).generate(texts, STEPS, sets, means))
    assert not cached.equal(generator.generate(texts, STEPS, [frozenset()] * len(texts))), "the ablation does nothing"


def test_ablating_nothing_equals_hugging_face(model, texts):
    """Greedy, with and without an end mark, after which a row is padded; the mark is one that some texts do write."""
    network = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float64)
    generator, nothing = Generator(model), [frozenset()] * len(texts)
    free = generator.generate(texts, STEPS, nothing)
    options = {"do_sample": False, "max_new_tokens": STEPS, "attention_mask": torch.ones_like(texts)}
    assert free.equal(network.generate(texts, eos_token_id=VOCAB, pad_token_id=0, **options)[:, PROMPT:])
    end = int(free[:, 1].mode().values)
    found = generator.generate(texts, STEPS, nothing, end=end)
    options |= {"pad_token_id": end, "eos_token_id": end}
    for text, row in zip(texts, found, strict=True):  # one at a time: a batch is cut where its last row ends
        options["attention_mask"] = torch.ones_like(text[None])
        expected = network.generate(text[None], **options)[0, PROMPT:]
        assert row[: len(expected)].equal(expected) and (row[len(expected) :] == end).all()
    ended = (found[:, :-1] == end).any(1)
    assert ended.any() and not ended.all(), "the case of an end mark, or of none, is not tested"


def test_batches_and_memory_change_nothing(model, texts):
    sets = [frozenset([HEADS[i % len(HEADS)]]) for i in range(len(texts))]
    found = Generator(model).generate(texts, STEPS, sets)
    alone = copy.copy(model)
    alone.batch_size, alone.memory_mb = 1000, 0.03
    assert 1 <= Generator(alone).rows_that_fit(S) < len(texts)
    assert Generator(alone).generate(texts, STEPS, sets).equal(found)


@pytest.mark.parametrize("pieces", [[S], [1] * S, [2, 3], [3, 1, 2], [1, 4]], ids=str)
def test_a_text_may_be_read_in_any_pieces(model, texts, pieces):
    """What a cache holds stands for the tokens before, whatever was read at a time; with heads ablated too."""
    weights, sets = Generator(model).weights, [frozenset([HEADS[i % len(HEADS)]]) for i in range(len(texts))]
    removal, cache, long = Removal.of(sets, L, H), Cache(S), torch.cat((texts, texts.flip(0), texts), 1)
    text = long[:, : sum(pieces)]
    found = [forward(weights, piece, removal, cache) for piece in text.split(pieces, dim=1)][-1]
    assert (found - forward(weights, text, removal, Cache(S))).abs().max() < model.tolerance


@pytest.mark.parametrize("prepend_bos", [False, True])
def test_the_shipped_model_writes_what_hugging_face_writes(shipped_model, config, prepend_bos):
    """On the prompts of the default study, nothing ablated; and it is right on every one."""
    tokenizer = load_tokenizer("shipped")
    network = AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32)
    generator = Generator(shipped_model)
    for name, block in settings.generation_prompt_sets(config).items():
        rows = prompt_sets.encode_set(name, prompt_sets.make_set(name, block, 3, 0)[0], tokenizer, prepend_bos, 40)
        for row in rows:
            text, steps = torch.tensor([row["tokens"]]), len(row["answer_tokens"])
            found = generator.generate(text, steps, [frozenset()], end=tokenizer.eos_token_id)[0]
            options = {"do_sample": False, "max_new_tokens": steps, "pad_token_id": tokenizer.eos_token_id}
            expected = network.generate(text, attention_mask=torch.ones_like(text), **options)[0, text.shape[1] :]
            assert found.equal(expected) and found.tolist() == row["answer_tokens"]
            assert (row["tokens"][0] == tokenizer.bos_token_id) == prepend_bos


# ---- prompts -------------------------------------------------------------------------------------------------
ABC = {"members": list("ABCDEFGH"), "texts": [["{0} {1}", " {2}"]]}


@given(
    n=st.integers(2, 12),
    step=st.integers(-3, 3).filter(bool),
    cyclic=st.booleans(),
    offsets=st.lists(st.integers(-2, 4), min_size=1, max_size=4),
    per_text=st.integers(1, 15),
)
def test_prompts_hold_the_members_that_their_wording_names(n, step, cyclic, offsets, per_text):
    members = [f"w{i}" for i in range(n)]
    wording = [" ".join(f"{{{k}}}" for k in offsets), "{0}"]
    block = {"members": members, "step": step, "cyclic": cyclic, "texts": [wording]}
    fits = [i for i in range(n) if cyclic or all(0 <= i + step * k < n for k in (*offsets, 0))]
    if not fits:
        with pytest.raises(StudyError, match="has no start among"):
            prompt_sets.make_set("x", block, per_text, 0)
        return
    pairs, corrupted = prompt_sets.make_set("x", block, per_text, 0)
    found = []
    for text, answer in pairs:
        start = members.index(answer.strip())
        assert text.split() == [members[(start + step * k) % n] for k in offsets]
        found.append(start)
    assert len(set(found)) == len(found) == min(per_text, len(fits)) and set(found) <= set(fits)
    assert len(corrupted) == prompt_sets.CORRUPTED
    for i, text in enumerate(corrupted):
        clean = pairs[i % len(pairs)][0].split()
        assert all(a != b for a, b in zip(text.split(), clean, strict=True))
        assert len({(k, m) for k, m in zip(offsets, text.split(), strict=True)}) == len(set(offsets))


def test_first_members_are_spread_evenly():
    pairs, _ = prompt_sets.make_set("x", {"members": {"range": [1, 100]}, "texts": [["{0}", " {1}"]]}, 3, 0)
    assert pairs == [("1", " 2"), ("50", " 51"), ("99", " 100")]


def test_written_out_pairs_are_taken_as_they_are():
    block = {"texts": [["{0} is", "text"], ["A,", " B"], ["Q?\n", "B"]], "corrupted": ["C,"]}
    assert prompt_sets.make_set("x", block, 1, 0) == ([("{0} is", " text"), ("A,", " B"), ("Q?\n", "B")], ["C,"])
    exact = {"texts": [["in the year 17", "63"], ["A", ", B"]], "join": "exact"}
    assert prompt_sets.make_set("x", exact, 1, 0)[0] == [("in the year 17", "63"), ("A", ", B")]


@pytest.mark.parametrize(
    "block",
    [
        {"texts": [["in the year 17", "63"]]},
        {"texts": [["A,", ", B"]]},
        {"texts": [["f(", "x"]]},
        {"members": ["a", "b", "c", "1", "2"], "texts": [["is {0}", "{1}"]]},  # numbers stand last
    ],
)
def test_pairs_that_can_be_read_in_two_ways_are_refused(block):
    with pytest.raises(StudyError, match=r"generation.prompts.x.join: .* are both possible; begin the answer with"):
        prompt_sets.make_set("x", block, 1, 0)


def test_texts_that_the_model_would_not_read_as_they_stand_are_rejected():
    tokenizer = load_tokenizer("shipped")
    pairs = [("one two", " three"), ("one <|endoftext|> two", " three"), ("one two ", " three")]
    rows = prompt_sets.encode_set("x", [*pairs, ("<|endoftext|>one", " two")], tokenizer, True, None)
    assert [row["reason"] for row in rows] == [
        "",
        "a special token stands in the text",
        "the text ends with a space",
        "the text begins with the BOS token, which prepend_bos adds",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": [["{m} {1}", "{2}"]]}, "generation.prompts.x: {m} in '{m} {1}' is not a number of steps"),
        ({"texts": [["A B", " C"]]}, "generation.prompts.x.texts: 'A B' has no {0} for a member"),
        ({"texts": [["{0}", "{9}"]]}, "has no start among 8 members with step +1"),
        ({"members": ["A"], "cyclic": True}, "generation.prompts.x.members: one member leaves no other"),
    ],
)
def test_impossible_wordings_are_refused(change, said):
    with pytest.raises(StudyError, match=re.escape(said)):
        prompt_sets.make_set("x", ABC | change, 4, 0)


@pytest.mark.parametrize("name", ["shipped", "gpt2", "llama2", "pythia"])
def test_answer_tokens_are_what_follows_the_prompts_own_ids(name):
    tokenizer = load_tokenizer(name)
    bos = name == "llama2"
    pairs, _ = prompt_sets.make_set(
        "x", {"members": {"range": [1, 100]}, "step": 10, "texts": [["{0} {1}", " {2} {3}"]]}, 9, 0
    )
    for row in prompt_sets.encode_set("x", pairs, tokenizer, bos, None):
        assert (row["tokens"][0] == tokenizer.bos_token_id) == bos and row["status"] == "used"
        whole = tokenizer(row["text"] + row["answer"], add_special_tokens=False)["input_ids"]
        assert row["tokens"][bos:] + row["answer_tokens"] == whole
        assert prompt_sets.text_after(tokenizer, row["tokens"], row["answer_tokens"], None) == row["answer"]
        assert prompt_sets.text_after(tokenizer, row["tokens"], [*row["answer_tokens"], 2, 5], 2) == row["answer"]
        if name == "llama2":
            digits = [c for c in row["answer"] if c.isdigit()]
            lone_spaces = row["answer_tokens"].count(29871)
            assert lone_spaces == 2 and len(row["answer_tokens"]) == len(digits) + lone_spaces


@pytest.mark.parametrize("name", ["gpt2", "llama2", "pythia"])
def test_a_space_that_belongs_to_the_answer_is_rejected_with_the_reason(name):
    tokenizer = load_tokenizer(name)
    pairs = [("It is March. Answer:", " May"), ("It is March. Answer: ", "May June")]
    rows = prompt_sets.encode_set("x", pairs, tokenizer, False, None)
    assert [row["status"] for row in rows] == ["used", "rejected"]
    assert rows[1]["reason"] == "the text has other tokens when its answer follows"
    with pytest.raises(StudyError, match=r"prompts.x: every prompt was rejected \(the text has other tokens"):
        prompt_sets.encode_set("x", pairs[1:], tokenizer, False, None)


def test_a_prompt_longer_than_the_model_takes_is_rejected():
    rows = prompt_sets.encode_set("x", [("1 2", " 3"), ("1 2 3 4", " 5 6")], load_tokenizer("shipped"), True, 5)
    assert [row["reason"] for row in rows] == ["", "prompt and answer are longer than 5 tokens"]


def test_means_run_over_corrupted_texts_of_the_same_length():
    tokenizer = load_tokenizer("shipped")
    found = prompt_sets.corrupted_of_length("x", ["1 2", "3 4", "1 2 3"], tokenizer, True, 3)
    assert [tokenizer.decode(ids[1:]) for ids in found] == ["1 2", "3 4"]
    with pytest.raises(StudyError, match="a prompt has 9 tokens and none of the 1 corrupted texts does"):
        prompt_sets.corrupted_of_length("x", ["1 2"], tokenizer, True, 9)


@pytest.mark.parametrize("name", ["gpt2", "llama2", "pythia"])
def test_the_preset_for_larger_models_fits_their_tokenizers(config, name):
    over = yaml.safe_load((ROOT / "presets" / "generation.yaml").read_text())["generation"]
    whole = config | {"generation": config["generation"] | over}
    for prompts, block in settings.generation_prompt_sets(whole).items():
        rows = prompt_sets.encode_set(
            prompts, prompt_sets.make_set(prompts, block, 4, 0)[0], load_tokenizer(name), True, 512
        )
        assert all(row["status"] == "used" for row in rows), prompts


# ---- configuration -------------------------------------------------------------------------------------------
def with_prompts(config, **changes):
    return config | {"generation": config["generation"] | changes}


def test_a_set_takes_members_from_its_task_and_null_leaves_it_out(config):
    prompts = {"a": {"task": "numerals_plus_two", "texts": [["{0}", " {1}"]]}, "b": None}
    prompts["c"] = {"task": "months", "cyclic": False, "texts": [["{0}", " {1}"]]}
    found = settings.generation_prompt_sets(with_prompts(config, prompts=prompts))
    assert set(found) == {"a", "c"}
    assert found["a"] == {"members": {"range": [1, 20]}, "step": 2, "texts": [["{0}", " {1}"]]}
    assert found["c"]["cyclic"] is False and len(found["c"]["members"]) == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": {"x": {"task": "weeks", "texts": [["{0}", "{1}"]]}}}, "generation.prompts.x.task: 'weeks'"),
        (
            {"prompts": {"x": {"step": 2, "texts": [["1", "3"]]}}},
            "generation.prompts.x.step: needs `members` or `task`",
        ),
        ({"prompts": {"x": ABC | {"corrupted": ["A C"]}}}, "generation.prompts.x.corrupted: corrupted texts are made"),
        ({"kind": "mean", "prompts": {"x": {"texts": [["1", "2"]]}}}, "generation.prompts.x.corrupted: missing"),
        ({"sets": []}, "generation.sets: no heads to ablate"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(config, changes, said):
    with pytest.raises(StudyError, match=re.escape(said)):
        checks.check(with_prompts(config, **changes))


# ---- head sets and scores ------------------------------------------------------------------------------------
def circuit(names):
    return frozenset(map(Component.parse, names.split()))


CIRCUITS = {"a": circuit("0.1 1.0 m0"), "b": circuit("0.1 1.1"), "shared": circuit("0.1")}
CIRCUITS["union"] = CIRCUITS["a"] | CIRCUITS["b"]
ALL_SETS = ["circuits", "shared", "union", "singles"]


def test_head_sets_are_the_circuits_heads():
    found = head_sets(CIRCUITS, ALL_SETS, {"mine": ["1.2"]}, 2, 3)
    assert {name: sorted(map(str, heads)) for name, heads in found.items()} == {
        "a": ["0.1", "1.0"],
        "b": ["0.1", "1.1"],
        "shared": ["0.1"],
        "union": ["0.1", "1.0", "1.1"],
        "0.1": ["0.1"],
        "mine": ["1.2"],
    }
    assert list(head_sets(CIRCUITS, ["union"], {}, 2, 3)) == ["union"]


def test_sets_that_say_nothing_new_are_left_out():
    one = {"a": CIRCUITS["a"], "shared": CIRCUITS["a"], "union": CIRCUITS["a"]}
    assert list(head_sets(one, ALL_SETS, {}, 2, 3)) == ["a", "0.1", "1.0"]
    nothing = CIRCUITS | {"shared": circuit("m0")}
    assert list(head_sets(nothing, ALL_SETS, {}, 2, 3)) == ["a", "b", "union"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"mine": ["0.3"]}, "generation.own.mine: 0.3 is no head of a model with 2 layers of 3 heads"),
        ({"mine": ["2.0"]}, "generation.own.mine: 2.0 is no head"),
        ({"mine": ["m0"]}, "generation.own.mine: m0 is no head"),
        ({"a": ["0.0"]}, "generation.own.a: the study has a head set of this name"),
    ],
)
def test_heads_that_the_model_lacks_are_refused(own, said):
    with pytest.raises(StudyError, match=re.escape(said)):
        head_sets(CIRCUITS, ALL_SETS, own, 2, 3)


def outputs_of(right: dict) -> pd.DataFrame:
    """(prompt set, heads) -> rows of draws from -1 on, each with one 0 or 1 for each prompt."""
    rows = [
        {"set": s, "heads": h, "draw": draw, "prompt": prompt, "right": bool(value)}
        for (s, h), table in right.items()
        for draw, row in enumerate(table, start=-1)
        for prompt, value in enumerate(row)
    ]
    frame = pd.DataFrame(rows, columns=["set", "heads", "draw", "prompt", "right"])
    frame["output"] = np.where(frame["right"], " 4", " x")
    frame["sensitive"] = mark_sensitive(frame)
    return frame


def prompts_of(**statuses) -> pd.DataFrame:
    """Prompt set -> statuses of its prompts."""
    return pd.DataFrame(
        {"set": s, "prompt": i, "text": "1 2 3", "answer": " 4", "status": status, "reason": "why", "output": " 5"}
        for s, row in statuses.items()
        for i, status in enumerate(row)
    )


# Prompt 2 fails under 3 of 4 controls; prompt 1 under exactly half, which is not most.
OUTPUTS = outputs_of(
    {
        ("s", "a"): [[0, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [0, 0, 1, 1]],
        ("s", "b"): [[1, 1, 1, 1]],
    }
)
PROMPTS = prompts_of(s=["used"] * 4 + ["failed", "rejected"], t=["failed"])
NOTES = {"a": "", "b": "no control: layer 2 has too few other heads"}


def test_a_prompt_that_most_random_sets_fail_is_sensitive():
    marked = OUTPUTS[OUTPUTS["sensitive"]]
    assert set(zip(marked["heads"], marked["prompt"], strict=True)) == {("a", 2)}


def test_shares_by_hand():
    summary = summarise(OUTPUTS, PROMPTS, NOTES, Bootstrap(100)).set_index(["set", "heads", "over"])
    row = summary.loc[("s", "a", "robust")]
    assert (row["given"], row["failed"], row["rejected"], row["prompts"], row["sensitive"]) == (6, 1, 1, 3, 1)
    assert row["value"] == pytest.approx(1 / 3) and row["controls"] == 4
    assert row["control_median"] == pytest.approx(np.median([1, 1, 2 / 3, 1 / 3]))
    assert row["p"] == pytest.approx(2 / 5)  # one control leaves at most as many right
    assert 0 <= row["ci_low"] <= row["value"] <= row["ci_high"] <= 1
    whole = summary.loc[("s", "a", "all")]
    assert whole["prompts"] == 4 and whole["sensitive"] == 0 and whole["value"] == 1 / 4
    assert whole["p"] == pytest.approx(1 / 5)
    alone = summary.loc[("s", "b", "robust")]
    assert (alone["value"], alone["controls"]) == (1, 0) and np.isnan(alone["p"]) and alone["note"] == NOTES["b"]
    empty = summary.loc[("t", "a", "robust")]
    assert (empty["given"], empty["prompts"]) == (1, 0) and np.isnan(empty["value"])
    assert set(summary["state"]) == {"untestable"}, "4 random sets decide nothing"
    assert alone["reason"] == "layer 2 has too few other heads" and "p cannot fall below 0.2" in row["reason"]


def test_sets_are_tested_together_and_single_heads_apart():
    """30 random sets give p = 1/31 = 0.032 at least: enough for the one single head, too little for two sets."""
    table = [[0, 0, 0, 1], *[[1, 1, 1, 1]] * 30]
    outputs = outputs_of({("s", name): table for name in ("a", "b", "1.2")})
    summary = summarise(outputs, prompts_of(s=["used"] * 4), dict.fromkeys(("a", "b", "1.2"), ""), Bootstrap(100))
    robust = summary[summary["over"] == "robust"].set_index("heads")
    assert robust["p"].tolist() == pytest.approx([1 / 31] * 3)
    assert robust["p_holm"].tolist() == pytest.approx([2 / 31, 2 / 31, 1 / 31])
    assert robust["state"].tolist() == ["untestable", "untestable", "beyond random"]
    assert robust["reason"]["a"] == "30 random sets, too few to decide 2 tests together; set generation.controls to 40"


@given(data=st.data(), n=st.integers(1, 6), draws=st.integers(0, 5))
@budget(deadline=None)
def test_scores_are_shares_of_the_prompts_that_are_not_sensitive(data, n, draws):
    table = data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1 + draws, max_size=1 + draws))
    outputs = outputs_of({("s", "a"): table})
    summary = summarise(outputs, prompts_of(s=["used"] * n), {"a": ""}, Bootstrap(100)).set_index("over")
    own, random = np.array(table[0]), np.array(table[1:]).reshape(draws, n)
    robust = random.sum(0) * 2 >= draws
    row = summary.loc["robust"]
    assert row["prompts"] == robust.sum() and row["sensitive"] == n - robust.sum()
    if not robust.any():
        assert np.isnan(row["value"])
        return
    assert row["value"] == pytest.approx(own[robust].mean())
    if draws:
        expected = controls.p_value(own[robust].mean(), random[:, robust].mean(1), low_is_extreme=True)
        assert row["p"] == pytest.approx(expected)


# ---- sentences, figure, page ---------------------------------------------------------------------------------
def row_of(heads="a", over="robust", **changes) -> dict:
    row = {"set": "s_t", "heads": heads, "over": over, "given": 9, "failed": 1, "rejected": 0, "prompts": 7}
    row |= {"sensitive": 1, "value": 0.25, "ci_low": 0.0, "ci_high": 0.5, "controls": 40, "control_median": 0.75}
    return row | {"control_low": 0.5, "control_high": 1.0, "p": 1 / 41, "note": ""} | changes


def said(*rows) -> list[str]:
    return section.findings(together(pd.DataFrame(rows)))


NONE = {"controls": 0, "p": np.nan, "control_median": np.nan, "control_low": np.nan, "control_high": np.nan}


def test_sentences_by_rule():
    sentences = said(row_of(), row_of("shared", p=0.5, sensitive=0), row_of(over="all", value=1.0))
    assert "on fewer prompts than ablating random heads in 1 of 2 tests (p < 0.05, corrected for" in sentences[0]
    assert sentences[1] == (
        "S t: unablated, the model is right on 8 of 9 prompts, and 1 is set aside. Beside random sets, there stay "
        "right 25.0 % [0.0, 50.0] without the a heads (random sets 75.0 %, p = 0.024, the smallest that 40 random "
        "sets can give; 0.049 corrected for 2 tests, 1 sensitive prompt left out) and 25.0 % [0.0, 50.0] without the "
        "shared heads (random sets 75.0 %, p = 0.5; the same corrected for 2 tests)."
    )
    assert len(sentences) == 2


def test_sentences_without_controls_make_no_claim():
    sentences = said(row_of(**NONE | {"note": "no control: layer 2 has too few other heads"}))
    nothing = "No random control decides whether the heads ablated while the model writes are special"
    assert sentences[0] == f"{nothing} (layer 2 has too few other heads)."
    assert "With nothing to compare: 25.0 %" in sentences[1]
    assert sentences[2] == "No random set to compare with for a (no control: layer 2 has too few other heads)."
    few = said(row_of(controls=7, p=1 / 8))  # no number of controls below 20 can reach p < 0.05
    assert few[0] == f"{nothing} (7 random sets, so that p cannot fall below 0.12)."


def test_sentences_about_single_heads():
    few = {"controls": 7, "p": 1 / 8}
    sentences = said(row_of(), row_of("4.3", **few), row_of("2.1", value=1.0, ci_high=1.0, **few))
    assert sentences[-1] == "S t, one shared head ablated: fewer are surely right without 4.3 (25.0 % [0.0, 50.0])."
    harmless = said(row_of("2.1", value=0.9, ci_high=1 - 1e-16))
    assert harmless[-1] == "S t, one shared head ablated: none alone surely costs a prompt."


def test_nothing_generated_or_nothing_right_is_said_so():
    assert section.findings(None) == []
    nothing = {"failed": 9, "prompts": 0, "value": np.nan, "ci_low": np.nan, "ci_high": np.nan}
    sentences = said(row_of(**nothing))
    assert sentences[0].startswith("No random control decides")
    assert sentences[1].endswith("right on 0 of 9 prompts, and 9 are set aside; there is nothing to test.")


@pytest.fixture(scope="module")
def tables():
    summary = summarise(OUTPUTS, PROMPTS, NOTES, Bootstrap(100))
    heads = pd.DataFrame(
        [("a", -1, "0.1 1.0", ""), ("a", 0, "0.0 1.1", ""), ("b", -1, "0.1", NOTES["b"])],
        columns=["heads", "draw", "components", "note"],
    )
    return PROMPTS, OUTPUTS, heads, summary


def test_the_page_shows_every_output_and_says_what_was_left_out(tables):
    prompts, outputs, heads, summary = tables
    page = drawing.page(prompts, outputs, heads.assign(model="m"), "x < y", "Node circuits: T = 7 %")
    assert (
        "Node circuits: T = 7 %." in page
        and "m under x &lt; y ablation" in page
        and "http" not in page
        and "nan" not in page
    )
    assert page.count("rejected: why") == 1 and page.count("set aside") == 2
    assert page.count("\u201c x\u201d") == 3 and page.count("\u201c x\u201d *") == 1
    table = section.table(summary)
    assert len(table["rows"]) == 4 and all(len(row) == len(table["header"]) for row in table["rows"])
    assert not any("nan" in cell for row in table["rows"] for cell in row)


def test_the_figure_draws_every_share(tables):
    _, outputs, _, summary = tables
    figure = drawing.draw(outputs, summary, {"circuit": "#EE6677"})
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["s", "t"]
    marks = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    drawn = np.concatenate([c.get_offsets().data for c in marks])
    expected = {round(100 * v) for v in (1, 2 / 3, 1 / 3)}  # of controls and of the sets themselves, without prompt 2
    assert {round(float(x)) for x in drawn[:, 0]} == expected
    assert [t.get_text() for t in figure.axes[1].texts].count("no prompt left") == 2


def test_the_figure_says_why_a_single_head_cannot_be_told_from_random_ones(tables):
    """Seven other heads in its layer: no p below 1 / 8. Each reason once, single heads together."""
    _, outputs, _, summary = tables
    reason = "only 7 such sets exist, so that p cannot fall below 0.12"
    rows = summary.assign(state=UNTESTABLE, reason=reason, heads=["1.2", "1.3"] * (len(summary) // 2))
    assert drawing.why_untestable(rows) == [f"Hollow in grey, no test possible. Single heads: {reason}"]
    rows.loc[rows.index[0], ["heads", "reason"]] = "shared", "layer 0 has too few other heads"
    said = drawing.why_untestable(rows)
    assert len(said) == 2 and said[0].endswith("Shared: layer 0 has too few other heads")
    assert drawing.why_untestable(rows.assign(state="like random")) == []
    many = rows.assign(reason=[f"reason {i}" for i in range(len(rows))])
    assert len(drawing.why_untestable(many)) <= drawing.REASONS + 1
    figure = drawing.draw(outputs, summary.assign(state=UNTESTABLE, reason=reason), {"circuit": "#EE6677"})
    assert any(reason in t.get_text() for t in figure.texts)
