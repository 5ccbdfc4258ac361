"""Generators: found by the name of their module, with keys of their own, and part of what a job is made of."""

import copy
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from atlas.circuit import stability
from atlas.core.errors import StudyError
from atlas.prompts import generator, generators
from atlas.prompts.corruptions import CORRUPTIONS
from atlas.prompts.layouts import Encoded
from atlas.prompts.making import prompts_of, summary, warnings
from atlas.store import job, sources
from atlas.study.validation import validated
from conftest import ROOT, load_tokenizer

SCHEMA = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())
OF_EVERY_TASK = SCHEMA["properties"]["tasks"]["additionalProperties"]["properties"]
BLOCKS = {"members": {"members": ["a"]}, "file": {"file": {"clean": "p.csv"}}}

GREETINGS = '''
"""Greetings: the name that is met is the answer, another one is not."""
import itertools
from atlas.prompts.generator import Generator, Made, prompt

def check(name, block):
    if len(block["names"]) < 2:
        raise ValueError("never: the schema says so")

def make(name, block, tokenizer, root):
    rows = []
    for i, (a, b) in enumerate(itertools.permutations(block["names"], 2)):
        texts = (f"When {a} met {b}, then {a} saw", f"When {b} met {a}, then {a} saw")
        rows.append(prompt(i, texts=texts, answers=(b, a), template="met", row=i))
    return Made(rows)

KEYS = {"names": {"type": "array", "minItems": 2, "items": {"type": "string"}, "description": "People."}}
GENERATOR = Generator(make, check, keys=KEYS, required=("names",))
'''


@pytest.fixture
def greetings(tmp_path, monkeypatch):
    """A generator of a stranger: one module, named nowhere."""
    (tmp_path / "greetings.py").write_text(GREETINGS)
    monkeypatch.setattr(generators, "__path__", [*generators.__path__, str(tmp_path)])
    yield {"generator": "greetings", "names": ["Ada", "Ben", "Dan", "Paul"]}
    sys.modules.pop("atlas.prompts.generators.greetings", None)


def with_task(config, block, main=False):
    out = copy.deepcopy(config)
    out["tasks"]["hello"] = block
    out["study"]["tasks" if main else "transfer_tasks"].append("hello")
    return out


def refusal(config) -> str:
    with pytest.raises(StudyError) as error:
        validated(config, SCHEMA, ROOT / "resources" / "published")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_block_without_a_name_is_of_its_file_or_of_its_members():
    assert {name: generator.name_of(block) for name, block in BLOCKS.items()} == dict(zip(BLOCKS, BLOCKS, strict=True))
    assert generator.name_of(BLOCKS["members"] | BLOCKS["file"]) == "file", "members then say an order only"
    assert generator.name_of(BLOCKS["members"] | {"generator": "other"}) == "other"


@pytest.mark.parametrize("name", generator.names())
def test_every_generator_is_whole(name):
    found = generator.of({"generator": name})
    assert not set(found.keys) & set(OF_EVERY_TASK) and set(found.required) <= set(found.keys)
    assert all("description" in node for node in found.keys.values()), "for the reference page"
    assert set(found.varies) <= set(SCHEMA["properties"]["stability"]["properties"])


@pytest.mark.parametrize("name", generator.names())
def test_a_job_is_made_of_the_generator_of_its_task_and_of_no_other(name):
    files = sources.of("scripts/make_prompts.py", generator.source_of({"generator": name})).files
    assert {path for path in files if path.startswith("scripts/atlas/prompts/generators/")} == {
        "scripts/atlas/prompts/generators/__init__.py",
        f"scripts/atlas/prompts/generators/{name}.py",
    }


def test_what_a_generator_imports_is_part_of_the_provenance(monkeypatch):
    """Making prompts of members draws with NumPy."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(ROOT / "scripts" / "make_prompts.py"), raising=False)
    nothing = SimpleNamespace(input={}, params={})
    with_members = job.provenance(nothing, generator.source_of(BLOCKS["members"]))
    assert with_members["versions"].keys() - job.provenance(nothing)["versions"].keys() == {"numpy"}


def test_rules_that_make_prompts_count_the_generator_in():
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    calls = {path for path in (ROOT / "scripts/atlas").rglob("*.py") if "generator.of(" in path.read_text()}
    calls = {path.relative_to(ROOT).as_posix() for path in calls if ".make(" in path.read_text()}
    making = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "scripts").glob("*.py")
        if calls & set(sources.of(path).files)
    }
    assert set(re.findall(r'library_of_task\("(\S+?)"\)', text)) == making > {"scripts/make_prompts.py"}


def test_reading_every_generator_loads_nothing_heavy():
    """Each process of Snakemake reads those of the study."""
    code = (
        "import sys; from atlas.prompts import generator; "
        "[generator.of({'generator': n}) for n in generator.names()]; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "numpy", "transformers", "pyarrow"} & set(done.stdout.split())


def test_a_strangers_generator_needs_no_other_file(greetings, config):
    assert "greetings" in generator.names()
    found = validated(with_task(config, greetings, main=True), SCHEMA, ROOT / "resources" / "published")
    block = found["prompts"] | found["tasks"]["hello"]
    encoded, dropped = prompts_of("hello", block, load_tokenizer("gpt2"), False, None, None)
    assert dropped == {} and len(encoded.rows) == 12 and encoded.layout["members"] == []
    assert {row["split"] for row in encoded.rows} == {"search", "held_out"}
    assert [row["text"] for row in encoded.rows][:1] == ["When Ada met Ben, then Ada saw"]
    info = summary(encoded, block, dropped)
    assert info["counts"]["read"] == info["counts"]["prompts"] == 12 and info["hold_out"] == "prompts"


def test_the_generator_that_the_documents_show_makes_prompts(config, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "extending.md").read_text()
    (module,) = [text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "GENERATOR" in text]
    (shown,) = re.findall(r"`additions: ({generator: .*?})`", page)
    (tmp_path / "additions.py").write_text(module)
    monkeypatch.setattr(generators, "__path__", [*generators.__path__, str(tmp_path)])
    found = validated(with_task(config, yaml.safe_load(shown)), SCHEMA, ROOT / "resources" / "published")
    encoded, _ = prompts_of(
        "additions", found["prompts"] | found["tasks"]["hello"], load_tokenizer("gpt2"), False, 99, None
    )
    assert len(encoded.rows) == 49 and not encoded.rejected
    assert all(
        eval(row["text"].replace("plus", "+").removesuffix("equals")) == int(row["answer"]) for row in encoded.rows
    )
    sys.modules.pop("atlas.prompts.generators.additions")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"generator": "greeting"}, "tasks.hello.generator: 'greeting' is unknown; there are agreement, capitals, "),
        ({"generator": ["x"]}, "tasks.hello.generator: ['x'] is unknown"),
        ({"nmaes": ["a", "b"]}, "tasks.hello: unknown key 'nmaes'; allowed are names,"),
        ({"names": ["a"]}, "tasks.hello.names: ['a'] has too few entries; needs at least 2"),
        ({"names": ["a", True]}, "tasks.hello.names.1: True is of the wrong type; needs string, text in quotes"),
        ({"names": None}, "tasks.hello.names: None is of the wrong type"),
        ({"file": {"clean": "p.csv"}}, "tasks.hello.file: prompts come from the generator 'greetings'; give one"),
    ],
)
def test_its_keys_are_checked_as_those_of_every_task(greetings, config, change, said):
    assert refusal(with_task(config, greetings | change)).startswith(said)


def test_its_keys_are_no_keys_of_other_tasks(greetings, config):
    config = with_task(config, greetings)
    assert "tasks.hello: key 'names' is missing" in refusal(with_task(config, {"generator": "greetings"}))
    config["tasks"]["days"]["names"] = ["a", "b"]
    assert refusal(config).startswith("tasks.days: unknown key 'names'; allowed are")


def test_only_what_a_generator_varies_is_made_anew(greetings, config):
    """Other templates and corruptions would change nothing of these prompts."""
    block = config["prompts"] | greetings
    wanted = [1], [["{m}"]], ["permute"]
    assert [name for _, name, _ in stability.changes(block, *wanted)] == ["seed 1"]
    assert [family for family, *_ in stability.changes(config["prompts"] | BLOCKS["members"], *wanted)] == (
        ["seeds", "templates", "corruption"]
    )
    assert list(stability.changes(config["prompts"] | BLOCKS["file"], *wanted)) == []


def test_the_schema_names_every_corruption():
    node = SCHEMA["$defs"]["corruption"]
    assert node["then"]["enum"] == [name for name, kind in CORRUPTIONS.items() if kind.needs is None]
    assert list(node["else"]["properties"]) == [kind.needs for kind in CORRUPTIONS.values() if kind.needs]


def test_what_is_odd_about_prompts_is_said():
    rows = [
        {"text": text, "tokens": [i], "template": "t", "start": -1, "members": [], "split": split}
        for i, text, split in ((0, "a", "search"), (0, "a", "search"), (1, "b", "held_out"), (2, "c", "search"))
    ]
    rows[3]["stratum"] = "alone"
    encoded = Encoded(rows, [{"tokens": 1, "prompts": 4}], [({}, "why"), ({}, "why")])
    block = {"hold_out": "prompts", "held_out_share": 0.5, "seed": 3, "filler_seed": 4}
    info = summary(encoded, block, {}) | {"slow_tokenizer": None}
    assert info["counts"]["read"] == 6 and info["counts"]["rejected"] == {"why": 2} and info["counts"]["undivided"] == 1
    assert list(warnings(encoded, info)) == [
        "1 strata are searched on alone, being too small to divide or tied to others, e.g. stratum alone",
        "1 prompts repeat another; each stays on its side",
    ]
    slow = {"compared": 8, "different": 2, "example": "x"}
    assert list(warnings(encoded, info | {"slow_tokenizer": slow}))[2:] == [
        "the fast tokenizer splits 2 of 8 texts unlike tokenizer.model, e.g. 'x'"
    ]


def test_the_reference_page_lists_its_keys(greetings, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import build_configuration

    table = "Keys of a task with `generator: greetings`:\n\n| key | values | meaning |\n|---|---|---|\n"
    assert table + "| `names` | list of string | People. |" in build_configuration.page()
