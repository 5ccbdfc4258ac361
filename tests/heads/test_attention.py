"""Attention between roles against TransformerLens's cached patterns, and the variants of prompts.

Tolerance 1e-6: weights are at most 1 and summed over at most 23 positions in float32.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas.core.components import Component
from atlas.core.positions import RELATIVE, Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import attention
from atlas.model import models
from atlas.prompts.tasks import Template
from atlas.proof import exact, fixtures
from conftest import load_tokenizer
from head_prompts import layout_of, study_task, tokens_of

TOLERANCE = 1e-5  # weights are at most 1; float32 through six layers leaves 1.4e-6 between two ways


@pytest.fixture(scope="module")
def tasks(config):
    return {task: study_task(config, task) for task in ("numerals", "number_words", "numerals_plus_two", "months")}


# ---- weights -------------------------------------------------------------------------------------------------
def check_against_cache(model, tokens, layout):
    """Sums over the cached pattern, one key at a time, by the layout's words for it."""
    found = attention.weights(model, tokens, layout)
    assert np.abs(found.named.sum(-1) - 1).max() < TOLERANCE and np.abs(found.relative.sum(-1) - 1).max() < TOLERANCE
    _, cache = model.bridge.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    for layer in range(model.n_layers):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"].numpy()
        for q, query in enumerate(layout.queries.values()):
            named, relative = (np.zeros(x[:, layer, :, q].shape) for x in (found.named, found.relative))
            for key in range(query + 1):
                name = "self" if key == query else layout.names[key]
                named[..., found.names.index(name)] += pattern[:, :, query, key]
                relative[..., RELATIVE.index(layout.relative(query)[key])] += pattern[:, :, query, key]
            assert np.abs(found.named[:, layer, :, q] - named).max() < TOLERANCE
            assert np.abs(found.relative[:, layer, :, q] - relative).max() < TOLERANCE
            assert (found.maximum[:, layer, :, q] == pattern[:, :, query].argmax(-1)).all()
    return found


def test_weights_equal_the_cached_patterns_summed_by_role(shipped_model, tasks):
    frame, layout = tasks["numerals"]
    found = check_against_cache(shipped_model, tokens_of(frame)[:20], layout)
    assert found.names == ["member 1", "member 2", "member 3", "member 4", "separators", "self"]
    table = attention.role_table(found, Bootstrap(100, 0))
    cell = table[(table.layer == 1) & (table["head"] == 1)].set_index(["query_role", "key_role"]).value
    mean = found.named[:, 1, 1].mean(0)
    for q, query in enumerate(layout.queries):
        for k, key in enumerate(found.names):
            later = key.startswith("member") and query.startswith("member") and int(key[-1]) >= int(query[-1])
            assert ((query, key) in cell) != later
            assert later or cell[query, key] == pytest.approx(mean[q, k], abs=TOLERANCE)
    assert (table.ci_low <= table.value + 1e-12).all() and (table.value <= table.ci_high + 1e-12).all()


def test_bos_grouped_heads_and_a_member_at_the_answer_position(tmp_path):
    """The member at the answer position is called `last`, from which it is looked once."""
    fixture = exact.induction("llama")
    model = models.load(fixture.build(tmp_path), device="cpu", batch_size=5)
    layout = layout_of(fixture)
    assert layout.answer_position in layout.places and len(layout.queries) == len(layout.members)
    found = check_against_cache(model, fixture.prompts().tokens[:8], layout)
    of_last = attention.statistics(found)["last to last member"]
    assert (of_last == found.named[:, :, :, -1, found.names.index(f"member {len(layout.members) - 1}")]).all()


def test_the_statistics_of_a_head_that_is_known(tmp_path):
    """0.1 attends to the last member, from a member to itself; 2.2 to its own position."""
    fixture = exact.two_heads("gpt2")
    model, layout = models.load(fixture.build(tmp_path), device="cpu"), layout_of(fixture)
    tokens = fixture.prompts().tokens

    def of(tokens, head, interleaved=False):
        found = attention.statistics(attention.weights(model, tokens, layout), interleaved)
        return {name: values[:, head.layer, head.head].mean() for name, values in found.items()}

    finder, own = of(tokens, Component(0, 1)), of(tokens, Component(2, 2))
    seen = ("last to members", "last to last member", "last member is the maximum")
    assert all(finder[name] == pytest.approx(1, abs=1e-6) for name in seen)
    assert finder["member to members"] < 1e-6 and finder["previous member weight"] < 1e-6
    assert finder["previous member is the maximum"] == 0
    assert own.pop("last to self") == own.pop("member to self") == pytest.approx(1, abs=1e-6)
    assert max(own.values()) < 1e-6
    words = attention.words(tokens, fixtures.ids(fixtures.FILLERS), layout, 0)
    assert of(words, Component(0, 1))["last to members"] < 1e-6, "fillers in the members' places attract nothing"
    mixed = of(attention.interleaved(tokens, words, layout), Component(0, 1), True)
    assert mixed["last to last member"] < 1e-6 and mixed["last to members"] == pytest.approx(1, abs=1e-6)
    assert mixed["member to own type"] < 1e-6, "member 3 attends to itself"
    assert mixed["member to other type"] == pytest.approx(0.5, abs=1e-6), "the filler in place of member 4 to member 3"


def test_statistics_are_sums_and_means_of_the_weights(shipped_model, tasks):
    """Of the default layout, written out: members at 3, 8, 13 and 18, the answer after 22, five tokens a clause."""
    frame, layout = tasks["numerals"]
    assert layout.places == [3, 8, 13, 18] and layout.answer_position == 22
    found = attention.weights(shipped_model, tokens_of(frame)[:6], layout)
    statistics = attention.statistics(found, interleaved=True)
    _, cache = shipped_model.bridge.run_with_cache(tokens_of(frame)[:6])
    pattern, m = cache["blocks.1.attn.hook_pattern"].numpy(), layout.places
    others = [k for k in range(1, 22) if k % 5 not in (2, 3)]

    def of_members(keys):
        """Mean over members from the second on; ``keys``: index -> key positions."""
        return np.mean([pattern[:, :, m[k], keys(k)].sum(-1) for k in (1, 2, 3)], axis=0)

    expected = {
        "previous member weight": np.mean([pattern[:, :, m[k], m[k - 1]] for k in (1, 2, 3)], axis=0),
        "member to members": of_members(lambda k: m[:k]),
        "last to members": pattern[:, :, -1, m].sum(-1),
        "last to last member": pattern[:, :, -1, 18],
        "member to own type": (pattern[:, :, m[2], m[0]] + pattern[:, :, m[3], m[1]]) / 2,
        "member to other type": (pattern[:, :, m[2], m[1]] + pattern[:, :, m[3], [m[0], m[2]]].sum(-1)) / 2,
        "last to self": pattern[:, :, -1, 22],
        "last to first member": pattern[:, :, -1, 3],
        "last to other members": pattern[:, :, -1, [8, 13]].sum(-1),
        "last to first token": pattern[:, :, -1, 0],
        "last to same slot": pattern[:, :, -1, [2, 7, 12, 17]].sum(-1),
        "last to separators": pattern[:, :, -1, others].sum(-1),
        "member to self": of_members(lambda k: [m[k]]),
        "member to last member": of_members(lambda k: [m[k - 1]]),
        "member to first member": of_members(lambda k: [m[0]] if k > 1 else []),
        "member to other members": of_members(lambda k: [m[1]] if k == 3 else []),
        "member to first token": of_members(lambda k: [0]),
        "member to separators": of_members(lambda k: [i for i in range(1, m[k]) if i % 5 != 3]),
    }
    for name, values in expected.items():
        assert np.abs(statistics[name][:, 1] - values).max() < TOLERANCE, name
    maxima = {"previous member is the maximum", "last member is the maximum"}
    assert set(statistics) == set(expected) | maxima, "from a member, what is in its slot are members"
    for query in ("last", "member"):
        total = sum(values for name, values in statistics.items() if name.removeprefix(f"{query} to ") in RELATIVE)
        assert np.abs(total - 1).max() < TOLERANCE


def test_whole_patterns_are_the_cached_ones(shipped_model, tasks):
    tokens, heads = tokens_of(tasks["months"][0])[:2], [Component(1, 4), Component(1, 2), Component(4, 3)]
    _, cache = shipped_model.bridge.run_with_cache(tokens)
    found = attention.patterns(shipped_model, tokens, heads)
    assert list(found) == ["1.4", "1.2", "4.3"]
    for head in heads:
        assert (
            found[str(head)] - cache[f"blocks.{head.layer}.attn.hook_pattern"][:, head.head]
        ).abs().max() < TOLERANCE


# ---- variants ------------------------------------------------------------------------------------------------
@given(st.integers(2, 5), st.integers(0, 10))
def test_shuffling_permutes_members_and_nothing_else(k, seed):
    layout = Layout(2 * k + 2, tuple((p, p) for p in range(1, 2 * k, 2)), 2 * k + 1)
    tokens = torch.arange(3 * layout.tokens).view(3, -1)
    out, places = attention.shuffled(tokens, layout, seed), layout.places
    rest = [p for p in range(layout.tokens) if p not in places]
    assert (out[:, rest] == tokens[:, rest]).all()
    assert (out[:, places].sort().values == tokens[:, places]).all()
    assert (out[:, places] != tokens[:, places]).any(1).all(), "never the order that is shown"
    assert (out == attention.shuffled(tokens, layout, seed)).all()
    with pytest.raises(ValueError, match="fewer than two members"):
        attention.shuffled(tokens, replace(layout, members=layout.members[:1]), seed)
    with pytest.raises(ValueError, match="several tokens"):
        attention.shuffled(tokens, replace(layout, members=((0, 1), (2, 2))), seed)


def test_interleaved_prompts_are_what_their_text_says(tasks):
    """Equal to the tokens of a text rendered from the template with members of both tasks."""
    (own, layout), (other, _) = tasks["numerals"], tasks["months"]
    name, rows, found = attention.partner(own, layout, {"months": other})
    mixed = attention.interleaved(tokens_of(own)[rows], found, layout)
    assert name == "months" and len(rows) == len(own)
    tokenizer, other = load_tokenizer("shipped"), other.set_index("prompt")
    for i in (0, 7, 20):
        row, theirs = own.iloc[i], other.loc[own.prompt[i]]
        members = [b if k % 2 else a for k, (a, b) in enumerate(zip(row.members, theirs.members, strict=True))]
        text = Template.parse(row.template).render(members, row.fillers).text
        assert tokenizer(text)["input_ids"] == mixed[i].tolist()


def test_a_partner_has_the_same_fillers_and_other_members(tasks):
    own, layout = tasks["numerals"]
    other = tasks["months"][0]
    assert attention.partner(own, layout, {"x": tasks["numerals_plus_two"][0]}) is None, "shares members"
    shifted = other.assign(prompt=[*other.prompt.tolist()[1:], -1])
    assert attention.partner(own, layout, {"x": shifted}) is None, "other fillers"
    longer = other.assign(tokens=[[0, *t] for t in other.tokens])
    assert attention.partner(own, layout, {"x": longer}) is None, "another layout"
    assert attention.partner(own, layout, {"x": other.iloc[: len(own) // 3]}) is None, "too few prompts"
    name, rows, tokens = attention.partner(own, layout, {"x": shifted, "y": other.iloc[2:]})
    assert (
        name == "y" and set(own.prompt.iloc[rows.tolist()]) <= set(other.prompt.iloc[2:]) and len(rows) == len(tokens)
    )


def test_words_replace_the_members_alone(tasks):
    own, layout = tasks["numerals"]
    tokens, candidates = tokens_of(own), list(range(5, 15))
    out, places = attention.words(tokens, candidates, layout, 0), layout.places
    rest = [p for p in range(layout.tokens) if p not in places]
    assert (out[:, rest] == tokens[:, rest]).all()
    assert all(len(set(row)) == len(places) and set(row) <= set(candidates) for row in out[:, places].tolist())


def test_prompts_without_members_have_a_last_position_only(shipped_model, tasks):
    tokens = tokens_of(tasks["numerals"][0])[:3]
    layout = Layout(tokens.shape[1], (), tokens.shape[1] - 1)
    found = attention.weights(shipped_model, tokens, layout)
    table = attention.role_table(found, Bootstrap(100, 0))
    assert set(table.query_role) == {"last"} and set(table.key_role) == {"separators", "self"}
    empty = attention.statistic_table(found, Bootstrap(100, 0))
    assert empty.empty and list(empty.columns) == attention.STATISTIC_COLUMNS
