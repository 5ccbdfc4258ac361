"""The plain forward pass and the checkpoint reader against TransformerLens and transformers, on random models.

Tolerances are those of `random_models`: rounding alone in float64, and float32's for Llama's norm.
"""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from atlas.core.errors import StudyError
from atlas.model import families, forward, models
from atlas.model.checkpoint import Checkpoint
from atlas.model.norm import NoNorm
from random_models import EVERY, VOCAB, L, S, load_random, save


@pytest.fixture(scope="module", params=EVERY)
def model(request, tmp_path_factory):
    return load_random(request.param, tmp_path_factory.mktemp("forward") / "model")


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(0, VOCAB, (3, S), generator=torch.Generator().manual_seed(1))


def names_of(model) -> list[str]:
    names = [forward.EMBED, *([forward.POSITIONS] if model.weights.w_pos is not None else [])]
    unnormed = (
        {"ln1.hook_out"} if isinstance(model.weights.blocks[0].norm1, NoNorm) else set()
    )  # no norm, no hook of it
    return names + [
        f"blocks.{layer}.{name}" for layer in range(L) for name in forward.OF_BLOCKS if name not in unnormed
    ]


def test_every_hook_sees_what_transformer_lens_sees(model, tokens):
    found, names = {}, names_of(model)

    def keep(name):
        def hook(x, hook):
            assert hook.name == name
            found[name] = x

        return hook

    model.run(tokens, [(name, keep(name)) for name in names])
    _, cache = model.bridge.run_with_cache(tokens, names_filter=names)
    for name in names:
        assert found[name].shape == cache[name].shape, name
        assert (found[name] - cache[name]).abs().max() < model.tolerance, name


def test_a_hook_at_a_layer_that_is_not_there_is_refused(model, tokens):
    """By the plain pass and by the bridge, at the first layer beyond the last."""
    for name in (f"blocks.{L}.hook_mlp_out", f"blocks.{L}.attn.hook_z", f"blocks.{10 * L}.hook_resid_pre"):
        assert forward.knows(name.replace(str(10 * L), str(L - 1)).replace(f".{L}.", f".{L - 1}."), L)
        for on_bridge in (False, True):
            with pytest.raises((ValueError, KeyError), match=re.escape(name)):
                model.run(tokens, [(name, lambda x, hook: x)], on_bridge=on_bridge)


def test_every_edit_does_what_it_does_there(model, tokens):
    """Each activation is replaced by itself with its positions, or the pattern's heads, in reverse order."""
    own = model.run(tokens)
    for name in names_of(model):
        edits = [(name, lambda x, hook: x.flip(1))]
        found, expected = model.run(tokens, edits), model.run(tokens, edits, on_bridge=True)
        assert (found - expected).abs().max() < model.tolerance, name
        assert (found - own).abs().max() > 1e-3, f"{name} changes nothing"


def test_edits_of_one_hook_follow_each_other_and_rows_are_read_where_asked(model, tokens):
    edits = [("blocks.1.hook_mlp_out", lambda x, hook: x * 2), ("blocks.1.hook_mlp_out", lambda x, hook: x + 1)]
    position = torch.tensor([2, 5, 6])
    found, expected = (model.run(tokens, edits, position, on_bridge=there) for there in (False, True))
    assert (found - expected).abs().max() < model.tolerance


def test_a_hook_that_is_not_known_goes_to_transformer_lens(model, tokens):
    seen = []
    model.run(tokens, [("blocks.0.attn.hook_q", lambda x, hook: seen.append(x.shape))])
    assert seen


def test_nothing_of_transformer_lens_is_imported_for_a_plain_run(tmp_path):
    """Its import takes longer than most jobs."""
    import subprocess
    import sys
    from pathlib import Path

    save("llama", tmp_path)
    code = "import sys, torch; from atlas.heads import attention, attribution, ov, patching\n"
    code += "from atlas.edges import engine; from atlas.model import models\n"
    code += f"models.load({str(tmp_path)!r}, device='cpu').run(torch.zeros(1, 3, dtype=torch.long))\n"
    code += "assert 'transformer_lens' not in sys.modules and 'transformers.modeling_utils' not in sys.modules"
    scripts = Path(forward.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(scripts)})


# ---- checkpoints ---------------------------------------------------------------------------------------------
@pytest.fixture
def gpt2(tmp_path):
    save("gpt2", tmp_path / "model")
    return tmp_path / "model"


def logits_of(folder, tokens):
    return models.load(folder, device="cpu").run(tokens)


def test_shards_old_names_and_pickled_tensors_give_the_same(gpt2, tokens, tmp_path):
    expected, tensors = logits_of(gpt2, tokens), load_file(gpt2 / "model.safetensors")
    for way in ("shards", "old names", "bin"):
        folder = tmp_path / way
        shutil.copytree(gpt2, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        match way:
            case "shards":
                halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
                where = {name: f"part-{i}.safetensors" for i, half in enumerate(halves) for name in half}
                for i, half in enumerate(halves):
                    save_file(half, folder / f"part-{i}.safetensors", {"format": "pt"})
                (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
            case "old names":
                old = {name.removeprefix("transformer."): x for name, x in tensors.items()}
                save_file(old, folder / "model.safetensors", {"format": "pt"})
            case "bin":
                torch.save(tensors, folder / "pytorch_model.bin")
        assert torch.equal(logits_of(folder, tokens), expected), way


def test_a_missing_tensor_is_named(gpt2):
    tensors = load_file(gpt2 / "model.safetensors")
    del tensors["transformer.h.1.ln_2.bias"]
    save_file(tensors, gpt2 / "model.safetensors", {"format": "pt"})
    with pytest.raises(StudyError, match=r"lack 'transformer\.h\.1\.ln_2\.bias'"):
        models.load(gpt2, device="cpu")


def test_a_pickle_that_is_more_than_tensors_is_not_run(gpt2):
    (gpt2 / "model.safetensors").unlink()
    torch.save({"x": object()}, gpt2 / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        Checkpoint(gpt2)


@pytest.mark.parametrize("family", ["linear", "llama3"])
def test_scaled_rotary_positions(family, tokens, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": family, "rope_theta": 10000.0, "factor": 2.0}
    if family == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 4}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    config = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=S, rope_parameters=rope, **sizes)
    torch.manual_seed(0)
    network = LlamaForCausalLM(config).eval()
    network.save_pretrained(tmp_path)
    weights = families.weights_of(tmp_path)
    with torch.no_grad():
        expected = network(tokens).logits
        found = weights.unembed(forward.final_residual(weights, tokens))
    assert (found - expected).abs().max() < 1e-5
