"""Prompts: what every task, corruption and template must guarantee."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.core.errors import StudyError
from atlas.prompts.corruptions import CORRUPTIONS
from atlas.prompts.tasks import Task, Template, make_prompts

WORDS = [f"{a}{b}" for a in "bdfgklmn" for b in ("ar", "el", "ip", "on", "ub")]
FILLERS = {"object": tuple(w.capitalize() for w in WORDS[:20]), "name": tuple(w.capitalize() for w in WORDS[20:])}
TEMPLATES = ("{object} found in {m}.", "{name} met {m}.", "{m}")


@st.composite
def task_settings(draw):
    shown = draw(st.integers(2, 5))
    cyclic = draw(st.booleans())
    step = draw(st.sampled_from([1, -1, 2, 3]))
    count = draw(st.integers(abs(step) * shown + 3, 24))
    if cyclic and count % abs(step) == 0:
        count += 1
    return Task(
        name="t",
        members=tuple(f"w{i}" for i in range(count)),
        step=step,
        cyclic=cyclic,
        templates=TEMPLATES[: draw(st.integers(1, 3))],
        fillers=FILLERS,
        random_words=("river", "cloud", "stone"),
        shown=shown,
        per_template=draw(st.integers(2 * count, 3 * count)),
        held_out_share=draw(st.sampled_from([0.25, 0.5])),
        seed=draw(st.integers(0, 3)),
        filler_seed=draw(st.integers(0, 3)),
    )


@given(task_settings(), st.sampled_from(sorted(CORRUPTIONS)))
@settings(max_examples=60)
def test_every_prompt_keeps_the_promises_of_its_task(task, corruption):
    position = task.shown - 1 if corruption == "position" else None
    task = Task(**{**vars(task), "corruption": corruption, "position": position})
    prompts = make_prompts(task)

    starts = Counter(p["start"] for p in prompts)
    assert set(starts) == set(task.starts()) and len(set(starts.values())) == 1, "first members are balanced"
    assert len(prompts) == task.rows() * len(task.templates) and task.rows() >= task.per_template
    for p in prompts:
        shown, wrong = p["members"], p["corrupted_members"]
        assert all(task.follows(a, b) for a, b in zip([*shown], [*shown[1:], p["answer"]], strict=True))
        assert p["incorrect"] == shown[-1] != p["answer"]
        assert len(wrong) == len(shown) and wrong != shown
        assert [p["text"][a:b] for a, b in p["spans"]] == shown
        assert [p["corrupted_text"][a:b] for a, b in p["corrupted_spans"]] == wrong
        assert len(set(p["fillers"])) == len(p["fillers"]) and not set(p["fillers"]) & set(task.members)
        assert p["answer_in_corrupted"] == (p["answer"] in wrong)
        assert p["text"] == p["text"].strip()
        if corruption == "random_members":
            assert all(a != b for a, b in zip(shown, wrong, strict=True))
            assert not task.follows(wrong[-2], wrong[-1]) and wrong[-1] != p["answer"]
            assert set(wrong) <= set(task.members)
        if corruption == "shifted":
            assert all(task.follows(a, b) for a, b in pairwise(wrong))
            assert all(a != b for a, b in zip(shown, wrong, strict=True)) and wrong[-1] != p["answer"]
        if corruption == "permute":
            assert sorted(wrong) == sorted(shown)
        if corruption == "random_words":
            assert not set(wrong) & set(task.members)
        if corruption == "position":
            assert [i for i in range(task.shown) if wrong[i] != shown[i]] == [position]


@pytest.mark.parametrize(
    ("corruption", "expected"),
    [
        ("repeat_last", ["w0", "w1", "w2", "w2"]),
        ("repeat_first_all", ["w0"] * 4),
        ("switch_last_two", ["w0", "w1", "w3", "w2"]),
    ],
)
def test_fixed_corruptions(corruption, expected):
    task = Task("t", tuple(f"w{i}" for i in range(9)), corruption=corruption, per_template=10)
    assert make_prompts(task)[0]["corrupted_members"] == expected


def test_the_clean_text_is_rendered_clause_by_clause():
    text = Template.parse("{object} found in {m}.").render(["one", "two"], ["Hat", "Key", "Map"])
    assert text.text == "Hat found in one. Key found in two. Map found in"
    assert [text.text[a:b] for a, b in text.spans] == ["one", "two"]


def test_members_inside_other_words_stay_as_they_are():
    """Published defect: chained str.replace also changed members that were part of fillers or other members."""
    task = Task("t", ("on", "one", "ones", "stone", "a", "an"), shown=2, templates=("Stone gone {m}.",), per_template=8)
    for p in make_prompts(task):
        assert p["text"].startswith("Stone gone ") and [p["text"][a:b] for a, b in p["spans"]] == p["members"]


@given(st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=10)
def test_tasks_share_fillers_prompt_by_prompt(seed_a, seed_b):
    common = {"templates": TEMPLATES[:2], "fillers": FILLERS, "filler_seed": 7}
    a = Task("a", tuple(f"w{i}" for i in range(12)), per_template=24, seed=seed_a, **common)
    b = Task("b", tuple(f"v{i}" for i in range(7)), per_template=24, cyclic=True, seed=seed_b, **common)
    by_prompt = {p["prompt"]: p for p in make_prompts(a)}
    compared = [p for p in make_prompts(b) if p["prompt"] in by_prompt]
    assert len(compared) == 48
    for p in compared:
        assert p["fillers"] == by_prompt[p["prompt"]]["fillers"]
        assert p["template"] == by_prompt[p["prompt"]]["template"]


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others():
    task = Task("t", tuple(f"w{i}" for i in range(12)), per_template=24)
    other = Task(**{**vars(task), "seed": 1})
    assert make_prompts(task) == make_prompts(task)
    clean = [p["text"] for p in make_prompts(task)]
    assert clean == [p["text"] for p in make_prompts(other)]
    assert [p["corrupted_text"] for p in make_prompts(task)] != [p["corrupted_text"] for p in make_prompts(other)]


def test_forbid_answer():
    task = Task("t", tuple(f"w{i}" for i in range(7)), per_template=60, forbid_answer=True)
    assert not any(p["answer_in_corrupted"] for p in make_prompts(task))
    allowed = Task(**{**vars(task), "forbid_answer": False})
    assert any(p["answer_in_corrupted"] for p in make_prompts(allowed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"members": ("a", "b", "a", "c", "d", "e")}, "tasks.t.members: 'a' occurs more than once"),
        ({"members": ("a", "b", "c")}, "too few"),
        ({"step": 0}, "step"),
        ({"templates": ("{name} was here.",)}, "exactly one {m}"),
        ({"templates": ("{colour} in {m}",)}, "no fillers of kind 'colour'"),
        ({"fillers": {"name": ("w1", "B", "C", "D", "E")}, "templates": ("{name} {m}",)}, "'w1' is a member of task t"),
        ({"fillers": {"name": ("B", "C")}, "templates": ("{name} {m}",)}, "needs 5 different ones"),
        ({"per_template": 1, "hold_out": "prompts"}, "too few to hold out"),
        ({"hold_out": "prompts"}, "tasks.t.hold_out: prompts of templates without fillers .* set hold_out: sequences"),
        ({"hold_out": "templates"}, "tasks.t.hold_out: templates needs 2 templates or more"),
        ({"hold_out": "sequences", "shown": 11}, "tasks.t.hold_out: sequences needs 2 first members or more"),
        ({"corruption": "position", "position": 4}, "not one of the slots"),
    ],
)
def test_impossible_tasks_are_refused_by_name(changes, said):
    task = Task(**{**vars(Task("t", tuple(f"w{i}" for i in range(12)), per_template=24)), **changes})
    with pytest.raises(StudyError, match=said.replace("{", r"\{")):
        task.check()


def test_a_sequence_that_no_other_start_continues_cannot_be_shifted():
    """a b c -> d alone: b c d ends with the answer."""
    task = Task("t", ("a", "b", "c", "d"), shown=3, corruption="shifted", per_template=1)
    with pytest.raises(StudyError, match="found no `shifted` corruption of 'a b c'"):
        make_prompts(task)


def test_a_corruption_that_cannot_be_made_is_refused():
    task = Task("t", ("a", "b", "c", "d", "e"), corruption="random_words", random_words=("a", "b"))
    with pytest.raises(StudyError, match=r"tasks.t.random_words: no word that is not a member"):
        make_prompts(task)
    nowhere = Task("t", ("a", "b"), shown=1, corruption="random_members", cyclic=True, per_template=2)
    with pytest.raises(StudyError, match="shown"):
        nowhere.check()
