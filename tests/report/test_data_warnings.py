"""Each warning of a look at the data fires when it should and is silent when not."""

import re

import numpy as np
import pandas as pd
import pytest

from atlas.report.data_check import look
from atlas.report.data_tables import TaskPrompts
from atlas.report.data_warnings import CHECKS, Warned
from conftest import ROOT
from prompt_tables import data, fake_clean, fake_prompts


def warned(given: TaskPrompts) -> dict[str, Warned]:
    return {found.name: found for found in look(given).warnings}


def change(column, value, where=slice(None)) -> pd.DataFrame:
    prompts = fake_prompts()
    prompts[column] = prompts[column].astype(object)
    prompts.loc[prompts.index[where], column] = value
    return prompts


def on_prompts(value, where) -> pd.DataFrame:
    """Clean scores of the usual prompts, top-1 changed where a function of the table says so."""
    prompts = fake_prompts()
    right = (np.arange(len(prompts)) % 10 != 3).astype(float)
    return fake_clean(prompts, top1=np.where(where(prompts), value, right))


def test_nothing_is_said_where_nothing_is_wrong():
    assert warned(data()) == {}
    assert warned(data(info={"layouts": [{"tokens": 2, "prompts": 128}], "hold_out": "sequences"})) == {}


HALF = np.arange(128) % 2 == 0


LISTS = {"answer_tokens": [[1, 2]] * 128, "incorrect_tokens": [[3]] * 128}


CASES = {
    "few prompts": (
        lambda: data(fake_prompts(32)),
        "only 16 prompts to search on and 16 held-out prompts, so",
        "raise per_template",
    ),
    "nothing held out": (lambda: data(change("split", "search")), "nothing is held out", "set held_out_share"),
    "many rejected": (
        lambda: data(reasons=["an answer is not one token"] * 20 + ["odd"] * 3),
        "15 % of 151 prompts were rejected, most for: an answer is not one token",
        "set multi_token: true",
    ),
    "few pass the filter": (
        lambda: data(clean=fake_clean(fake_prompts(), np.arange(128) % 16 < 5), filter={"probability_ratio": 2}),
        "the filter keeps 31 % of the prompts",
        "relax filter",
    ),
    "low accuracy": (lambda: data(clean=fake_clean(fake_prompts(), top1=np.arange(128) % 3 == 0)), "33.6 %", "filter:"),
    "no better than one answer": (
        lambda: data(clean=fake_clean(fake_prompts(), top1=np.arange(128) % 8 == 0)),
        "is right on 12.5 % [7.0, 19.5], no better than 'a0' to every prompt (12 %)",
        "a model that fit the task",
    ),
    "weak difference": (
        lambda: data(clean=fake_clean(fake_prompts(), logit_diff=np.where(HALF, 1, -0.99), corrupted_logit_diff=-1)),
        "perhaps nothing",
        "more prompts",
    ),
    "negative difference": (
        lambda: data(clean=fake_clean(fake_prompts(), logit_diff=-1), allow_negative_clean=True),
        "\u22121.00 [\u22121.00, \u22121.00], so percent of full means nothing",
        "incorrect answers",
    ),
    "wordings differ": (
        lambda: data(clean=on_prompts(0.0, lambda p: (p.template == "{m} was.") & (p.prompt % 5 < 2))),
        "of '{m} is.'",
        "leave it out",
    ),
    "sides differ": (
        lambda: data(clean=on_prompts(0.0, lambda p: (p.split == "held_out") & (p.prompt % 5 < 2))),
        "of held-out prompts and",
        "another seed",
    ),
    "one wording": (lambda: data(change("template", "{m}")), "all prompts have one wording", "give more templates"),
    "one answer": (lambda: data(change("answer", "a0")), "every answer is 'a0'", "other answers"),
    "uneven answers": (
        lambda: data(change("answer", "a0", slice(0, 40))),
        "'a0' is the answer of 40 % of the prompts (8 different answers)",
        "about as many",
    ),
    "answers on one side": (
        lambda: data(fake_prompts().assign(answer=lambda p: p.answer.where(p.answer != "a1", "a1 " + p.split))),
        "'a1 held_out' and 'a1 search' are the answer on one side of the split alone",
        "stratify",
    ),
    "repeated prompts": (
        lambda: data(change("tokens", pd.Series([[1, 100]] * 8), slice(0, 8)), file=True),
        "7 of 128 prompts repeat another",
        "repeated rows",
    ),
    "searched prompts held out": (
        lambda: data(change("tokens", pd.Series([[1, 100]] * 17), slice(0, 17))),
        "1 of 64 held-out prompts are also searched on",
        "more members",
    ),
    "known sequences": (
        lambda: data(change("members", pd.Series([["1", "2"]] * 128))),
        "64 of 64 held-out prompts show a member sequence that is searched on too",
        "hold_out: sequences",
    ),
    "not corrupted": (
        lambda: data(
            fake_prompts().assign(corrupted_tokens=lambda p: p.tokens.where(p.prompt < 3, p.corrupted_tokens))
        ),
        "3 corrupted prompts equal",
        "another corruption",
    ),
    "answer in corrupted": (
        lambda: data(change("answer_in_corrupted", True, slice(0, 70))),
        "in 55 % of the corrupted prompts",
        "forbid_answer: true",
    ),
    "weak corruption": (
        lambda: data(clean=fake_clean(fake_prompts(), logit_diff=2, corrupted_logit_diff=1.5)),
        "keep 75 % of the clean",
        "another corruption",
    ),
    "unlike lengths": (lambda: data(fake_prompts().assign(**LISTS)), "in 100 % of the prompts", "as many tokens"),
    "small layouts": (
        lambda: data(info={"layouts": [{"tokens": 2, "prompts": 119}, {"tokens": 3, "prompts": 9}]}),
        "1 layout of tokens with fewer than 10 prompts",
        "file.min_layout",
    ),
    "other tokens": (
        lambda: data(info={"slow_tokenizer": {"compared": 9, "different": 2, "example": "x  y"}}),
        "2 of 9 texts",
        "tokenizer.json",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_warning_says_what_is_wrong_and_what_to_change(name):
    made, text, remedy = CASES[name]
    found = warned(made())
    assert name in found, found
    assert text in found[name].text and remedy in found[name].remedy
    assert not found[name].stops and "\n" not in found[name].text + found[name].remedy


ALONE = set(CASES) - {"few prompts", "few pass the filter", "unlike lengths"}


@pytest.mark.parametrize("name", sorted(ALONE - {"uneven answers", "no better than one answer", "weak difference"}))
def test_no_other_warning_comes_with_it(name):
    together = {"repeated prompts", "searched prompts held out"}
    found = set(warned(CASES[name][0]()))
    assert found == {name} or (name in together and found <= together), found


def test_every_warning_has_a_case():
    """Names from the source, so that a new warning cannot go untested."""
    source = (ROOT / "scripts/atlas/report/data_warnings.py").read_text()
    names = {*re.findall(r'Warned\(\s*"([^"]+)"', source), *re.findall(r'\("(\w+ differ)"', source)}
    assert names - {"refused"} == set(CASES)
    assert len(CHECKS) == len(re.findall(r"-> Iterator\[Warned\]:", source))


@pytest.mark.parametrize(
    ("given", "silent"),
    [
        (lambda: data(fake_prompts(128, 2)), "uneven answers"),  # two answers, half each
        (lambda: data(reasons=["an answer is not one token"] * 14), "many rejected"),  # a tenth
        (lambda: data(change("tokens", pd.Series([[1, 100]] * 7), slice(0, 7))), "repeated prompts"),
        (lambda: data(change("members", pd.Series([["1"]] * 128)), info={"hold_out": "templates"}), "known sequences"),
        (lambda: data(change("members", pd.Series([[]] * 128)), file=True), "known sequences"),
        (
            lambda: data(fake_prompts().assign(answer=lambda p: p.answer + p.split), info={"hold_out": "sequences"}),
            "answers on one side",
        ),
        (lambda: data(clean=fake_clean(fake_prompts(), logit_diff=-1, corrupted_logit_diff=-1)), "weak corruption"),
    ],
)
def test_what_is_no_reason_to_warn(given, silent):
    assert silent not in warned(given())


NONE = np.zeros(128, dtype=bool)


STOPPED = {
    "not positive": ({"clean": fake_clean(fake_prompts(), logit_diff=-1)}, "set allow_negative_clean: true"),
    "on the 64 held-out prompts is -1.000, not positive": (
        {"clean": fake_clean(fake_prompts(), logit_diff=np.where(fake_prompts().split == "held_out", -1, 2))},
        "set allow_negative_clean: true",
    ),
    "none of the 64 prompts to search on": ({"clean": fake_clean(fake_prompts(), NONE)}, "relax prompts.filter"),
    "none of the 64 held-out prompts": (
        {"clean": fake_clean(fake_prompts(), (fake_prompts().split == "search").to_numpy())},
        "relax prompts.filter",
    ),
    "no search prompt of some template": (
        {"clean": fake_clean(fake_prompts(), (fake_prompts().template == "{m} is.").to_numpy()), "groups": "template"},
        "ablation.groups: all",
    ),
    "no prompts to search on": ({"prompts": change("split", "held_out")}, "lower held_out_share"),
}


@pytest.mark.parametrize("said", STOPPED)
def test_what_stops_the_study_stands_first_with_its_remedy(said):
    given, remedy = STOPPED[said]
    found = look(data(**given)).warnings
    assert found[0].stops and said in found[0].text and remedy in found[0].text + found[0].remedy
    assert sum(warned.stops for warned in found) == 1
