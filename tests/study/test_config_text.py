"""What stands in a configuration file is what a study reads, or it is refused with the remedy."""

import copy
import re
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.utils import update_config

from atlas.core.errors import StudyError
from atlas.prompts.tasks import expand_members
from atlas.study.config_text import refuse_changed_text
from atlas.study.validation import validated
from conftest import ROOT
from odd_input import DEFAULT, FUZZ, SCHEMA
from study import COPIED, Study


def studied(folder, text, *more):
    """The configuration that Snakemake makes of files laid over the default one; StudyError where it is refused."""
    config, files = copy.deepcopy(DEFAULT), []
    for number, content in enumerate((text, *more)):
        files.append(folder / f"c{number}.yaml")
        files[-1].write_text(content)
        update_config(config, load_configfile(files[-1]))
    refuse_changed_text(files, config)
    return validated(config, SCHEMA, ROOT / "resources" / "published")


def refusal(folder, text, *more) -> str:
    with pytest.raises(StudyError) as error:
        studied(folder, text, *more)
    assert "\n" not in str(error.value)
    return str(error.value)


NUMBERS = ["01", "012", "08", "0o7", "0x1F", "0b11", "1_000", "+5", "-5", "5", "0", "-0", "1:30", "190:20:30", "1.0"]
NUMBERS += ["1.10", "1e3", "1.0e+3", ".5", "5.", ".inf", "-.INF", ".nan", "12:30:45", "1__0", "0_1", "0x", "1.", "٣"]
WORDS = ["yes", "No", "on", "OFF", "true", "False", "y", "n", "null", "Null", "~", "one", "'01'", '"yes"', "2024-01-01"]
TAGGED = ["!!str 01", "!!int 010", "!!float 1", "!!bool yes", "2024-01-01 10:00:00"]
SCALAR = st.sampled_from([*NUMBERS, *WORDS, *TAGGED]) | st.from_regex(r"[-+]?[0-9_:.]{1,5}", fullmatch=True)


def written(scalar: str) -> str:
    """The text that a scalar is meant as: itself, without quotes and tag."""
    return re.sub(r"^!!\w+ ", "", scalar).strip("'\"")


@FUZZ
@given(scalar=SCALAR)
def test_a_member_is_the_text_that_stands_there_or_is_refused(tmp_path_factory, scalar):
    file = tmp_path_factory.mktemp("c") / "c.yaml"
    file.write_text(f"tasks:\n  days: {{members: [a, {scalar}]}}\n")
    try:
        config = load_configfile(file)
    except (yaml.YAMLError, WorkflowError, AttributeError):  # Snakemake says so
        return
    try:
        refuse_changed_text([file], config)
    except StudyError as error:
        assert re.fullmatch(r"tasks.days.members.1: YAML reads .+; put it in quotes: .+", str(error)), error
        return
    members = config["tasks"]["days"]["members"]
    if not isinstance(members[1], dict):  # `-:` is a key, which the schema refuses
        assert list(expand_members(members)) == ["a", written(scalar)]


PLACES = {
    "prompts.templates.0": "prompts: {templates: [%s]}",
    "prompts.fillers.object.0": "prompts: {fillers: {object: [%s]}}",
    "prompts.random_words.1": "prompts: {random_words: [a, %s]}",
    "tasks.days.fillers.name.0": "tasks: {days: {fillers: {name: [%s]}}}",
    "stability.templates.0.0": "stability: {templates: [[%s]]}",
    "generation.prompts.x.texts.0.1": "generation: {prompts: {x: {texts: [[a, %s]]}}}",
    "generation.prompts.x.members.1": "generation: {prompts: {x: {members: [a, %s, b], texts: [['{0}', ' {1}']]}}}",
}


@pytest.mark.parametrize("scalar", ["no", "1.0", "2024-01-01", "~", "1:30", "010"])
@pytest.mark.parametrize("place", PLACES)
def test_texts_of_every_kind_are_refused_with_the_remedy(tmp_path, place, scalar):
    said = refusal(tmp_path, PLACES[place] % scalar)
    assert said.startswith(f"{place}: YAML reads {scalar} as ") and said.endswith(f'; put it in quotes: "{scalar}"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: {days: {members: [01, 02, 03, 04, 05, 06]}}", 'members.0: YAML reads 01 as 1; put it in quotes: "01"'),
        ("tasks: {days: {members: {range: [1, 010]}}}", 'members.range.1: YAML reads 010 as 8; write 8, or "010"'),
        ("prompts: {shown: 04}", "prompts.shown: YAML reads 04 as 4; write 4"),
        ("prompts: {per_template: 1:30}", "prompts.per_template: YAML reads 1:30 as 90; write 90"),
        ("edges: {threshold: 1:30.5}", "edges.threshold: YAML reads 1:30.5 as 90.5"),
        ("study: {title: no}", "study.title: False is of the wrong type; needs string, text in quotes"),
        ("study: {tasks: [on]}", "study.tasks.0: True is of the wrong type; needs string, text in quotes"),
        ("search: {never_test: [9.1]}", "search.never_test.0: 9.1 is of the wrong type; needs string, text in quotes"),
        (
            "prompts: {templates: [{m}]}",
            "prompts.templates.0: {'m': None} is of the wrong type; needs string, text in quo",
        ),
        ("tasks: {no: {members: [a, b]}}", "tasks: the key False is no text; put it in quotes"),
        ("tasks:\n  days: {}\n  days: {}\n", "tasks.days: stands twice in c0.yaml, again in line 3; remove one"),
    ],
)
def test_odd_values_are_refused_by_name(tmp_path, text, said):
    assert said in refusal(tmp_path, text)


def test_what_a_later_file_replaces_is_not_looked_at(tmp_path):
    odd, good = "tasks: {days: {members: [01, 02, 03, 04, 05, 06, 07]}}", "tasks: {days: {members: [a, b, c, d, e, f]}}"
    assert studied(tmp_path, odd, good)["tasks"]["days"]["members"] == list("abcdef")
    assert "YAML reads 01" in refusal(tmp_path, good, odd)
    merged = "tasks: {x: &x {members: [01, b, c, d, e, f]}, days: {<<: *x}}"
    assert refusal(tmp_path, merged).startswith("tasks.x.members.0: YAML reads 01 as 1")


def test_the_shipped_configurations_are_written_plainly(tmp_path):
    for file in [ROOT / "config.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]:
        refuse_changed_text([file], load_configfile(file))


def test_a_json_configuration_is_read(tmp_path):
    assert studied(tmp_path, '{"tasks": {"days": {"members": [1, 2, 3, 4, 5, 6]}}}')


def test_a_study_names_the_members_that_yaml_changed(tmp_path):
    """The product itself, in a dry run."""
    folder = tmp_path / "study"
    folder.mkdir()
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    (folder / "odd.yaml").write_text(
        f"tasks: {{months: {{members: [{', '.join(f'{i:02}' for i in range(1, 13))}]}}}}\n"
    )
    study = Study.__new__(Study)
    study.folder = folder
    done = study.snakemake("--dry-run", "--configfile", "presets/smoke.yaml", "odd.yaml", check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("config: ")]
    assert lines == ['config: tasks.months.members.0: YAML reads 01 as 1; put it in quotes: "01"'] and done.returncode
