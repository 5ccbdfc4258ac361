"""Synthetic prompts of one task with their clean scores: what a look at the data reads."""

from itertools import count as counting

import numpy as np
import pandas as pd

from atlas.core.statistics import Bootstrap
from atlas.prompts import clean_scores, rejected
from atlas.report.data_tables import TaskPrompts

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


def data(prompts=None, clean=None, reasons=(), info=None, **changed) -> TaskPrompts:
    prompts = fake_prompts() if prompts is None else prompts
    clean = fake_clean(prompts) if clean is None else clean
    about = {"layout": {"tokens": 2}, "slow_tokenizer": None, "dropped_fillers": {}, "counts": {}} | (info or {})
    scored = clean_scores.with_scores(prompts, clean)
    return TaskPrompts("t", scored, about, fake_rejected(reasons), SETTINGS | changed, BOOTSTRAP)
