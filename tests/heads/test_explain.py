"""What jobs compute of heads, without Snakemake: on a small random model, against the analyses' parts and by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from atlas.circuit.replacement import replacement
from atlas.core.components import Component
from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.core.statistics import Bootstrap
from atlas.heads import attention, attribution, backup, explain_heads, explain_task, lens, ov, patching
from atlas.heads.explain_heads import Settings, Tasks
from atlas.heads.explained import Explained
from atlas.model import activations, models
from atlas.prompts import layouts
from atlas.prompts.tasks import expand_members
from atlas.store import artifacts, tensors
from atlas.study.settings import task_block
from conftest import load_tokenizer
from head_prompts import study_task, tokens_of

TASKS = ("numerals", "months")
HEADS = [Component(0, 2), Component(1, 1)]
SETTINGS = Settings(["river", "cloud", "music", "city", "fish", "tree"], 3, [1, 5], ["own", "in place"], seed=0)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """Two layers of three heads, with the tokenizer of the shipped model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder, tokenizer = tmp_path_factory.mktemp("random"), load_tokenizer("shipped")
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 3, "n_embd": 12, "n_positions": 40, "vocab_size": len(tokenizer)}
    network = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return models.load(folder, device="cpu", batch_size=7)


@pytest.fixture(scope="module")
def studied(config):
    return {task: study_task(config, task, per_template=16) for task in TASKS}


@pytest.fixture(scope="module")
def tasks(config, studied):
    every = pd.concat([frame.assign(task=task) for task, (frame, _) in studied.items()])
    members = {task: list(expand_members(config["tasks"][task]["members"])) for task in TASKS}
    return Tasks.of(every, {task: layout for task, (_, layout) in studied.items()}, TASKS, members)


def explained(model, frame, layout, task="numerals") -> Explained:
    return Explained(task, model, load_tokenizer("shipped"), frame, layout, Bootstrap(50, 0), ["all"])


@pytest.fixture(scope="module")
def numerals(random_model, studied):
    return explained(random_model, *studied["numerals"])


@pytest.fixture(scope="module")
def substitute(random_model, numerals):
    _, means = activations.collect(random_model, numerals.prompts.corrupted_tokens)
    return replacement("mean", random_model, numerals.prompts, {"corrupted": means, "groups": ["all"]})


def mean_weight(model, tokens, layer, head, query, key) -> float:
    _, cache = model.bridge.run_with_cache(tokens)
    return float(cache[f"blocks.{layer}.attn.hook_pattern"][:, head, query, key].mean())


# ---- heads ---------------------------------------------------------------------------------------------------
def test_every_analysis_of_heads(random_model, numerals, tasks, substitute):
    wanted = ["attention", "attention_members", "patterns", "ov", "backup"]
    n = len(numerals.frame)
    tables = explain_heads.explain(numerals, wanted, HEADS, tasks, SETTINGS, substitute)
    assert sorted(tables) == sorted(wanted)
    page = tables["patterns"]
    assert page["notes"] == {"interleaved": f"with the members of months, on {n} of {n} prompts"}
    assert page["heads"] == ["0.2", "1.1"] and len(page["examples"]) == SETTINGS.pattern_prompts

    found, layout = tables["attention"], numerals.layout
    assert list(dict.fromkeys(found.variant)) == list(attention.VARIANTS)
    made, _ = explain_heads.variants(numerals, tasks, SETTINGS.random_words, seed=0)
    for variant, tokens in made.items():
        cell = found[(found.variant == variant) & (found.layer == 1) & (found["head"] == 2)]
        cell = cell[(cell.query_role == "last") & (cell.key_role == "member 2")]
        expected = mean_weight(random_model, tokens, 1, 2, layout.answer_position, layout.places[1])
        assert cell.value.item() == pytest.approx(expected, abs=1e-6)
    typed = tables["attention_members"].groupby("variant").statistic.agg(set)
    assert typed["interleaved"] - typed["words"] == {"member to own type", "member to other type"}

    scores = tables["ov"]
    assert set(scores.norm) == {"own", "in place"} and set(scores.k) == {0, 1, 5}
    assert {"copy", "next", "previous", "next_next", "cross:months", ov.LEAD} == set(scores.score)
    expected = backup.table(
        *backup.before_and_after(random_model, numerals.prompts, substitute, HEADS), numerals.bootstrap
    )
    assert tables["backup"].equals(expected)


def test_only_the_wanted_tables_are_made(numerals, tasks):
    assert list(explain_heads.explain(numerals, ["ov"], HEADS, tasks, SETTINGS)) == ["ov"]
    few = replace(numerals, left_out=7)
    page = explain_heads.explain(few, ["patterns"], HEADS, tasks, SETTINGS)["patterns"]
    n = len(numerals.frame)
    assert page["notes"] == {"prompts": f"the {n} of {n + 7} prompts that have the most common layout"}


def test_examples_are_the_patterns_up_to_each_position(random_model, numerals):
    found = explain_heads.examples(numerals, HEADS, at_most=3)
    few = layouts.spread(numerals.frame, 3)
    assert [x["prompt"] for x in found] == few.prompt.tolist() and len(found) == 3
    _, cache = random_model.bridge.run_with_cache(tokens_of(few))
    for i, example in enumerate(found):
        assert "".join(example["tokens"]) == few.text.iloc[i]
        for head in HEADS:
            rows = example["patterns"][str(head)]
            pattern = cache[f"blocks.{head.layer}.attn.hook_pattern"][i, head.head]
            assert [len(row) for row in rows] == list(range(1, numerals.layout.tokens + 1))
            assert all(
                np.abs(np.array(row) - pattern[q, : q + 1].numpy()).max() < 6e-4 for q, row in enumerate(rows)
            ), "three decimals"


def test_what_cannot_be_made_is_left_out_and_said(random_model, numerals, tasks):
    alone = Tasks({"numerals": tasks.prompts["numerals"]}, tasks.layouts, tasks.members)
    made, notes = explain_heads.variants(numerals, alone, ["river", "1"], seed=0)
    assert list(made) == ["in order", "shuffled"]
    assert notes["interleaved"].startswith("not made: no other task")
    assert notes["words"] == "not made: 1 of `random_words` are one token and no member"

    bare = Layout(numerals.layout.tokens, (), numerals.layout.answer_position)
    unknown = explained(random_model, numerals.frame, bare)
    tables = explain_heads.explain(unknown, ["attention", "ov", "patterns"], HEADS, tasks, SETTINGS)
    assert tables["patterns"]["notes"] == {
        "variants": "the places of two members or more are not known",
        "ov": "not scored: the places of members are not known",
    }
    assert set(tables["attention"].variant) == {"in order"} and set(tables["attention"].query_role) == {"last"}
    assert tables["attention_members"].empty
    assert list(tables["ov"]) == ov.COLUMNS and tables["ov"].empty


def test_targets_of_other_tasks_stand_at_the_same_place_of_their_order(tasks):
    """March for 3; a task whose members have no order in the configuration has its own targets alone."""
    found, tokenizer = explain_heads.ov_targets("numerals", tasks), load_tokenizer("shipped")
    assert set(found) == {"copy", "next", "previous", "next_next", "cross:months"}
    words = {tokenizer.decode([a]).strip(): tokenizer.decode([b]).strip() for a, b in found["cross:months"].of.items()}
    assert words["3"] == "March" and words["12"] == "December" and "13" not in words
    file = Tasks(tasks.prompts, tasks.layouts, {"months": tasks.members["months"]})
    assert "cross:months" not in explain_heads.ov_targets("numerals", file)
    twins = Tasks(
        tasks.prompts | {"months again": tasks.prompts["months"]},
        tasks.layouts | {"months again": tasks.layouts["months"]},
        tasks.members | {"months again": tasks.members["months"]},
    )
    assert set(explain_heads.ov_targets("numerals", twins)) == set(found), "tasks of the same members count once"


# ---- tasks ---------------------------------------------------------------------------------------------------
def test_every_analysis_of_a_task(random_model, numerals):
    wanted = ["patching", "attribution", "lens", "lens_tokens", "lens_lead", "lens_increments"]
    tables = explain_task.explain(numerals, wanted, explain_task.Settings(2, 3, allow_negative_clean=True))
    assert list(tables) == wanted
    for name, columns in (
        ("patching", [*patching.COLUMNS, "corruption"]),
        ("attribution", attribution.COLUMNS),
        ("lens", lens.COLUMNS),
        ("lens_tokens", lens.TOKEN_COLUMNS),
        ("lens_lead", lens.LEAD_COLUMNS),
        ("lens_increments", lens.INCREMENT_COLUMNS),
    ):
        assert list(tables[name]) == columns and len(tables[name])
    by_position = tables["patching"].query("position >= 0").groupby("position").role.agg(set)
    assert [{name} for name in numerals.layout.names] == by_position.tolist()
    assert set(tables["patching"].query("position < 0").role) == {"all"}
    logits = random_model.run(numerals.prompts.tokens)
    rows = torch.arange(len(numerals.prompts))
    difference = logits[rows, numerals.prompts.answer] - logits[rows, numerals.prompts.incorrect]
    whole = tables["attribution"].query("part == 'head'").value.sum()
    assert whole == pytest.approx(float(difference.mean()), abs=1e-4)
    assert tables["lens"].query("lens == 'norm'").value.iloc[-1] == pytest.approx(float(difference.mean()), abs=1e-4)
    assert set(tables["lens_tokens"].place) == {1, 2, 3}
    assert tables["lens_lead"].prompt.tolist() == numerals.frame.prompt.tolist()
    assert list(explain_task.explain(numerals, ["attribution"], explain_task.Settings(None, 3))) == ["attribution"]


def test_a_task_without_an_effect_is_refused_by_its_name(random_model, numerals):
    same = numerals.frame.assign(corrupted_tokens=numerals.frame.tokens)
    nothing = explained(random_model, same, numerals.layout)
    with pytest.raises(StudyError, match=r"^tasks\.numerals: .* has nothing to restore"):
        explain_task.explain(nothing, ["patching"], explain_task.Settings(2, 3))


def test_patching_sets_prompts_beside_a_sequence_that_continues_as_well(random_model, numerals, config):
    """`auto`: the same clean tokens, and where members stood others in order; their own where that cannot be."""
    block = task_block(config, "numerals") | {"per_template": 16}
    given = explain_task.Settings(4, 3, patching_corruption="auto", task=block)
    frame, name = explain_task.patched_prompts(numerals, given)
    assert name == "shifted" and len(frame) == 4
    for row in frame.itertuples():
        at = list(numerals.layout.member_positions)
        shown, other = (
            [int(numerals.tokenizer.decode(ids[p])) for p in at] for ids in (row.tokens, row.corrupted_tokens)
        )
        assert shown == list(map(int, row.members)) and other == list(range(other[0], other[0] + 4)) != shown
        apart = np.flatnonzero(np.asarray(row.tokens) != np.asarray(row.corrupted_tokens))
        assert apart.tolist() == at, "all but the members stays"
    kept, name = explain_task.patched_prompts(numerals, replace(given, patching_corruption="own"))
    assert name == "random_members" and kept.equals(layouts.spread(numerals.frame, 4))
    few = replace(given, task=block | {"members": block["members"] | {"range": [1, 5]}})
    kept, name = explain_task.patched_prompts(numerals, few)
    assert name == "random_members" and kept.equals(layouts.spread(numerals.frame, 4))
    with pytest.raises(StudyError, match=r"heads\.patching_corruption: shifted: .*auto or own will do"):
        explain_task.patched_prompts(numerals, replace(few, patching_corruption="shifted"))
    assert explain_task.patched_prompts(numerals, explain_task.Settings(4, 3))[1] == "own", "without a block"


# ---- prompts -------------------------------------------------------------------------------------------------
def test_heads_are_explained_on_the_reported_prompts_of_the_most_common_layout(random_model, numerals, tmp_path):
    """Held-out prompts that passed the filter; means are named only where a rule has them."""
    from atlas.circuit.task_data import TaskData

    n = len(numerals.frame)
    frame = numerals.frame.assign(split=["search", "held_out"] * (n // 2), layout=[0] * (n - 4) + [1] * 4)
    kept = [i % 8 > 1 for i in range(n)]
    paths = {"prompts": tmp_path / "prompts.parquet", "clean": tmp_path / "clean.parquet", "means": tmp_path / "m.pt"}
    artifacts.write_table(frame.assign(task="numerals"), paths["prompts"], {})
    artifacts.write_table(pd.DataFrame({"prompt": frame.prompt, "kept": kept}), paths["clean"], {})
    tensors.write({"groups": ["all", "all, layout 1"]}, paths["means"], {})
    for given, groups in ((paths, ["all", "all, layout 1"]), ({k: paths[k] for k in ("prompts", "clean")}, None)):
        data = TaskData(given, {"model": "random", "task": "numerals"}, random_model.folder, {})
        data.__dict__["model"] = random_model
        found = Explained.of(data, numerals.layout, numerals.bootstrap)
        wanted = [p for i, p in enumerate(frame.prompt) if i % 2 and kept[i]]
        assert found.frame.prompt.tolist() == sorted(set(wanted) - set(frame.prompt.iloc[-4:]))
        assert found.left_out == len(wanted) - len(found.frame) == 2 and found.groups == groups
        assert len(found.prompts) == len(found.frame) and found.task == "numerals"
