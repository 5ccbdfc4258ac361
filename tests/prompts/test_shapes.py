"""Sequences of other shapes: clauses of their own, steps in turns, something between members, several lengths."""

import copy
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generators import SCHEMA

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.prompts.between import Between
from atlas.prompts.corruptions import CORRUPTIONS
from atlas.prompts.making import prompts_of
from atlas.prompts.tasks import Task, Template, make_prompts
from atlas.study import lengths
from atlas.study.settings import generation_prompt_sets
from atlas.study.validation import validated
from conftest import ROOT, load_tokenizer

MEMBERS = tuple(f"w{i}" for i in range(18))
MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
PENCILS = "He had {m} pencils. Then he had {m} pencils. Afterwards he had {m} pencils."


# ---- clauses of their own --------------------------------------------------------------------------------------
def test_a_template_may_hold_all_clauses():
    text = Template.parse(PENCILS).render(["two", "three"], [])
    assert text.text == "He had two pencils. Then he had three pencils. Afterwards he had" and text.join == " "
    assert [text.text[a:b] for a, b in text.spans] == ["two", "three"]
    own = Template.parse("{name} has {m}. Now {name} has {m}. Then {m}").render(["a", "b"], ["Ada", "Ben", "Dan"])
    assert own.text == "Ada has a. Now Ben has b. Then"


def test_all_clauses_written_out_give_the_same_prompts_as_one_repeated():
    """The naive way to write a template that repeats."""
    one = "{object} found in {m}."
    made = []
    for template in (one, " ".join([one] * 4)):
        fillers = {"object": ("Hat", "Key", "Map", "Cup", "Box")}
        task = Task("t", MEMBERS, templates=(template,), shown=3, per_template=30, fillers=fillers)
        task.check()
        made.append([{k: v for k, v in row.items() if k != "template"} for row in make_prompts(task)])
    assert made[0] == made[1]


@pytest.mark.parametrize("tokenizer", ["gpt2", "pythia"])
def test_roles_of_positions_are_those_of_the_members_in_their_clauses(config, tokenizer):
    block = config["prompts"] | {
        "members": {"range": [1, 20]},
        "templates": [PENCILS],
        "shown": 2,
        "hold_out": "sequences",
    }
    tokens = load_tokenizer(tokenizer)
    encoded, _ = prompts_of("t", block, tokens, False, None, None)
    layout, row = Layout.of(encoded.layout), encoded.rows[0]
    assert [tokens.decode([row["tokens"][p]]).strip() for p in layout.places] == list(row["members"])
    slots = dict(zip(tokens.convert_ids_to_tokens(row["tokens"]), map(str, layout.slots), strict=True))
    after = 1 + len(
        tokens(" pencils.")["input_ids"]
    )  # " Then" stands behind the first clause, before the lead " he had"
    assert slots["ĠThen"] == f"clause 1 +{after}" and slots["ĠAfterwards"] == f"clause 2 +{after}"
    assert slots["Ġhe"] == "clause 3 -2"


@pytest.mark.parametrize(
    ("templates", "said"),
    [
        (["{m} and {m}"], "tasks.t.templates: '{m} and {m}' has 2 {m}, and a prompt 3 clauses"),
        (["{name} {m} {object} {m} {m}"], "needs exactly one {m} and at most one filler"),
        (["{name} {name} {name} {name} {m} {m} {m}"], "needs exactly one {m} and at most one filler"),
    ],
)
def test_clauses_that_are_too_few_or_too_full_are_refused(templates, said):
    with pytest.raises(StudyError) as error:
        Task("t", MEMBERS, templates=tuple(templates), shown=2, fillers={"name": MEMBERS}).check()
    assert said in str(error.value)


# ---- steps in turns --------------------------------------------------------------------------------------------
@given(
    st.lists(st.integers(-3, 3).filter(bool), min_size=1, max_size=3),
    st.integers(2, 5),
    st.booleans(),
    st.sampled_from(sorted(set(CORRUPTIONS) - {"position", "random_words"})),
)
@settings(max_examples=60)
def test_members_follow_at_the_steps_in_turns(steps, shown, cyclic, corruption):
    task = Task(
        "t",
        MEMBERS,
        step=tuple(steps),
        shown=shown,
        cyclic=cyclic,
        corruption=corruption,
        per_template=20,
        held_out_share=0,
    )
    places = [sum(steps[k % len(steps)] for k in range(i)) for i in range(shown + 1)]
    fit = [i for i in range(18) if cyclic or all(0 <= i + place < 18 for place in places)]
    if len({place % 18 if cyclic else place for place in places}) <= shown:
        with pytest.raises(StudyError, match=r"tasks.t: (members come again|18 members are too few)"):
            task.check()
        return
    task.check()
    assert task.starts() == fit
    for row in make_prompts(task):
        index = [MEMBERS.index(member) for member in [*row["members"], row["answer"]]]
        assert index == [(row["start"] + place) % 18 for place in places]
        wrong = [MEMBERS.index(member) for member in row["corrupted_members"]]
        apart = {(wrong[-1] - wrong[-2] - step) % 18 if cyclic else wrong[-1] - wrong[-2] - step for step in steps}
        if corruption in ("random_members", "permute"):
            assert not (0 in apart and len(steps) <= shown) and wrong[-1] != index[-1]
        if corruption == "shifted":
            moved = {(b - a) % 18 if cyclic else b - a for a, b in zip(index, wrong, strict=False)}
            assert len(moved) == 1 and moved != {0}


def test_one_step_in_a_list_is_that_step():
    for step in (1, -2):
        one, listed = (
            Task("t", MEMBERS, step=s, shown=3, per_template=20, corruption="shifted") for s in (step, (step,))
        )
        assert make_prompts(one) == make_prompts(listed)


def test_a_prompt_set_takes_no_steps_in_turns_from_a_task(config):
    config = copy.deepcopy(config)
    config["tasks"]["numerals"]["step"] = [1, 2]
    config["generation"]["prompts"] = {"x": {"task": "numerals", "texts": [["{0}", " {1}"]]}}
    with pytest.raises(StudyError, match=r"generation.prompts.x.task: 'numerals' has several steps"):
        generation_prompt_sets(config)


# ---- something between the members -----------------------------------------------------------------------------
@given(st.integers(2, 5), st.integers(0, 9), st.sampled_from(["members", "words"]))
@settings(max_examples=20)
def test_two_sequences_alternate_or_one_stands_among_words(shown, seed, kind):
    between = Between.from_config("tasks.t", {kind: MONTHS})
    fillers = {"object": tuple(f"F{i}" for i in range(11))}
    task = Task("t", MEMBERS, templates=("{object} in {m}.",), fillers=fillers, shown=shown, between=between)
    task = Task(**vars(task) | {"filler_seed": seed, "per_template": 20})
    task.check()
    for row in make_prompts(task):
        for text, members in ((row["text"], row["members"]), (row["corrupted_text"], row["corrupted_members"])):
            words = [clause.split()[-1] for clause in text.split(". ")[:-1]]
            own, others = words[::2], words[1::2]
            assert own == members and others == row["fillers"][2 * shown + 1 :] and len(set(others)) == shown
            if kind == "members":
                assert all(MONTHS.index(b) == MONTHS.index(a) + 1 for a, b in pairwise(others))
        assert [row["text"][a:b] for a, b in row["spans"]] == row["members"]
        assert all(MEMBERS.index(b) == MEMBERS.index(a) + 1 for a, b in pairwise([*row["members"], row["answer"]]))
        assert row["incorrect"] == row["members"][-1]
    drawn = {tuple(row["fillers"][2 * shown + 1 :]) for row in make_prompts(task)}
    assert len(drawn) > 1, "not always the same ones"


def test_what_stands_between_is_no_member_and_no_role_of_its_own(config):
    block = config["prompts"] | {"members": {"range": [1, 20]}, "templates": ["{m}"], "hold_out": "sequences"}
    encoded, _ = prompts_of("t", block | {"between": {"members": MONTHS}}, load_tokenizer("gpt2"), False, None, None)
    layout = Layout.of(encoded.layout)
    assert layout.places == [0, 2, 4, 6] and layout.tokens == 8 and layout.roles["separators"] == [1, 3, 5]
    assert not encoded.rejected
    unknown = block | {"between": {"words": ["zebra", "yacht", "quartz", "plinth"]}}
    with pytest.raises(StudyError, match=r"tasks.t.between: 'zebra' \([0-9]+ tokens\).* not one token"):
        prompts_of("t", unknown, load_tokenizer("shipped"), False, None, None)


@pytest.mark.parametrize(
    ("between", "said"),
    [
        ({}, "tasks.t.between: give `members`, a second sequence, or `words`"),
        ({"members": MONTHS, "words": MONTHS}, "tasks.t.between: give `members`, a second sequence, or `words`"),
        ({"words": MONTHS, "step": 2}, "tasks.t.between.step: words have no order"),
        ({"words": [*MONTHS, "w3"]}, "tasks.t.between: 'w3' is also a member"),
        ({"words": ["a", "a", "b", "c", "d"]}, "tasks.t.between: 'a' occurs more than once"),
        ({"members": MONTHS, "step": 0}, "tasks.t.between.step: 0 repeats"),
        ({"members": MONTHS, "step": 3}, "tasks.t.between: 7 words are too few to show 4"),
        ({"words": MONTHS[:3]}, "tasks.t.between: 3 words are too few to show 4"),
        ({"members": MONTHS[:3], "cyclic": True}, "tasks.t.between: 3 words are too few to show 4"),
    ],
)
def test_what_cannot_stand_between_is_refused(between, said):
    with pytest.raises(StudyError) as error:
        Task("t", MEMBERS, between=Between.from_config("tasks.t", between)).check()
    assert str(error.value).startswith(said)


# ---- numbers shown ---------------------------------------------------------------------------------------------
def with_lengths(config, shown, task="numerals"):
    given = config | {"tasks": config["tasks"] | {task: config["tasks"][task] | {"shown": shown}}}
    return validated(given, SCHEMA, ROOT / "resources" / "published")


def test_a_list_of_numbers_shown_is_one_task_for_each(config):
    made = with_lengths(config, [3, 4, 6])
    names = ["numerals_of_3", "numerals_of_4", "numerals_of_6"]
    assert made["study"]["tasks"] == [*names, *config["study"]["tasks"][1:]]
    assert [made["tasks"][name] for name in names] == [config["tasks"]["numerals"] | {"shown": n} for n in (3, 4, 6)]
    assert made["study"]["transfer_tasks"] == config["study"]["transfer_tasks"]
    assert lengths.resolve(made) == made, "resolved once, it stays as it is"
    transfer = with_lengths(config, [3, 5], "days")
    assert transfer["study"]["transfer_tasks"][:2] == ["days_of_3", "days_of_5"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": {"shown": [3, 4]}}, "prompts.shown: [3, 4] is a list; give one number, and lists in tasks"),
        ({"tasks": {"numerals": {"shown": []}}}, "tasks.numerals.shown: [] has too few entries"),
        ({"tasks": {"numerals": {"shown": [3, 3]}}}, "tasks.numerals.shown: [3, 3] has an entry twice"),
        ({"tasks": {"numerals": {"shown": [3, 40]}}}, "tasks.numerals_of_40: 20 members are too few to show 40"),
        ({"tasks": {"numerals": {"shown": [1]}}}, "tasks.numerals.shown.0: 1 is out of range"),
        (
            {"tasks": {"numerals": {"shown": [3]}, "numerals_of_3": {"members": MONTHS}}},
            "tasks.numerals.shown: its tasks are named as 'numerals_of_3' is",
        ),
    ],
)
def test_lists_that_make_no_tasks_are_refused(config, changes, said):
    config = copy.deepcopy(config)
    for part, blocks in changes.items():
        for name, block in blocks.items():
            config[part][name] = config[part].get(name, {}) | block if isinstance(block, dict) else block
    with pytest.raises(StudyError) as error:
        validated(config, SCHEMA, ROOT / "resources" / "published")
    assert str(error.value).startswith(said)
