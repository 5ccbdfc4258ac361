"""Bad configurations, prompt files, model folders and circuits: one line that names what is wrong, and nothing else.

Everything is checked in this process. A case is a distinct input; it is refused with one line, or it is accepted and
then really usable. A file that code in a data file would write (the canary) must never appear.
"""

import copy
import json
import math
import pickle
import shutil

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from atlas.core.errors import StudyError
from atlas.generate.prompts import make_set
from atlas.model import checks, models, source
from atlas.prompts import tasks, tokens
from atlas.prompts.files import prompts_from_file
from atlas.study import settings as study_settings
from atlas.study import validation
from atlas.study.schema import shown
from conftest import ROOT, SHIPPED, load_tokenizer
from odd_input import DEFAULT, FUZZ, SCHEMA

REFUSED: dict[str, set[str]] = {"config": set(), "prompts": set(), "model": set()}


def refused(kind: str, case: object, check) -> str:
    """The line with which a case is refused, or an empty string; any other exception than StudyError is a failure."""
    try:
        check()
    except StudyError as error:
        line = str(error)
        assert line and "\n" not in line and "Traceback" not in line and len(line) < 1200, line
        REFUSED[kind].add(repr(case))
        return line
    return ""


# ---- configurations ------------------------------------------------------------------------------------------
def validated(config):
    return validation.validated(config, SCHEMA, ROOT / "resources" / "published")


def is_usable(config) -> None:
    """What a study does with a configuration before the model runs: prompts of every task, and prompt sets."""
    small = {"per_template": 1, "held_out_share": 0}
    for name in [*config["study"]["tasks"], *config["study"]["transfer_tasks"]]:
        block = study_settings.task_block(config, name)
        if "file" not in block:
            made = tasks.make_prompts(tasks.Task.from_config(name, block | small))
            assert made and all(row["text"] and row["answer"] for row in made)
    for name, block in study_settings.generation_prompt_sets(config).items():
        make_set(name, block, config["generation"]["per_text"], 0)
    for name in [*config["models"], *config["tasks"], *config["circuits"]]:
        assert (ROOT / "results" / name / "x").resolve().is_relative_to(ROOT / "results"), name


def places(value, path=()):
    """Every path to a value of the configuration, the inner ones included."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def replaced(path, value):
    config = copy.deepcopy(DEFAULT)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return config


PLACES = [path for path in places(DEFAULT) if not (path[:2] == ("prompts", "fillers") and len(path) > 4)]
ODD_TEXT = ["", " ", ".", "..", "../x", "a/b", "/etc/passwd", "a\n", "a\nb", "\x00", "a\x1b[31m", "\ud800", "x" * 5000]
ODD_TEXT += ["{m.__class__}", "{m!r}", "{m:>10}", "{m", "m}", "{}", "{m} {m}", "{0.real}", "{99999999999}", "${HOME}"]
ODD_TEXT += ["!!python/object/apply:os.system ['touch x']", "nan", "9.1", "m0", "random", "é", "１", "a b"]
ODD_NUMBERS = [math.nan, math.inf, -math.inf, 96.0, 1.5, 0, -1, 1, 10**12, -(10**12), 2**63, 1e308, 5e-324, True, False]
ODD = [None, [], {}, [[]], [None], {"a": {}}, {"m": ["x"]}, {1: 2}, {"": 1}, {"../x": {}}, {"range": [20, 1]}]
ODD += [
    {"range": [1, 10**12]},
    {"range": [1.0, 9]},
    {"position": 99},
    {"random": -1},
    {"random": 0},
    ["a", "a"],
    [1, 1.0],
]
ANYTHING = st.one_of(
    st.sampled_from([*ODD_TEXT, *ODD_NUMBERS, *ODD]),
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.lists(st.one_of(st.text(max_size=3), st.integers(), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=4), st.one_of(st.text(max_size=3), st.integers(), st.none()), max_size=3),
)


def check_config(config) -> str:
    line = refused("config", config, lambda: validated(config))
    if not line:
        is_usable(validated(config))
    return line


@FUZZ
@given(path=st.sampled_from(PLACES), value=ANYTHING)
def test_a_replaced_value_is_refused_in_one_line_or_usable(path, value):
    check_config(replaced(path, value))


@FUZZ
@given(path=st.sampled_from([p for p in PLACES if len(p) < 4]), name=st.one_of(st.sampled_from(ODD_TEXT), st.text()))
def test_an_odd_key_is_refused_in_one_line_or_usable(path, name):
    config = copy.deepcopy(DEFAULT)
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    if isinstance(inner, dict):
        inner[name] = inner.pop(path[-1])
    check_config(config)


@FUZZ
@given(config=ANYTHING)
def test_what_is_no_configuration_at_all_is_refused(config):
    assert check_config(config)


@pytest.mark.parametrize("block", ["models", "tasks", "circuits"])
@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/x", ".", "", "a\n", "-x", "x" * 61, "é", "a b", "a\\b", "~"])
def test_names_that_would_leave_their_folder_are_refused(block, name):
    config = copy.deepcopy(DEFAULT)
    config[block][name] = {"file": "x.json"} if block == "circuits" else next(iter(config[block].values()))
    line = check_config(config)
    assert line.startswith(f"{block}"), line
    assert shown(name) in line or "control character" in line


@pytest.mark.parametrize("name", ["figures", "comparison", "memo", "fixtures", "training"])
def test_models_named_like_folders_of_the_results_are_refused(name):
    config = copy.deepcopy(DEFAULT)
    config["models"][name] = {"path": "x"}
    assert "reserved" in check_config(config)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("prompts", "per_template"), 96.0, "prompts.per_template: 96.0 is of the wrong type; needs integer"),
        (("search", "thresholds"), [math.nan], "search.thresholds.0: nan is of the wrong type; needs number"),
        (("heads", "labels", "copy"), math.inf, "heads.labels.copy: inf"),
        (("prompts", "per_template"), 10**9, "prompts.per_template: 1000000000 is out of range"),
        (("generation", "own"), {"months": ["1.2"]}, "generation.own.months: the study has a head set of this name"),
        (("search", "orders"), [{"gates": 2**32}], "search.orders.0.gates: 4294967296 is out of range"),
        (("search", "orders"), [{"random": 10**20}], "search.orders.0.random: 100000000000000000000 is out of range"),
        (("stability", "corruptions"), ["permute", "permute"], "stability.corruptions: ['permute', 'permute'] has an"),
        (("stability", "templates"), [["{name} is {m}."], ["{name} is {m}."]], "has an entry twice"),
        (("tasks", "numerals", "members"), {"range": [1, 10**12]}, "tasks.numerals.members.range.1: 1000000000000"),
        (("tasks", "numerals", "members"), {"range": [1, 50000]}, "50000 members are too many"),
        (("tasks", "numerals", "members"), {"range": [20, 1]}, "0 members are too few"),
        (("tasks", "days", "members"), ["a", " b", "c", "d", "e", "f"], "' b' is empty or has a space at its edge"),
        (("prompts", "templates"), ["{object} {m!r}"], "without ! or :"),
        (("prompts", "templates"), ["{object} {m"], "expected '}'"),
        (("prompts", "templates"), ["{object.x} {m}"], "no fillers of kind 'object.x'"),
        (
            ("stability", "corruptions"),
            [{"position": 9}],
            "stability.corruptions.0: tasks.numerals.corruption.position: 9",
        ),
        (
            ("heads", "patching_corruption"),
            {"position": 9},
            "heads.patching_corruption: tasks.numerals.corruption.position: 9",
        ),
        (("stability", "templates"), [["{m"]], "stability.templates.0: template '{m'"),
        (("generation", "prompts", "x"), {"members": ["a", "b"], "texts": [["{0", "b"]]}, "generation.prompts.x: '{0'"),
        (("generation", "prompts", "x"), {"members": ["a", "b"], "texts": [["{0!r}", "b"]]}, "not a number of steps"),
        (("figures", "clean"), "no such colour", "figures.clean: 'no such colour'"),
        (("figures", "sequential"), "jet2", "figures.sequential: 'jet2'"),
        (("study", "title"), "a\x1b[31m", "study.title: 'a\\x1b[31m' holds the control character"),
        (("published",), "../../etc", "published: '../../etc' is unknown"),
        (("study", "transfer_tasks"), ["Numerals"], "'Numerals' is unknown"),
    ],
)
def test_bugs_that_were_found_stay_mended(path, value, said):
    assert said in check_config(replaced(path, value))


def test_names_that_differ_in_case_only_are_refused():
    config = copy.deepcopy(DEFAULT)
    config["tasks"]["Days"] = config["tasks"]["days"]
    config["study"]["transfer_tasks"].append("Days")
    assert "but for its case" in check_config(config)


def test_every_colour_map_that_is_allowed_exists():
    import matplotlib
    from matplotlib.colors import to_rgb

    pattern = SCHEMA["$defs"]["colour_map"]["pattern"]
    for name in pattern[2 : pattern.index(")")].split("|"):
        assert name in matplotlib.colormaps and f"{name}_r" in matplotlib.colormaps
    pattern = SCHEMA["$defs"]["colour"]["pattern"]
    for name in pattern[pattern.index("|") + 1 : pattern.index(")")].split("|"):
        to_rgb(name)


# ---- prompt files --------------------------------------------------------------------------------------------
GOOD = {
    "text": ["Hat in 1. Key in 2. Map in", "Map in 4. Hat in 5. Key in"],
    "answer": ["3", "6"],
    "incorrect": ["2", "5"],
    "corrupted_text": ["Hat in 7. Key in 1. Map in", "Map in 9. Hat in 6. Key in"],
}


def check_prompts(folder, file, case) -> str:
    """Refused, or prompts that are text and encode on the shipped tokenizer (or are all rejected, in one line)."""

    def use():
        rows = prompts_from_file("t", file, folder)
        assert all(isinstance(row[key], str) and row[key] for row in rows for key in ("text", "answer", "incorrect"))
        assert not any(row[key] in ("nan", "None") for row in rows for key in GOOD)
        tokens.encode_prompts(rows, load_tokenizer("shipped"), False, "t")

    return refused("prompts", case, use)


class Bomb:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@FUZZ
@given(content=st.binary(max_size=200), kind=st.sampled_from(["csv", "tsv", "json", "jsonl", "parquet"]))
def test_random_bytes_are_no_prompts(tmp_path_factory, content, kind):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / f"p.{kind}").write_bytes(content)
    assert check_prompts(folder, {"clean": f"p.{kind}"}, (content, kind)).startswith("tasks.t")


CELLS = st.one_of(
    st.none(), st.just(math.nan), st.text(max_size=6), st.integers(-9, 9), st.just(["a"]), st.binary(max_size=3)
)


@FUZZ
@given(
    column=st.sampled_from(sorted(GOOD)), row=st.integers(0, 1), cell=CELLS, kind=st.sampled_from(["csv", "parquet"])
)
def test_a_bad_cell_is_named_or_the_prompts_are_usable(tmp_path_factory, column, row, cell, kind):
    folder, frame = tmp_path_factory.mktemp("cells"), pd.DataFrame(copy.deepcopy(GOOD), dtype=object)
    frame.at[row, column] = cell
    path = folder / f"p.{kind}"
    try:
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    except Exception:  # a frame that no file can hold is no case
        return
    check_prompts(folder, {"clean": path.name}, (column, row, repr(cell), kind))


@pytest.mark.parametrize(
    "select",
    [
        "@__import__('os').system('touch canary')",
        "__import__('os').system('touch canary')",
        "text.str.len() > 2",
        "text.map(print)",
        "text[0] == 'a'",
        "(lambda: 1)()",
        "9**9**9 > row",
        "'a' * 999999999 == text",
        "'%0999999999d' % row == text",
        "row < ",
        "row == 1; import os",
        "[x for x in row]",
        "`x`.y",
        "f'{row}' == 'a'",
        "row := 1",
        "not_a_column > 1",
        "\n",
        'text == "`" or @Path("canary").touch() or text == "`"',
        'text == "`" or text.to_csv("canary") or text == "`"',
        "text == '`' or text.to_csv('canary') or text == '`'",
        "row",
        "row + 1",
        "text + 'a' == 'b'",
        "row == 0 | row == 1",
        "1 == 1",
        "row in text",
        "True",
        "(" * 500 + "row" + ")" * 500,
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_selection_that_is_more_than_comparisons_is_refused(tmp_path, monkeypatch, select, kind):
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(GOOD | {"row": [0, 1]})
    frame.to_csv("p.csv", index=False) if kind == "csv" else frame.to_parquet("p.parquet")
    line = check_prompts(tmp_path, {"clean": f"p.{kind}", "select": select}, (select, kind))
    assert line.startswith("tasks.t.file.select")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "select",
    [
        "row < 1",
        "row in [0, 5]",
        "answer == '3' and not row > 4",
        "(`a b` == 'x') | (row == 0)",
        "0 <= row < 1",
        "row % 2 == 0",
        "row == -1 + 1",
        "text != '`'  and row == 0",
    ],
)
def test_comparisons_select(tmp_path, select):
    pd.DataFrame(GOOD | {"row": [0, 1], "a b": ["y", "z"]}).to_parquet(tmp_path / "p.parquet")
    (row,) = prompts_from_file("t", {"clean": "p.parquet", "select": select}, tmp_path)
    assert row["answer"] == "3"


def test_other_bad_prompt_files(tmp_path):
    frame, canary = pd.DataFrame(GOOD), tmp_path / "canary"
    (tmp_path / "pickle.parquet").write_bytes(pickle.dumps(Bomb(canary)))
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "header.csv").write_text(",".join(GOOD) + "\n")
    (tmp_path / "ragged.csv").write_text("text,answer,incorrect,corrupted_text\na,b\n1,2,3,4,5,6\n")
    (tmp_path / "latin.csv").write_bytes("text,answer,incorrect,corrupted_text\nHäuser,b,c,d\n".encode("latin-1"))
    (tmp_path / "nul.csv").write_bytes(b"text,answer,incorrect,corrupted_text\n\x00,\x00,\x00,\x00\n")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "text.txt").write_text("a")
    frame.to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-20])
    frame.iloc[:1].to_csv(tmp_path / "one.csv", index=False)
    frame.to_csv(tmp_path / "good.csv", index=False)
    cases = [{"clean": f.name} for f in tmp_path.iterdir() if f.name not in ("good.csv", "one.csv", "whole.parquet")]
    cases += [{"clean": "nowhere.csv"}, {"clean": "good.csv", "corrupted": "one.csv"}]
    cases += [
        {"clean": "good.csv", "columns": {"answer": "nowhere"}},
        {"clean": "good.csv", "columns": {"text": "answer"}},
    ]
    for case in cases:
        line = check_prompts(tmp_path, case, case)
        assert line.startswith("tasks.t"), (case, line)
    assert not canary.exists()


# ---- model folders -------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A GPT-2 of one layer of two heads with the shipped tokenizer; saved once, copied for each case."""
    from transformers import AutoModelForCausalLM, GPT2Config

    folder = tmp_path_factory.mktemp("tiny")
    words = len(load_tokenizer("shipped"))
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=32, vocab_size=words, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in SHIPPED.glob("tokenizer*"):
        shutil.copy(file, folder)
    checks.check("tiny", folder)
    return folder


def check_model(folder, case) -> str:
    """Refused, or a model whose logits are finite."""

    def use():
        found = source.resolve("tiny", {"path": str(folder)}, ROOT)
        checks.check("tiny", found)
        description = source.describe("tiny", found)
        model = models.load(found, device="cpu", settings=description["settings"])
        logits = model.run(torch.arange(1, 6).view(1, 5))
        assert logits.isfinite().all() and logits.shape[-1] == description["d_vocab"]

    return refused("model", case, use)


CONFIG_KEYS = ["n_layer", "n_head", "n_embd", "vocab_size", "n_positions", "model_type", "architectures", "n_inner"]
CONFIG_KEYS += [
    "activation_function",
    "layer_norm_epsilon",
    "tie_word_embeddings",
    "auto_map",
    "dtype",
    "scale_attn_weights",
]
CONFIG_VALUES = [None, 0, -1, 2, 3, 10**9, 10**30, 1.5, "x", "", [], {}, ["x"], True, "gpt2", "llama", math.nan]
CONFIG_VALUES += [{"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "relu", "../x"]


@settings(FUZZ, max_examples=100)
@given(key=st.sampled_from(CONFIG_KEYS), value=st.sampled_from(CONFIG_VALUES))
def test_an_odd_model_configuration_is_refused_in_one_line_or_usable(tiny, tmp_path_factory, key, value):
    folder = tmp_path_factory.mktemp("model") / "m"
    shutil.copytree(tiny, folder)
    canary = folder / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {key: value}))
    line = check_model(folder, (key, value))
    assert not line or line.startswith(("models.tiny", "models:", "tokenizer of")), line
    assert not canary.exists()


@settings(FUZZ, max_examples=40)
@given(
    name=st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]),
    data=st.data(),
)
def test_damaged_files_of_a_model_are_refused_in_one_line_or_usable(tiny, tmp_path_factory, name, data):
    """Cut short, emptied, one byte changed, or replaced by random bytes."""
    folder = tmp_path_factory.mktemp("model") / "m"
    shutil.copytree(tiny, folder)
    content = bytearray((folder / name).read_bytes())
    match data.draw(st.sampled_from(["cut", "byte", "random"])):
        case "cut":
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        case "byte":
            place = data.draw(st.integers(0, min(len(content), 400) - 1))  # within the header, for the weights
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        case "random":
            content = data.draw(st.binary(max_size=100))
    (folder / name).write_bytes(content)
    check_model(folder, (name, bytes(content[:400])))


def changed_weights(tiny, folder, change):
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


QKV = "transformer.h.0.attn.c_attn.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(QKV), f"lack '{QKV}'"),
        (lambda w: w.update({QKV: w[QKV].T.contiguous()}), f"{QKV} is (24, 8), config.json says (8, 24)"),
        (lambda w: w.update({QKV: w[QKV].fill_(math.nan)}), f"{QKV} in"),
        (lambda w: w.update({QKV: w[QKV].fill_(math.inf)}), "is not finite"),
        (lambda w: w.update({QKV: w[QKV].to(torch.int8)}), "torch.int8"),
        (
            lambda w: w.update({"transformer.h.1.ln_1.weight": torch.ones(8)}),
            "which GPT2LMHeadModel of this config.json does not have",
        ),
        (
            lambda w: w.update({"transformer.wte.weight": w["transformer.wte.weight"][:9].clone()}),
            "wte.weight is (9, 8)",
        ),
        (lambda w: w.clear(), "holds no tensors"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(tiny, tmp_path, change, said):
    changed_weights(tiny, tmp_path / "m", change)
    assert said in check_model(tmp_path / "m", said)


def test_other_bad_model_folders(tiny, tmp_path):
    canary = tmp_path / "canary"

    def copy_of(name, keep=True):
        shutil.copytree(tiny, tmp_path / name)
        if not keep:
            (tmp_path / name / "model.safetensors").unlink()
        return tmp_path / name

    torch.save({QKV: Bomb(canary)}, copy_of("pickle", keep=False) / "pytorch_model.bin")
    (copy_of("raw pickle", keep=False) / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(canary)))
    index = {"outside": "../pickle/x.safetensors", "missing": "model-1.safetensors", "absolute": "/etc/passwd"}
    for name, file in index.items():
        folder = copy_of(name, keep=False)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {QKV: file}}))
        (folder / "other.safetensors").write_bytes(b"")
    for name, text in {"no map": "{}", "no json": "{", "a list": "[]"}.items():
        folder = copy_of(name, keep=False)
        (folder / "model.safetensors.index.json").write_text(text)
        (folder / "other.safetensors").write_bytes(b"")
    folder = copy_of("own tokenizer code")
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "tokenizer.json").unlink()
    for file in ("tokenizer.json", "config.json", "model.safetensors"):
        (copy_of(f"without {file}") / file).unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    big = copy_of("too many words")
    added = json.loads((big / "tokenizer.json").read_text())
    added["added_tokens"] = [
        *added.get("added_tokens", []),
        {
            "id": 99999,
            "content": "<x>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        },
    ]
    (big / "tokenizer.json").write_text(json.dumps(added))
    for folder in sorted(tmp_path.iterdir()):
        line = check_model(folder, folder.name)
        assert line.startswith(("models.tiny", "models:", "tokenizer of")), (folder.name, line)
    assert not canary.exists()


# ---- circuits ------------------------------------------------------------------------------------------------
@FUZZ
@given(
    content=st.one_of(st.binary(max_size=60), ANYTHING, st.fixed_dictionaries({"heads": ANYTHING, "mlps": ANYTHING}))
)
def test_an_odd_circuit_is_refused_in_one_line_or_usable(tmp_path_factory, content):
    from atlas.compare.interchange import read_circuit
    from atlas.core.graph import Graph

    path, graph = tmp_path_factory.mktemp("circuit") / "c.json", Graph(2, 2, 2)
    try:
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(json.dumps(content))
    except (TypeError, ValueError):  # what JSON cannot hold is no case
        return
    try:
        circuit = read_circuit(path, graph)
    except StudyError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert circuit <= graph.all_edges or all(c.layer < 2 for c in circuit)


# ---- how many ------------------------------------------------------------------------------------------------
def test_two_hundred_distinct_bad_inputs_were_refused():
    """Runs last: distinct inputs that were refused above, of each kind."""
    counts = {kind: len(cases) for kind, cases in REFUSED.items()}
    print(counts)
    assert sum(counts.values()) >= 200 and min(counts.values()) >= 30, counts
