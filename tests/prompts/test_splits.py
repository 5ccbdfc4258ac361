"""What is held out: no text on both sides, every stratum on both, whole sequences or wordings where a task says so."""

import runpy
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.iocontainers import InputFiles, OutputFiles, Params, Wildcards

from atlas.core.errors import StudyError
from atlas.model import source
from atlas.prompts import splits
from atlas.prompts.clean_scores import report_split
from atlas.prompts.making import prompts_of
from atlas.prompts.tasks import Task, make_prompts
from atlas.store import artifacts, job
from atlas.study.checks import check as check_settings
from atlas.study.settings import task_block
from conftest import ROOT, SHIPPED, load_tokenizer

SHARES = st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.9])


def rows_of_file(texts, strata=None, answers=None, templates=None, members=None):
    """Rows as they come from a file, with a token for each text."""
    known = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    rows = [
        {
            "text": text,
            "tokens": [known[text]],
            "template": templates[i] if templates else "file",
            "start": -1,
            "members": members[i] if members else [],
            "answer": answers[i] if answers else "x",
        }
        for i, text in enumerate(texts)
    ]
    for row, stratum in zip(rows, strata or [], strict=False):
        row["stratum"] = stratum
    return rows


def held_out(rows, key):
    return {key(row) for row in rows if row["split"] == "held_out"}


def searched(rows, key):
    return {key(row) for row in rows if row["split"] == "search"}


def sides(rows, key):
    """Value -> on which sides it is."""
    found: dict = {}
    for row in rows:
        found.setdefault(key(row), set()).add(row["split"])
    return found


BOTH = {"search", "held_out"}


# ---- files ---------------------------------------------------------------------------------------------------
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=2, max_size=60),
    SHARES,
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200)
def test_no_text_is_on_both_sides_and_every_stratum_is(drawn, share, seed, shuffler):
    """A text stands in one stratum here; strata of one text are searched on, others have their share to the unit."""
    texts, strata = [f"{s}: {t}" for t, s in drawn], [f"s{s}" for _, s in drawn]
    rows, of = rows_of_file(texts, strata), {}
    for text, stratum in zip(texts, strata, strict=True):
        of.setdefault(stratum, set()).add(text)
    if all(len(found) < 2 for found in of.values()):
        with pytest.raises(StudyError, match=r"tasks.t.held_out_share: nothing can be held out, since the"):
            splits.split("t", rows, "auto", share, seed)
        return
    splits.split("t", rows, "auto", share, seed)
    assert not held_out(rows, lambda r: r["text"]) & searched(rows, lambda r: r["text"])
    for stratum, found in of.items():
        assert sides(rows, lambda r: r["stratum"])[stratum] == (BOTH if len(found) > 1 else {"search"})
    counts = splits.counts(rows)
    assert counts["duplicates"] == len(texts) - len(set(texts)) and counts["known_sequences"] is None
    assert counts["search"] + counts["held_out"] == counts["prompts"] == len(rows)
    assert len(splits.undivided(rows, "prompts")) == sum(len(found) == 1 for found in of.values())

    shuffled = [dict(row) for row in rows]
    shuffler.shuffle(shuffled)
    splits.split("t", shuffled, "auto", share, seed)
    assert dict(sides(rows, lambda r: r["text"])) == dict(sides(shuffled, lambda r: r["text"])), "order does not matter"


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=2, max_size=40), SHARES, st.integers(0, 5))
@settings(max_examples=200)
def test_strata_that_are_tied_together_are_all_searched_on(drawn, share, seed):
    """A text here has several wordings and strata: not all can be divided, but search has every one of them."""
    texts, strata, templates = (
        [f"{x}{v}" for v in column] for x, column in zip("abc", zip(*drawn, strict=True), strict=True)
    )
    rows = rows_of_file(texts, strata, templates=templates)
    try:
        splits.split("t", rows, "prompts", share, seed)
    except StudyError:
        assert not splits.deal(splits.described(rows, "prompts", share), share, seed)
        return
    assert not held_out(rows, lambda r: r["text"]) & searched(rows, lambda r: r["text"])
    for key in ("stratum", "template"):
        assert searched(rows, lambda r, key=key: r[key]) == {row[key] for row in rows}


@given(st.integers(2, 200), SHARES)
@settings(max_examples=100)
def test_the_share_is_kept_to_the_prompt(n, share):
    rows = rows_of_file([f"text {i}" for i in range(n)])
    splits.split("t", rows, "auto", share, 0)
    assert splits.counts(rows)["held_out"] == max(1, min(int(n * share + 1e-9), n - 1))


@given(st.integers(0, 30))
@settings(max_examples=30)
def test_answers_that_alternate_are_on_both_sides(seed):
    """Every second row would hold out one of the two answers; of few answers each has its share, here to one prompt."""
    answers = ["is", "are"] * 10
    rows = rows_of_file([f"text {i}" for i in range(20)], answers=answers)
    splits.split("t", rows, "auto", 0.5, seed)
    found = Counter(row["answer"] for row in rows if row["split"] == "held_out")
    assert found.total() == 10 and abs(found["is"] - found["are"]) <= 2
    first = [row["split"] for row in rows]
    splits.split("t", rows, "auto", 0.5, seed + 1)
    assert first != [row["split"] for row in rows], "another seed, another split"


def test_one_row_repeated_holds_nothing_out_and_says_so():
    with pytest.raises(StudyError) as refused:
        splits.split("t", rows_of_file(["same"] * 8), "auto", 0.5, 0, rejected=3)
    assert str(refused.value) == (
        "tasks.t.held_out_share: nothing can be held out, since 8 of 11 prompts are left, all of one text; "
        "give more different prompts, or set held_out_share: 0"
    )
    with pytest.raises(StudyError, match="since there are 8 prompts, all of one text; give more"):
        splits.split("t", rows_of_file(["same"] * 8), "auto", 0.5, 0)
    rows = rows_of_file(["same"] * 8)
    splits.split("t", rows, "auto", 0, 0)
    assert searched(rows, lambda r: r["text"]) == {"same"} and splits.counts(rows)["duplicates"] == 7


def test_a_single_prompt_is_searched_on_unless_others_were_rejected():
    rows = rows_of_file(["one"])
    splits.split("t", rows, "auto", 0.5, 0)
    assert rows[0]["split"] == "search" and splits.chosen_for(rows, "auto", 0.5) is None
    with pytest.raises(StudyError, match="since 1 of 3 prompts are left, all of one text; give more"):
        splits.split("t", rows, "auto", 0.5, 0, rejected=2)


def test_texts_of_the_same_tokens_stay_together():
    rows = rows_of_file(["a  b", "a b", "c", "d"])
    rows[0]["tokens"] = rows[1]["tokens"] = [5, 6]
    for seed in range(20):
        splits.split("t", rows, "auto", 0.5, seed)
        assert rows[0]["split"] == rows[1]["split"]
    assert splits.counts(rows)["duplicates"] == 1


def test_every_layout_and_the_longest_answer_are_searched_on():
    """A mean at a position runs over searched prompts: some of them must have that layout, and an answer as long."""
    rows = rows_of_file([f"text {i}" for i in range(12)])
    for i, row in enumerate(rows):
        row |= {"answer_tokens": [1] * (3 if i == 5 else 1 + i % 2), "incorrect_tokens": [2], "layout": i // 5}
    for seed in range(20):
        splits.split("t", rows, "prompts", 0.5, seed)
        assert searched(rows, lambda r: len(r["answer_tokens"])) == {1, 2, 3}
        assert searched(rows, lambda r: r["layout"]) == {0, 1, 2}


@pytest.mark.parametrize(("hold_out", "key"), [("sequences", "members"), ("templates", "template")])
def test_files_hold_out_whole_sequences_and_templates(hold_out, key):
    n = 40
    members = [[f"m{i % 8}", f"m{i % 8 + 1}"] for i in range(n)]
    templates = [f"wording {i % 5}" for i in range(n)]
    rows = rows_of_file([f"text {i}" for i in range(n)], members=members, templates=templates)
    splits.split("t", rows, hold_out, 0.5, 1)
    assert all(len(found) == 1 for found in sides(rows, lambda r: str(r[key])).values())
    assert 0 < splits.counts(rows)["held_out"] < n
    if hold_out == "sequences":
        assert splits.counts(rows)["known_sequences"] == 0
        assert set(map(frozenset, sides(rows, lambda r: r["template"]).values())) == {frozenset(BOTH)}
    else:
        assert splits.counts(rows)["known_sequences"] == splits.counts(rows)["held_out"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20, min_size=1))
@settings(max_examples=100)
def test_components_equal_a_closure(keys):
    """Oracle: powers of the matrix of rows that share a key."""
    near = np.array([[a[0] == b[0] or a[1] == b[1] for b in keys] for a in keys])
    reach = np.linalg.matrix_power(near.astype(float), len(keys)) > 0
    expected = sorted({tuple(np.flatnonzero(row)) for row in reach})
    assert sorted(map(tuple, splits.components(*map(list, zip(*keys, strict=True))))) == expected


# ---- tasks of members ----------------------------------------------------------------------------------------
WORDS = tuple(f"f{i}" for i in range(30))


def task_rows(members=20, hold_out="auto", share=0.5, seed=0, per_template=48, **more):
    templates = ("{object} found in {m}.", "{object} packed in {m}.")
    task = Task("t", tuple(f"w{i}" for i in range(members)), templates=templates, fillers={"object": WORDS})
    task = Task(**vars(task) | {"per_template": per_template, "seed": seed, "hold_out": hold_out} | more)
    task.check()
    rows = [row | {"tokens": [hash(row["text"])]} for row in make_prompts(task)]
    splits.split("t", rows, hold_out, share, seed)
    return rows


@given(st.integers(5, 24), st.sampled_from(["auto", "prompts", "sequences", "templates"]), SHARES, st.integers(0, 5))
@settings(max_examples=60)
def test_held_out_prompts_of_members(members, hold_out, share, seed):
    starts = members - 4
    if starts < 2 and hold_out == "sequences":
        return
    rows = task_rows(members, hold_out, share, seed)
    what = splits.chosen_for(rows, hold_out, share)
    enough = starts >= 8 and min(int(starts * share + 1e-9), starts - int(starts * share + 1e-9)) >= 3
    assert what == (("sequences" if enough else "prompts") if hold_out == "auto" else hold_out)
    start, template = sides(rows, lambda r: r["start"]), sides(rows, lambda r: r["template"])
    counts = splits.counts(rows)
    if what == "templates":
        assert all(len(found) == 1 for found in template.values())
    else:
        assert all(found == BOTH for found in template.values())
        each = Counter((row["template"], row["start"]) for row in rows if row["split"] == "search")
        assert len(set(each.values())) == 1, "balanced"
        of_one = len(rows) // len(template) // starts
        expected = max(1, int(starts * share + 1e-9)) * of_one
        if what == "prompts":
            expected = starts * splits.held_out_count(of_one, share)
        assert counts["held_out"] == len(template) * expected
    if what == "sequences":
        assert all(len(found) == 1 for found in start.values()) and counts["known_sequences"] == 0
        rare = "held_out" if 2 * counts["held_out"] <= len(rows) else "search"
        own = sorted(s for s, found in start.items() if found == {rare})
        gaps = np.diff([-1, *own, starts])
        assert gaps.max() <= 2 * -(-starts // len(own)), "spread along the members"
    else:
        assert counts["known_sequences"] == counts["held_out"]


def test_tasks_with_as_many_first_members_hold_out_the_same_ones():
    numbers = held_out(task_rows(20), lambda r: r["start"])
    back = task_rows(20, step=-1)
    assert {s - 4 for s in held_out(back, lambda r: r["start"])} == numbers
    assert numbers != held_out(task_rows(20, seed=1), lambda r: r["start"])


def test_rejected_prompts_do_not_empty_a_side():
    rows = task_rows(20, hold_out="prompts", per_template=96)
    left = [row for row in rows if row["split"] == "held_out"]  # as if all the others had been rejected
    splits.split("t", left, "prompts", 0.5, 0)
    each = Counter((row["start"], row["split"]) for row in left if row["template"] == left[0]["template"])
    assert set(each.values()) <= {1, 2} and splits.counts(left)["search"] >= splits.counts(left)["held_out"] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_default_tasks_hold_out_sequences(config, seed):
    """Sixteen or twelve first members are enough, the seven days are not."""
    for task in config["study"]["tasks"] + ["days"]:
        block = task_block(config, task) | {"seed": seed, "per_template": 32}
        encoded, _ = prompts_of(task, block, load_tokenizer("shipped"), False, None, None)
        what = splits.chosen_for(encoded.rows, "auto", 0.5)
        counts = splits.counts(encoded.rows)
        assert what == ("prompts" if task == "days" else "sequences")
        assert counts["known_sequences"] == (counts["held_out"] if task == "days" else 0)
        assert counts["duplicates"] == 0 and not splits.undivided(encoded.rows, what)
        again, _ = prompts_of(task, block, load_tokenizer("shipped"), False, None, None)
        assert again.rows == encoded.rows


# ---- refusals ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("block", "ablation", "said"),
    [
        (
            {"file": {"clean": "p.csv"}, "hold_out": "sequences"},
            {},
            "tasks.t.hold_out: sequences of a file needs tasks.t.file.columns.members; name it, or set prompts",
        ),
        (
            {"file": {"clean": "p.csv", "columns": {"members": ["a"]}}, "hold_out": "templates"},
            {},
            "tasks.t.hold_out: templates of a file needs tasks.t.file.columns.template; name it, or set prompts",
        ),
        (
            {"members": list("abcdefgh"), "hold_out": "templates"},
            {"groups": "template"},
            "tasks.t.hold_out: templates leaves no mean for those held out under ablation.groups: template",
        ),
    ],
)
def test_what_cannot_be_held_out_is_refused_before_any_job(config, block, ablation, said):
    changed = config | {"tasks": config["tasks"] | {"t": block}, "ablation": config["ablation"] | ablation}
    changed["study"] = config["study"] | {"transfer_tasks": ["t"]}
    with pytest.raises(StudyError) as refused:
        check_settings(changed)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)
    changed["tasks"]["t"] = block | {"held_out_share": 0}
    check_settings(changed)


def tables(kept):
    """Tables of prompts and of clean scores with two prompts on either side; ``kept``: which passed the filter."""
    split = ["search", "search", "held_out", "held_out"]
    prompts = pd.DataFrame({"task": "t", "prompt": range(4), "split": split})
    clean = pd.concat([pd.DataFrame({"prompt": range(4), "kept": kept, "run": run}) for run in ("clean", "corrupted")])
    return prompts, clean


def test_the_reported_split_is_one_that_the_filter_left():
    assert report_split(*tables([True, False, True, False])) == "held_out"
    said = "tasks.t: the filter keeps none of the 2 held-out prompts; relax prompts.filter, or give more prompts"
    with pytest.raises(StudyError, match=said):
        report_split(*tables([True, True, False, False]))


def run_script(name, folder, params, monkeypatch):
    """A script as its rule runs it, in the folder of one task."""
    monkeypatch.setattr(job, "start", lambda snakemake: None)
    monkeypatch.setattr(job, "model_folder", lambda snakemake: SHIPPED)
    monkeypatch.setattr(job, "task_block", lambda snakemake: params["task"])
    monkeypatch.setattr(job, "provenance", lambda *_: artifacts.provenance({}))
    task = folder / "t"
    out = {
        "make_prompts": {"summary": "prompts.json"} | dict.fromkeys(("prompts", "tokens", "rejected")),
        "score_clean": {"summary": "clean_summary.parquet", "clean": None},
        "cache_activations": {"activations": "activations.pt", "means": "means.pt"},
    }[name]
    read = {key: task / f"{key}.parquet" for key in ("prompts", "clean")}
    made = SimpleNamespace(
        input=InputFiles(fromdict={"model": folder / "model.json", **read}),
        output=OutputFiles(fromdict={key: task / (file or f"{key}.parquet") for key, file in out.items()}),
        params=Params(fromdict=params),
        wildcards=Wildcards(fromdict={"model": "m", "task": "t"}),
    )
    runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), init_globals={"snakemake": made})


def test_a_filter_that_empties_the_held_out_side_ends_in_the_job_that_filters(tmp_path, config, monkeypatch):
    """The model answers all 12 prompts; on one side then answer and incorrect answer change places."""
    folder = tmp_path / "results" / "m"
    artifacts.write_json(source.describe("m", SHIPPED), folder / "model.json", artifacts.provenance({}))
    numbers = config["tasks"]["number_words"]["members"]
    fillers = ["Hat", "Key", "Map", "Box", "Cup"]
    texts = [
        " ".join(f"{f} found in {n}." for f, n in zip(fillers, numbers[i : i + 4], strict=False)) for i in range(12)
    ]
    frame = pd.DataFrame({"text": [f"{text} Cup found in" for text in texts]})
    frame["corrupted_text"] = frame.text.iloc[::-1].to_list()
    frame["answer"], frame["incorrect"] = numbers[4:16], numbers[3:15]
    frame.to_csv(tmp_path / "p.csv", index=False)
    block = config["prompts"] | {"file": {"clean": str(tmp_path / "p.csv")}}
    prompts = {"task": block, "prepend_bos": False}
    caching = {"run": {"device": "cpu", "dtype": "float32", "batch_size": 16, "memory_mb": 256}, "dtype": "float32"}
    caching |= {"groups": "all", "filter": {"probability_ratio": 1}, "allow_negative_clean": False}
    caching |= {"bootstrap": 10, "seed": 0, "fit": False}

    run_script("make_prompts", folder, prompts, monkeypatch)
    info = artifacts.read_json(folder / "t" / "prompts.json")
    assert info["hold_out"] == "prompts" and info["counts"]["held_out"] == info["counts"]["search"] == 6
    assert info["counts"]["duplicates"] == info["counts"]["undivided"] == 0
    for name in ("score_clean", "cache_activations"):
        run_script(name, folder, caching, monkeypatch)
    tables = (artifacts.read_table(folder / "t" / f"{name}.parquet") for name in ("prompts", "clean"))
    assert report_split(*tables) == "held_out"

    right = artifacts.read_table(folder / "t" / "prompts.parquet")
    for side, said in (("held_out", "6 held-out prompts"), ("search", "6 prompts to search on")):
        wrong, names = right.copy(), ["answer_token", "incorrect_token"]
        wrong.loc[right.split == side, names] = right.loc[right.split == side, names[::-1]].to_numpy()
        artifacts.write_table(wrong, folder / "t" / "prompts.parquet", artifacts.provenance({}))
        run_script("score_clean", folder, caching, monkeypatch)
        with pytest.raises(StudyError, match=f"tasks.t: the filter keeps none of the {said}; relax prompts.filter"):
            run_script("cache_activations", folder, caching, monkeypatch)
    unfiltered = caching | {"filter": None}
    run_script("score_clean", folder, unfiltered, monkeypatch)
    with pytest.raises(StudyError, match=r"clean logit difference on the 6 prompts to search on is -.*, not positive"):
        run_script("cache_activations", folder, unfiltered, monkeypatch)
