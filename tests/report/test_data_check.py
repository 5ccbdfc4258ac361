"""A look at the data: each warning fires when it should and is silent when not; the page, the table, the target."""

import re
from html.parser import HTMLParser
from itertools import count as counting

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.core.statistics import Bootstrap
from atlas.prompts import clean_scores, rejected, rejections, tokens
from atlas.prompts.files import prompts_from_file
from atlas.report import data_check, data_page
from atlas.report.data_check import CHECKS, TaskData, look
from conftest import ROOT, load_tokenizer
from study import Study

METRICS = ("logit_diff", "prob_diff", "top1", "log_prob")
SETTINGS = {"file": False, "filter": None, "allow_negative_clean": False, "groups": "all"}
BOOTSTRAP = Bootstrap(200, 0)


def fake_prompts(n: int = 128, answers: int = 8) -> pd.DataFrame:
    """A table with nothing wrong: two wordings, even answers, both sides alike, member sequences on one side each."""
    fresh, rows = counting(100), []
    for i in range(n):
        held_out = (i // (2 * answers)) % 2  # each side has every wording with every answer
        rows.append(
            {"model": "m", "task": "t", "prompt": i, "template": ["{m} is.", "{m} was."][i // answers % 2]}
            | {"split": "held_out" if held_out else "search", "text": f"text {i}", "corrupted_text": f"other {i}"}
            | {"answer": f"a{i % answers}", "incorrect": "b", "members": [str(held_out), str(i % 7)]}
            | {"tokens": [1, next(fresh)], "corrupted_tokens": [2, next(fresh)], "answer_in_corrupted": False}
            | {"answer_token": 10 + i % answers, "incorrect_token": 9}
        )
    return pd.DataFrame(rows)


def fake_clean(prompts: pd.DataFrame, kept=None, **values) -> pd.DataFrame:
    """clean.parquet: right on all but every tenth prompt, unless ``values`` (name -> number or one for each prompt)."""
    n = len(prompts)
    right = (np.arange(n) % 10 != 3).astype(float)
    given = {"top1": right, "logit_diff": 1 + right, "log_prob": np.full(n, -0.5), "corrupted_logit_diff": 0.1} | values
    kept = np.ones(n, dtype=bool) if kept is None else kept
    rows = []
    for run in ("clean", "corrupted"):
        for metric in METRICS:
            value = given.get(metric if run == "clean" else f"corrupted_{metric}", 0.0)
            cells = prompts[["model", "task", "prompt", "split"]]
            rows.append(cells.assign(kept=kept, run=run, metric=metric, value=np.broadcast_to(value, n)))
    return pd.concat(rows, ignore_index=True)


def fake_rejected(reasons=()) -> pd.DataFrame:
    rows = [
        {"prompt": 1000 + i, "template": "file", "reason": reason, "text": "a <b>", "corrupted_text": "c"}
        | {"answer": "one two", "incorrect": "x", "clean_strings": ["a", " <b>", " one", " two"]}
        | {"incorrect_strings": ["a", " <b>", " x"], "corrupted_strings": ["c", " one", " two"]}
        for i, reason in enumerate(reasons)
    ]
    return pd.DataFrame(rows, columns=list(rejected.COLUMNS))


def fake_tokens(prompts: pd.DataFrame) -> pd.DataFrame:
    """tokens.parquet of the first prompt."""
    shown = [("clean", 0, 50, "<s>", "", "bos"), ("clean", 1, 1, "Ġ1", " 1", "members")]
    shown += [("clean", 2, 7, "Ċ", "\n", "last"), ("clean", 3, 10, "Ġa0", " a0", "answer")]
    shown += [("clean", 3, 9, "Ġb", " b", "incorrect"), ("corrupted", 1, 2, "Ġ2", " 2", "members")]
    columns = ["run", "position", "id", "piece", "string", "role"]
    return pd.DataFrame(shown, columns=columns).assign(task="t", prompt=0, template=prompts["template"].iloc[0])


def data(prompts=None, clean=None, reasons=(), info=None, **changed) -> TaskData:
    prompts = fake_prompts() if prompts is None else prompts
    clean = fake_clean(prompts) if clean is None else clean
    about = {"layout": {"tokens": 2}, "slow_tokenizer": None, "dropped_fillers": {}, "counts": {}} | (info or {})
    scored = clean_scores.with_scores(prompts, clean)
    return TaskData("t", scored, about, fake_rejected(reasons), SETTINGS | changed, BOOTSTRAP)


def warned(given: TaskData) -> dict[str, data_check.Warned]:
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


# ---- warnings ------------------------------------------------------------------------------------------------
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
    source = (ROOT / "scripts/atlas/report/data_check.py").read_text()
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


# ---- what stops a study --------------------------------------------------------------------------------------
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


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_table_can_be_looked_at(draw):
    """Whatever the sides, the filter and the scores: a look has a page, a table and a digest, and counts add up."""
    n = draw.draw(st.integers(1, 12))
    prompts = fake_prompts(n)
    sides = draw.draw(st.lists(st.sampled_from(["search", "held_out"]), min_size=n, max_size=n))
    numbers = st.lists(st.floats(-5, 5), min_size=n, max_size=n)
    kept = np.array(draw.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    prompts = prompts.assign(split=sides)
    clean = fake_clean(prompts, kept, logit_diff=draw.draw(numbers), corrupted_logit_diff=draw.draw(numbers))
    reasons = draw.draw(
        st.lists(st.sampled_from(["an answer is not one token", "one answer begins with the other"]), max_size=4)
    )
    found = look(data(prompts, clean, reasons, filter={"probability_ratio": 2}))
    counts = found.counts
    assert counts["read"] == counts["kept"] + counts["rejected"] == n + len(reasons)
    assert counts["kept"] == counts["search"] + counts["held_out"]
    assert counts["pass the filter"] == kept.sum()
    assert found.answers[["search", "held_out"]].to_numpy().sum() == n
    refused = clean_scores.refusal(found.data.prompts, "all", False)
    assert [warned.stops for warned in found.warnings].count(True) == (refused is not None)
    assert "<u>" not in data_page.page([found], {"t": fake_tokens(prompts)}, "T <u>", "", ["t"])
    assert (data_check.data_table(found)["value"] == 0).isin([True, False]).all()
    assert data_check.digest([found]).count("->") == len(found.warnings) + len(found.reasons)


# ---- scores, table, digest -----------------------------------------------------------------------------------
def test_scores_are_means_of_the_prompts_they_name():
    prompts = fake_prompts()
    clean = fake_clean(prompts)
    scores = look(data(prompts, clean)).scores
    assert set(scores.split) == {"all", "search", "held_out"} and set(scores.template) == {"", "{m} is.", "{m} was."}
    for _, row in scores[scores.metric == "logit_diff"].iterrows():
        chosen = prompts[(row.split == "all") | (prompts.split == row.split)]
        chosen = chosen[(row.template == "") | (chosen.template == row.template)]
        own = clean[(clean.run == "clean") & (clean.metric == "logit_diff") & clean.prompt.isin(chosen.prompt)]
        assert row.value == pytest.approx(own.value.mean()) and row.prompts == len(own)
        assert row.ci_low <= row.value <= row.ci_high
    p = scores[(scores.metric == "probability") & (scores.split == "all")].value
    assert p.to_numpy() == pytest.approx(np.exp(-0.5))


def test_the_table_holds_what_the_page_shows():
    found = look(data(reasons=["an answer is not one token"] * 20, clean=fake_clean(fake_prompts(), logit_diff=-1)))
    table = data_check.data_table(found)
    assert list(table.columns) == list(data_check.COLUMNS)
    values = table.set_index(["part", "name"])["value"]
    assert values["count", "read"] == 148 and values["rejected", "an answer is not one token"] == 20
    assert table[table.part == "answer"].value.sum() == 128
    assert values["warning", "refused"] == 1 and values["warning", "many rejected"] == 0
    assert len(table[table.part == "score"]) == len(found.scores)


def test_the_digest_names_every_reason_and_warning():
    text = data_check.digest([look(data(reasons=["an answer is not one token"] * 20)), look(data())])
    assert "t: 128 of 148 prompts kept; 64 to search on, 64 held out" in text
    assert "rejected: 20 for: an answer is not one token -> set multi_token: true" in text
    assert "warning: 14 % of 148 prompts were rejected" in text and text.endswith("nothing looks wrong\n")


# ---- rejected prompts ----------------------------------------------------------------------------------------
BAD_ROWS = """text,corrupted_text,answer,incorrect
Monday Tuesday,Friday Monday,Wednesday,Tuesday
Tuesday Wednesday,Sunday Monday,Thursday,Wednesday
Monday Tuesday,Friday Monday,Wednesday,Wednesday
Monday Tuesday,Friday Monday,Wednesday Thursday,Tuesday
Monday Tuesday,Friday Monday Sunday,Wednesday,Tuesday
Monday,Friday,Tuesday,Monday
"""


def bad_rows(folder) -> tokens.Encoded:
    (folder / "bad.csv").write_text(BAD_ROWS)
    rows = prompts_from_file("mine", {"clean": "bad.csv"}, folder)
    return tokens.encode_prompts(rows, load_tokenizer("shipped"), False, "mine")


def test_every_row_of_a_file_is_kept_or_rejected_with_its_tokens(tmp_path):
    encoded = bad_rows(tmp_path)
    table = rejected.rejected_table(encoded.rejected_rows, load_tokenizer("shipped"))
    assert {row["prompt"] for row in encoded.rows} | set(table.prompt) == set(range(6))
    assert table.prompt.tolist() == [2, 3, 4, 5]
    assert dict(table.reason.value_counts()) == dict(encoded.rejected)
    assert list(table.reason) == [
        "answer and incorrect answer are equal",
        "an answer is not one token",
        "the corrupted text has another number of tokens",
        "another layout than most prompts",
    ]
    two = table.set_index("prompt").loc[3]
    assert list(two.clean_strings) == ["Monday", " Tuesday", " Wednesday", " Thursday"]
    for row in table.itertuples():
        assert "".join(row.clean_strings) == f"{row.text} {row.answer}"
        assert "".join(row.incorrect_strings) == f"{row.text} {row.incorrect}"
        assert "".join(row.corrupted_strings) == f"{row.corrupted_text} {row.answer}"


def test_nothing_rejected_is_an_empty_table():
    table = rejected.rejected_table([], load_tokenizer("shipped"))
    assert list(table.columns) == list(rejected.COLUMNS) and len(table) == 0


def test_every_reason_of_the_tokenizer_has_a_remedy():
    """Reasons are the texts of `rejections`."""
    reasons = {value for name, value in vars(rejections).items() if name.isupper() and isinstance(value, str)}
    assert len(reasons) > 20 and set(rejections.REMEDIES) == reasons


# ---- the page ------------------------------------------------------------------------------------------------
class Page(HTMLParser):
    """Text of a page, the tags that are open at its end, its boxes (class, title, text), and addresses outside it."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.text, self.boxes, self.outside, self.anchors = [], [], [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.outside += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("#")]
        self.anchors.add(attrs.get("id"))
        if tag != "meta":
            self.open.append(tag)
        if tag == "b" and "title" in attrs:
            self.boxes.append([attrs["class"], attrs["title"], ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] == "b" and self.boxes and not self.boxes[-1][2]:
            self.boxes[-1][2] = data


def page_of(*looks, warning="") -> Page:
    return Page(data_page.page(list(looks), {"t": fake_tokens(fake_prompts())}, "T <x>", warning, ["t"]))


def test_the_page_shows_counts_reasons_scores_answers_and_tokens():
    reasons = ["an answer is not one token"] * 20 + ["one answer begins with the other"]
    page = page_of(look(data(reasons=reasons, info={"hold_out": "sequences"})), warning="Random weights")
    text = " ".join("".join(page.text).split())
    assert not page.open and page.outside == [] and "t" in page.anchors
    for said in (
        "T <x>",
        "Random weights",
        "128 of 149 prompts can be used: 64 to search on, 64 held out.",
        "rejected: an answer is not one token",
        "set multi_token: true, or choose answers of one token",
        "rejected: one answer begins with the other",
        "give another incorrect answer",
        "whole member sequences",
        "first choice right (%)",
        "{m} was.",
        "with incorrect one",
    ):
        assert said in text, said
    assert ["members", "member; position 1, id 1, Ġ1", "\u24231"] in page.boxes
    assert ["last", "last token, answers here; position 2, id 7, Ċ", "\u23ce"] in page.boxes
    assert {box[0] for box in page.boxes} == {"bos", "members", "last", "answer", "incorrect"}


def test_the_page_says_what_stops_the_study_and_what_does_not():
    stopped = page_of(look(data(clean=fake_clean(fake_prompts(), logit_diff=-1))))
    assert "Stops the study" in "".join(stopped.text)
    fine = "".join(page_of(look(data())).text)
    assert "Nothing looks wrong." in fine and "Stops the study" not in fine


def contrast(one: str, two: str) -> float:
    """Of two colours `#rrggbb` or `#rgb`, as WCAG 2 defines it."""

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_every_role_can_be_read_on_its_colour():
    """At least 4.5, as WCAG 2 asks of text."""
    html = data_page.page([], {}, "T", "", [])
    default = re.search(r"\.tokens b \{[^}]*color: (#\w+); background: (#\w+)", html)
    assert contrast(*default.groups()) >= 4.5
    for role in ("members", "last", "answer", "bos"):
        rule = re.search(rf"\.tokens \.{role} \{{([^}}]*)\}}", html)[1]
        ink = re.search(r"(?<!-)color: (#\w+)", rule)
        assert contrast(re.search(r"background: (#\w+)", rule)[1], ink[1] if ink else default[1]) >= 4.5, role


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_token_is_invisible(string):
    shown = data_page.visible(string)
    assert shown and not set(" \n\t\r") & set(shown)


# ---- as a user runs it ---------------------------------------------------------------------------------------
WRONG = """text,corrupted_text,answer,incorrect
one two,two one,nine,three
two three,three two,ten,four
three four,four three,eight,five
one two,two one,nine ten,three
one two,two one,three,three
one two,two one one,nine,three
"""


def test_a_file_that_a_study_would_refuse_can_be_looked_at(tmp_path):
    """Rows of four kinds, and answers that the model finds unlikely: all is said before, and nothing is searched."""
    made = Study(tmp_path / "own")
    (made.folder / "wrong.csv").write_text(WRONG)
    made.config["tasks"]["wrong"] = {"file": {"clean": "wrong.csv"}}
    made.config["study"] |= {"tasks": ["wrong"], "transfer_tasks": []}
    made.write_config(made.config)
    folder = made.folder / "results" / "ladder-6x8"

    said = made.snakemake("check_data").stdout
    assert "wrong: 3 of 6 prompts kept" in said and said.count("  rejected: 1 for:") == 3
    assert "an answer is not one token -> set multi_token: true" in said
    assert re.search(
        r"STOPS THE STUDY: the model's clean logit difference on the 2 prompts to search on is -.*, not positive", said
    )
    table = pd.read_parquet(folder / "wrong" / "rejected.parquet")
    assert table.prompt.tolist() == [3, 4, 5] and table.reason.nunique() == 3
    assert (table.model == "ladder-6x8").all() and (table.task == "wrong").all()
    assert "Stops the study" in (made.folder / "results/figures/ladder-6x8/ladder-6x8.data.html").read_text()

    failed = made.snakemake(check=False)
    text = failed.stdout + failed.stderr
    assert (
        failed.returncode
        and "tasks.wrong: the model's clean logit difference on the 2 prompts to search on is -" in text
    )
    assert "`snakemake --cores 2 check_data` shows its prompts and scores" in text
    assert "Traceback" not in text and not (folder / "wrong" / "trace.parquet").exists()
    for later in ("score_components", "search_nodes", "evaluate_circuits", "explain_task"):
        assert f"rule {later}" not in text
