"""What stands behind `--config`: numbers, true, false and null, which Snakemake makes text of in a block."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.cli import parse_config
from snakemake.utils import update_config

from atlas.core.errors import StudyError
from atlas.study.validation import validated
from conftest import ROOT

DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())


def read(*entries: str) -> dict:
    """The configuration of a study with these words behind `--config`."""
    said, whole = parse_config(entries), copy.deepcopy(DEFAULT)
    update_config(whole, said)
    return validated(whole, SCHEMA, ROOT / "resources" / "published", said)


@pytest.mark.parametrize(
    ("entry", "at", "value"),
    [
        ("real=true", "real", True),
        ("real=True", "real", True),
        ("real=false", "real", False),
        ("search={thresholds: [10, 20]}", "search.thresholds", [10, 20]),
        ("prompts={per_template: 24, hold_out: sequences}", "prompts.per_template", 24),
        ("geometry={neurons: {share: 0.75}}", "geometry.neurons.share", 0.75),
        ('edges={"roles": {"method": null, "exact": 0}}', "edges.roles", {"method": None, "exact": 0}),
        ("search={orders: [layers, {random: 3}]}", "search.orders", ["layers", {"random": 3}]),
        ('models={"ladder-6x8": {"prepend_bos": true}}', "models.ladder-6x8.prepend_bos", True),
        ("study={title: 7}", "study.title", "7"),  # text is taken here
        ("tasks={numerals: {members: [1, 2, 3, 4, 5, 6, 7]}}", "tasks.numerals.members", list("1234567")),
    ],
)
def test_values_are_what_they_would_be_in_a_file(entry, at, value):
    found = read(entry)
    for key in at.split("."):
        found = found[key]
    assert found == value and repr(found) == repr(value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("real=yes", "real: 'yes' is of the wrong type; needs boolean"),
        ("search={thresholds: [010]}", "search.thresholds.0: '010' is of the wrong type"),
        ("search={thresholds: ['[1']}", "search.thresholds.0: '[1' is of the wrong type"),
        ("search={thresholds: ['']}", "search.thresholds.0: '' is of the wrong type"),
        ("search={thresholds: [.nan]}", "search.thresholds.0: nan is of the wrong type"),
        ("search={thresholds: [many]}", "search.thresholds.0: 'many' is of the wrong type"),
        ("search={thresholds: [500]}", "search.thresholds.0: 500 is out of range"),
        ("prompts={per_template: 1:30}", "prompts.per_template: '1:30' is of the wrong type"),
        ("ablation={kind: 3}", "ablation.kind: 3 is not allowed"),
    ],
)
def test_what_it_cannot_be_is_refused_in_one_line(entry, said):
    with pytest.raises(StudyError) as refused:
        read(entry)
    assert str(refused.value).startswith(said) and "\n" not in str(refused.value)


def test_text_in_a_file_stays_text():
    """A number in quotes is a mistake there, and said to be one; and the same text elsewhere on the command line."""
    given = copy.deepcopy(DEFAULT)
    given["search"]["thresholds"] = ["20"]
    for said in ({}, {"search": {"orders": ["20"]}}, {"search": {"thresholds": []}}, {"search": "20"}):
        with pytest.raises(StudyError, match=r"search.thresholds.0: '20' is of the wrong type"):
            validated(given, SCHEMA, ROOT / "resources" / "published", said)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.sampled_from(["1e5", "08", "-0", "~", "[1", "{", "true", "null", ".inf"]), st.text(max_size=6)))
def test_any_text_is_refused_in_one_line_or_is_what_a_file_would_say(text):
    said = {"search": {"thresholds": [text]}, "real": text}
    whole = copy.deepcopy(DEFAULT)
    update_config(whole, said)
    try:
        validated(whole, SCHEMA, ROOT / "resources" / "published", said)
    except StudyError as error:
        assert "\n" not in str(error)
    else:
        raise AssertionError("no text is both a number and a boolean")
