"""A model is what transformers says it is, or it is refused: single options of a config, files of other classes.

The oracle is the transformers model itself, held in memory as it was saved, and hooks on its own modules.
"""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import families
from atlas.core.errors import StudyError
from atlas.heads import analyses
from atlas.heads.attribution import Readout, read_stream
from atlas.model import checks, models, reference, source
from conftest import slow_but

TOLERANCE = 1e-4  # of the largest logit, in float32: two orders of the same sums differ by 1e-6


def checked(folder, dtype="float32") -> dict:
    """What the first job of a study does with a model."""
    checks.check("m", folder)
    return reference.compare("m", folder, "cpu", dtype)


def refusal(folder, dtype="float32") -> str:
    with pytest.raises(StudyError) as refused:
        checked(folder, dtype)
    line = str(refused.value)
    assert line.startswith("models.m") and "\n" not in line, line
    return line


def same_logits(folder, original) -> bool:
    """Ours against those of the model that was saved, on texts of several lengths, beyond windows too."""
    model = models.load(folder, device="cpu")
    for length in (1, 9, families.POSITIONS):
        tokens = torch.randint(3, families.WORDS, (2, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            wanted = original(tokens).logits[:, -1]
        if not (model.run(tokens) - wanted).abs().max() <= TOLERANCE * wanted.abs().max():
            return False
    return True


# ---- single options ------------------------------------------------------------------------------------------
def shared_options() -> dict:
    """Options that most families have: name -> other values than the default."""
    return {
        "hidden_act": ["relu", "gelu", "silu", "gelu_new", "quick_gelu", "relu2"],
        "tie_word_embeddings": [True, False],
        "attention_bias": [True, False],
        "mlp_bias": [True],
        "rms_norm_eps": [0.1],
        "layer_norm_eps": [0.1],
        "num_key_value_heads": [1, 4],
        "head_dim": [4, 16],
        "rope_parameters": ROPES,
        "intermediate_size": [48],
        "sliding_window": [8],
        "initializer_range": [0.1],
        "attention_dropout": [0.5],
    }


ROPES = [
    {"rope_type": "default", "rope_theta": 100.0},
    {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32},
    {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
]
OPTIONS = {
    "gpt2": {
        "activation_function": ["relu", "gelu", "silu", "tanh", "quick_gelu"],
        "scale_attn_weights": [False],
        "scale_attn_by_inverse_layer_idx": [True],
        "reorder_and_upcast_attn": [True],
        "add_cross_attention": [True],
        "n_inner": [48],
        "layer_norm_epsilon": [0.1],
        "tie_word_embeddings": [False],
        "attn_pdrop": [0.5],
    },
    "gpt_neox": {
        "use_parallel_residual": [False],
        "attention_bias": [False],
        "tie_word_embeddings": [True],
        "hidden_act": ["relu", "gelu_new", "gelu_fast"],
        "layer_norm_eps": [0.1],
        "rope_parameters": [
            {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 1.0},
            {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0, "partial_rotary_factor": 0.25},
            {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "partial_rotary_factor": 0.25},
        ],
        "intermediate_size": [48],
        "hidden_dropout": [0.5],
    },
    "llama": {**shared_options(), "pretraining_tp": [2]},
    "mistral": {k: shared_options()[k] for k in ("hidden_act", "num_key_value_heads", "sliding_window", "head_dim")},
    "qwen2": {"use_sliding_window": [True], "tie_word_embeddings": [True], "rope_parameters": ROPES[1:3]},
    "gemma2": {
        "attn_logit_softcapping": [None, 5.0],
        "final_logit_softcapping": [None, 2.0],
        "query_pre_attn_scalar": [64],
        "sliding_window": [8],
        "tie_word_embeddings": [False],
        "hidden_activation": ["relu"],
    },
    "gemma": {"hidden_act": ["gelu", "relu"], "head_dim": [4, 16], "use_bidirectional_attention": [True]},
    "gemma3_text": {
        "layer_types": [["sliding_attention", "sliding_attention"], ["full_attention", "chunked_attention"]],
        "sliding_window": [8],
        "rope_parameters": [{"full_attention": rope, "sliding_attention": ROPES[0]} for rope in ROPES[1:]],
        "query_pre_attn_scalar": [64],
        "attn_logit_softcapping": [5.0],
        "final_logit_softcapping": [2.0],
        "use_bidirectional_attention": [True],
    },
    "qwen3": {
        **{k: shared_options()[k] for k in ("attention_bias", "head_dim", "rope_parameters", "rms_norm_eps")},
        "layer_types": [["sliding_attention", "full_attention"], ["full_attention", "full_attention"]],
    },
    "olmo2": {
        **{
            k: shared_options()[k] for k in ("attention_bias", "rope_parameters", "rms_norm_eps", "num_key_value_heads")
        },
        "sliding_window": [8],
    },
    "gptj": {"rotary_dim": [8, 2], "activation_function": ["relu"], "tie_word_embeddings": [True]},
    "gpt_neo": {"window_size": [8], "activation_function": ["relu"], "attention_types": [[[["local"], 2]]]},
    "opt": {
        "do_layer_norm_before": [False],
        "word_embed_proj_dim": [16],
        "enable_bias": [False],
        "layer_norm_elementwise_affine": [False],
        "activation_function": ["gelu"],
    },
    "bloom": {"apply_residual_connection_post_layernorm": [True], "slow_but_exact": [True]},
    "falcon": {
        "alibi": [True],
        "parallel_attn": [False],
        "new_decoder_architecture": [True],
        "multi_query": [False],
        "bias": [True],
    },
    "mpt": {"no_bias": [False], "expansion_ratio": [2], "logit_scale": [0.5]},
    "stablelm": {"use_parallel_residual": [True], "use_qkv_bias": [True], "qk_layernorm": [True]},
    "cohere": {"logit_scale": [1.0], "use_qk_norm": [True]},
    "granite": {
        "embedding_multiplier": [3.0],
        "logits_scaling": [4.0],
        "residual_multiplier": [0.5],
        "attention_multiplier": [0.1],
    },
    "olmo": {"clip_qkv": [0.5]},
    "phi": {"qk_layernorm": [True], "rope_parameters": [{**ROPES[0], "partial_rotary_factor": 0.25}]},
}
CASES = [
    (family, key, value) for family, options in OPTIONS.items() for key, values in options.items() for value in values
]


@pytest.mark.parametrize(("family", "key", "value"), CASES, ids=lambda x: str(x).replace(" ", "")[:40])
@pytest.mark.slow
def test_one_option_changed_gives_the_same_logits_or_one_line(tmp_path, family, key, value):
    try:
        original = families.build(family, tmp_path, **{key: value})
    except Exception as error:
        pytest.skip(f"transformers itself refuses it: {type(error).__name__}")
    try:
        checked(tmp_path)
    except StudyError as error:
        assert str(error).startswith("models.m") and "\n" not in str(error)
    else:
        assert same_logits(tmp_path, original)


HONOURED = [(family, options) for family, listed in families.HONOURED.items() for options in listed]


@pytest.mark.parametrize(("family", "options"), HONOURED, ids=str)
@pytest.mark.slow
def test_options_that_the_engine_honours_are_not_refused(tmp_path, family, options):
    original = families.build(family, tmp_path, **options)
    checked(tmp_path)
    assert models.load(tmp_path, device="cpu").weights is not None and same_logits(tmp_path, original)


def test_a_forward_pass_that_ignores_an_option_is_refused_by_its_number(tmp_path, monkeypatch):
    """The bridge does not honour unscaled scores, and is what would run had the engine not."""
    families.build("gpt2", tmp_path, scale_attn_weights=False)
    monkeypatch.setattr("atlas.model.families.reader_of", lambda model_type: None)
    assert "gives other logits than transformers" in refusal(tmp_path)


SHORT_OF = ["gpt2", "llama", "qwen3", "gemma2", "gemma3_text", "olmo2"]


@pytest.mark.parametrize("dtype", slow_but(["bfloat16", "float16"], "bfloat16"))
@pytest.mark.parametrize("family", slow_but(SHORT_OF, "gpt2", "gemma3_text"))
def test_short_dtypes_stay_far_within_their_tolerance(tmp_path, monkeypatch, family, dtype):
    families.build(family, tmp_path)
    monkeypatch.setitem(reference.TOLERANCES, dtype, reference.TOLERANCES[dtype] / 2)
    assert checked(tmp_path, dtype)["dtypes"] == ["float32", dtype]


def test_a_model_that_is_too_large_is_not_run_and_that_is_said(tmp_path, monkeypatch):
    families.build("llama", tmp_path)
    monkeypatch.setattr(reference, "free_bytes", lambda device: 1000)
    found = checked(tmp_path)
    assert found["dtypes"] == [] and "more than half of the free memory" in found["skipped"]


def test_of_a_large_vocabulary_some_positions_are_compared(tmp_path, monkeypatch):
    """The first and the last among them; a model that is wrong, or looks ahead, is still refused."""
    families.build("gemma3_text", tmp_path, final_logit_softcapping=2.0)
    whole = reference.compared_positions(torch.zeros(2, 128), families.WORDS)
    assert whole.equal(torch.arange(128))
    monkeypatch.setattr(reference, "MOST", 10 * 2 * families.WORDS)
    some = reference.compared_positions(torch.zeros(2, 128), families.WORDS)
    assert len(some) == 10 and some[0] == 0 and some[-1] == 127 and some.diff().min() >= 14
    assert checked(tmp_path)["dtypes"] == ["float32"]
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"use_bidirectional_attention": True}))
    assert "looks at later tokens" in refusal(tmp_path)
    families.build("llama", tmp_path / "other")
    monkeypatch.setattr("atlas.model.block.Weights.shown", lambda self, logits: logits * 1.01)
    assert "gives other logits than transformers" in refusal(tmp_path / "other")


# ---- files of another class ----------------------------------------------------------------------------------
BASE = ["LlamaModel", "MistralModel", "Qwen2Model", "GPTNeoXModel", "Phi3Model", "GPTJModel"]
OTHERS = ["LlamaForSequenceClassification", "Qwen2ForTokenClassification", "MistralForQuestionAnswering"]
OTHERS += ["GPTNeoXForTokenClassification"]


@pytest.mark.parametrize("name", [*BASE, *OTHERS])
def test_a_checkpoint_without_the_head_is_refused(tmp_path, name):
    families.save(getattr(transformers, name), tmp_path)
    line = refusal(tmp_path)
    assert "lack 'lm_head." in line and "ForCausalLM" in line


@pytest.mark.parametrize("name", ["GPT2Model", "BloomModel", "GemmaModel"])
def test_a_base_model_whose_head_is_tied_has_all_that_it_needs(tmp_path, name):
    """As gpt2 itself is stored: every tensor of the causal class is there, whatever `architectures` says."""
    families.save(getattr(transformers, name), tmp_path)
    checked(tmp_path)
    whole = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert same_logits(tmp_path, whole)


@pytest.mark.parametrize(
    "name", ["BertForMaskedLM", "T5ForConditionalGeneration", "BartForConditionalGeneration", "ElectraForMaskedLM"]
)
def test_what_is_no_causal_language_model_is_refused(tmp_path, name):
    families.save(getattr(transformers, name), tmp_path)
    assert "causal language model" in refusal(tmp_path)


def changed(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "mixtral"])
def test_missing_superfluous_and_misshapen_tensors_are_refused_in_any_family(tmp_path, family):
    families.build(family, tmp_path / "whole")
    norm = next(name for name in load_file(tmp_path / "whole" / "model.safetensors") if "norm.weight" in name)
    cases = {
        "lack": lambda w: w.pop(norm),
        "have": lambda w: w.update({norm.replace(".0.", ".7."): w[norm].clone()} | {"extra.weight": torch.ones(2)}),
        "config.json says": lambda w: w.update({norm: torch.ones(families.WIDTH + 1)}),
    }
    for said, change in cases.items():
        shutil.copytree(tmp_path / "whole", tmp_path / said)
        changed(tmp_path / said, change)
        assert said in refusal(tmp_path / said)


def test_a_tied_config_over_another_head_is_refused(tmp_path):
    families.build("llama", tmp_path, tie_word_embeddings=True)
    changed(tmp_path, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"] + 1}))
    assert "config.json ties lm_head.weight to model.embed_tokens.weight" in refusal(tmp_path)


def test_an_untied_config_over_tied_files_is_refused(tmp_path):
    families.build("llama", tmp_path, tie_word_embeddings=True)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"tie_word_embeddings": False}))
    assert "lack 'lm_head.weight'" in refusal(tmp_path)


def test_neox_files_hold_the_head_under_its_older_name(tmp_path):
    original = families.build("gpt_neox", tmp_path)
    assert "embed_out.weight" in load_file(tmp_path / "model.safetensors")
    checked(tmp_path)
    assert models.load(tmp_path, device="cpu").weights is not None and same_logits(tmp_path, original)


# ---- facts about the architecture ----------------------------------------------------------------------------
PARALLEL = [("gptj", {}), ("codegen", {}), ("phi", {}), ("cohere", {}), ("falcon", {}), ("gpt_neox", {})]
PARALLEL += [("falcon", {"new_decoder_architecture": True}), ("stablelm", {"use_parallel_residual": True})]
SEQUENTIAL = [("gpt2", {}), ("llama", {}), ("stablelm", {}), ("gpt_neox", {"use_parallel_residual": False})]
SEQUENTIAL += [("falcon", {"parallel_attn": False}), ("gemma", {}), ("mpt", {}), ("gpt_bigcode", {})]


def mlp_reads_attention(original) -> bool:
    """On the modules themselves: does the input of the first MLP change with what the first attention writes?"""
    layer, seen = families.first_layer(original), []
    attention = families.submodule(layer, families.ATTENTION)
    mlp = families.submodule(layer, families.MLP)
    handles = [mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))]
    tokens = torch.arange(3, 12)[None]
    with torch.no_grad():
        original(tokens)

        def shifted(module, inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            moved = first + torch.arange(first.shape[-1]).sin()
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        handles.append(attention.register_forward_hook(shifted))
        original(tokens)
    for handle in handles:
        handle.remove()
    return not torch.allclose(*seen)


@pytest.mark.parametrize(("family", "options"), [*PARALLEL, *SEQUENTIAL], ids=str)
def test_parallel_blocks_are_known(tmp_path, family, options):
    from atlas.core.graph import Edge, Graph

    original = families.build(family, tmp_path, **options)
    described = source.describe("m", tmp_path)
    assert described["parallel_blocks"] == (not mlp_reads_attention(original)) == ((family, options) in PARALLEL)
    assert (Edge("0.1", "m0") in Graph.of(described).all_edges) != described["parallel_blocks"]
    assert described["n_kv_heads"] == models.load(tmp_path, device="cpu").n_kv_heads


def test_a_wrong_fact_is_refused(tmp_path, monkeypatch):
    families.build("gptj", tmp_path)
    monkeypatch.setattr(source, "PARALLEL", ())
    assert "the MLP of a layer does not read what its attention writes" in refusal(tmp_path)


# ---- readings through the final norm -------------------------------------------------------------------------
READ = {
    **{
        family: {} for family in ("gpt2", "llama", "gemma", "gemma3_text", "olmo2", "nemotron", "olmo", "xglm", "bloom")
    },
    "gemma2": {"final_logit_softcapping": 2.0},
    "cohere": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
}


@pytest.mark.parametrize("family", READ)
def test_norm_and_unembedding_of_the_last_residual_are_the_logits(tmp_path, family):
    original = families.build(family, tmp_path, **READ[family])
    model, tokens = models.load(tmp_path, device="cpu"), torch.arange(3, 21).view(2, 9)
    with torch.no_grad():
        wanted = original(tokens).logits[:, -1]
    stream, readout = read_stream(model, tokens), Readout.of(model)
    found = readout.unembed(readout.norm(stream.resid_post))
    assert (found - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


AFTER = ("attribution", "ov", "backup")
SERVED = {
    "gpt2": (),
    "llama": (),
    "gemma": (),
    "qwen3": (),
    "gptj": (),
    "gemma2": (),
    "gemma3_text": (),
    "olmo2": (),
    "glm4": ("edges", *AFTER),
    "openai-gpt": ("edges", "lens", *AFTER),
}


@pytest.mark.parametrize("family", SERVED)
def test_what_a_family_cannot_be_served_is_known_before(tmp_path, family):
    families.build(family, tmp_path)
    tokens = torch.randint(3, families.WORDS, (2, 12), generator=torch.Generator().manual_seed(0))
    found = analyses.reasons(models.load(tmp_path, device="cpu"), tokens)
    assert set(found) == set(SERVED[family])


def test_the_refusal_names_the_lists_to_give():
    reasons = {"edges": "its architecture has no live engine", "ov": "why", "backup": "why"}
    analyses.refuse("m", "X", {"heads.analyses": ["lens"]}, reasons)
    with pytest.raises(StudyError) as refused:
        wanted = {"edges.methods": ["edges"], "heads.analyses": ["patching", "ov", "backup"]}
        analyses.refuse("m", "X", wanted, reasons)
    assert str(refused.value) == (
        "models.m: X cannot be served edges: its architecture has no live engine; ov, backup: why; "
        "set edges.methods: [] and heads.analyses: [patching]"
    )
