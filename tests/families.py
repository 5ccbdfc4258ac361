"""Tiny random models of the families of docs/architectures.md, hooks on their own modules, and whole studies."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from atlas.core.components import Component
from atlas.heads import analyses
from atlas.prompts.tokens import load_tokenizer
from study import Study

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ROOT / "resources" / "models" / "ladder-6x8"
LAYERS, HEADS, WIDTH, WORDS, POSITIONS = 2, 4, 32, 1189, 128

QWEN2_WORDS = 3000  # its tokenizer is trained on the words of the shipped one, at the start of a text and after a space

COMMON = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GROUPED = COMMON | {"num_key_value_heads": 2, "head_dim": WIDTH // HEADS}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
N_NAMES = COMMON | {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS, "n_ctx": POSITIONS}
FAMILIES = {
    "gpt2": N_NAMES,
    "openai-gpt": N_NAMES,
    "gptj": N_NAMES | {"rotary_dim": 4},
    "codegen": N_NAMES | {"rotary_dim": 4},
    "gpt_bigcode": N_NAMES,
    "gpt_neo": COMMON | {"num_layers": LAYERS, "num_heads": HEADS, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": COMMON,
    "opt": COMMON | {"ffn_dim": 64, "word_embed_proj_dim": WIDTH},
    "xglm": COMMON | {"d_model": WIDTH, "num_layers": LAYERS, "attention_heads": HEADS, "ffn_dim": 64},
    "bloom": N_NAMES,
    "mpt": COMMON | {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": POSITIONS},
    "falcon": COMMON | {"num_kv_heads": 1},
    "llama": GROUPED,
    "mistral": GROUPED,
    "mixtral": GROUPED | EXPERTS | {"num_local_experts": 4},
    "qwen2": GROUPED | {"vocab_size": QWEN2_WORDS},
    "qwen2_moe": GROUPED | EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 32},
    "qwen3": GROUPED,
    "qwen3_moe": GROUPED | EXPERTS | {"num_experts": 4},
    "gemma": GROUPED,
    "gemma2": GROUPED,
    "gemma3_text": GROUPED,
    "phi": COMMON,
    "phi3": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmoe": GROUPED | {"num_experts": 4, "num_experts_per_tok": 2},
    "cohere": GROUPED,
    "granite": GROUPED,
    "glm": GROUPED,
    "glm4": GROUPED,
    "nemotron": GROUPED,
    "smollm3": GROUPED,
    "mamba": COMMON,
}
GEMMA3_ROPES = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
}
# Options that `atlas.model.block` has a place for, of the families that have a file in atlas/model/families
HONOURED = {
    "gpt2": [
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"activation_function": "tanh"},
    ],
    "gpt_neox": [{"attention_bias": False}, {"use_parallel_residual": False}],
    "llama": [{"mlp_bias": True}, {"attention_bias": True}, {"hidden_act": "quick_gelu"}, {"num_key_value_heads": 1}],
    "qwen3": [
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "attention_bias": True},
        {"head_dim": 16, "num_key_value_heads": 1},
    ],
    "gemma": [{"attention_bias": True, "tie_word_embeddings": False}, {"head_dim": 16, "num_key_value_heads": 1}],
    "gemma2": [
        {"sliding_window": 4, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "attention_bias": True},
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 24},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 3, "hidden_activation": "relu"},
    ],
    "gemma3_text": [
        {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "attention_bias": True},
        {"query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"rope_parameters": GEMMA3_ROPES, "layer_types": ["sliding_attention", "full_attention"]},
    ],
    "olmo2": [{"attention_bias": True}, {"num_key_value_heads": 1, "tie_word_embeddings": True}],
}
ATTENTION = ("attn", "self_attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
# Families whose MLP is no module of its own, or adds the residual itself: the linear map that writes
WRITE = {"opt": "fc2", "xglm": "fc2", "bloom": "dense_4h_to_h", "mpt": "down_proj"}
OUTPUT = ("o_proj", "c_proj", "out_proj", "dense", "wo")


def build(family: str, folder: Path, **options):
    """Save a tiny random model of a family, ``options`` of its configuration changed, and return it."""
    config = transformers.AutoConfig.for_model(family, **(FAMILIES[family] | options))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    return _saved(model, folder)


def save(kind: type, folder: Path):
    """Save a tiny random model of any class of transformers, and return it."""
    torch.manual_seed(0)
    own = FAMILIES.get(kind.config_class.model_type, COMMON)
    names = (
        COMMON
        | {"vocab_size": own["vocab_size"]}
        | {"num_key_value_heads": 2, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
    )
    names |= {"d_model": WIDTH, "num_layers": LAYERS, "num_heads": HEADS, "rotary_dim": 4, "head_dim": WIDTH // HEADS}
    known = set(vars(kind.config_class())) | set(kind.config_class.attribute_map)
    config = kind.config_class(**{key: value for key, value in names.items() if key in known})
    return _saved(kind(config).eval(), folder)


def _saved(model, folder: Path):
    perturb(model)
    model.save_pretrained(folder)
    for file in TOKENIZER.glob("tokenizer*"):
        shutil.copyfile(file, folder / file.name)
    suit_tokenizer(folder)
    return model


def suit_tokenizer(folder: Path) -> None:
    """Train the tokenizer anew on the shipped one's words, where a family splits text by its own rule (Qwen 2)."""
    shipped, own = load_tokenizer(str(TOKENIZER)), load_tokenizer(str(folder))
    if type(own) is type(shipped):
        return
    words = [shipped.decode([i]).strip() for i in range(len(shipped))]
    texts = [[word, f" {word}"] * 50 for word in words if word.isalpha()]
    own.train_new_from_iterator(texts, QWEN2_WORDS).save_pretrained(folder)


def perturb(model) -> None:
    """Draw matrices so large that heads, MLPs and early tokens matter; move norms and biases from 1 and 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.3 * noise if parameter.dim() == 1 else 0.4 * noise)


def first_layer(model):
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == LAYERS]
    return lists[0][0]


def submodule(module, names):
    """The module of one of these names, at any depth; the shallowest first."""
    found = [(path.count("."), m) for path, m in module.named_modules() if path.rpartition(".")[2] in names]
    return min(found, key=lambda pair: pair[0])[1] if found else None


def zeroed(model, tokens, component: Component):
    """Logits of the Hugging Face model with a head of layer 0, or its MLP, set to zero by hooks on its own modules."""
    layer = first_layer(model)
    if component.is_mlp:
        module = submodule(layer, (WRITE[family],) if (family := model.config.model_type) in WRITE else MLP)

        def hook(module, inputs, output):
            return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)

        handle = module.register_forward_hook(hook)
    else:
        module = submodule(submodule(layer, ATTENTION), OUTPUT)

        def pre_hook(module, inputs):
            z = inputs[0].clone()
            z.view(*z.shape[:-1], HEADS, -1)[..., component.head, :] = 0
            return (z, *inputs[1:])

        handle = module.register_forward_pre_hook(pre_hook)
    with torch.no_grad():
        out = model(tokens).logits[:, -1]
    handle.remove()
    return out


# ---- a whole study of one model -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Outcome:
    """How far studies of a family came. ``refused``: the line that ends one which wants everything, at its start."""

    ran: tuple[str, ...] = ()  # analyses of the study that ran to its report, edges first
    refused: str = ""
    problem: str = ""  # where a study ended otherwise


def small_study(folder: Path, model: Path, heads: list[str], edges: bool) -> Study:
    """The workflow with every stage on as little as it allows: one task, one search, one round of everything."""
    made = Study(folder)
    config = made.config
    config["models"]["ladder-6x8"]["path"] = str(model)
    config["study"] |= {"title": "A tiny random model", "tasks": ["number_words"], "transfer_tasks": []}
    config["prompts"] |= {"templates": ["{object} found in {m}."], "per_template": 1, "held_out_share": 0}
    config["prompts"]["allow_negative_clean"] = True
    config["search"] |= {"thresholds": [20], "orders": ["bisect"], "never_test": ["0.0", "m0"]}
    config["comparison"]["order"] = "bisect"
    config["evaluation"] = {"completeness": 1, "positions": {"start_threshold": 20, "threshold": 20}}
    config["edges"] |= {"methods": ["path_patching", "iterative_edges"] if edges else [], "threshold": 20}
    config["edges"] |= {"path_patching": "start", "sizes": [0.1, 1], "random_draws": 1}
    config["stability"]["edges"] = None
    config["heads"] |= {"analyses": heads, "patching_prompts": 2, "detectors": {"length": 10, "sequences": 2}}
    config["generation"] |= {"per_text": 1, "prompts": {"sequence": config["generation"]["prompts"]["sequence"]}}
    config["statistics"]["bootstrap"] = 100
    config["figures"]["dpi"] = 50
    made.write_config(config)
    return made


def snakemake(study: Study) -> bool:
    """Run a study to its report; whether it came there."""
    return study.snakemake(check=False).returncode == 0


def attempt(family: str, folder: Path, run: Callable[[Study], bool] = snakemake) -> Outcome:
    """A study that wants everything, and where that is refused at its start, one of what the refusal leaves."""
    build(family, folder / "model")
    heads, edges, refused = list(analyses.HEADS), True, ""
    for number in range(2):
        made = small_study(folder / f"study{number}", folder / "model", heads, edges)
        if run(made):
            page = made.folder / "results" / "figures" / "ladder-6x8" / "ladder-6x8.summary.html"
            assert page.is_file(), "a finished study has its summary"
            return Outcome((*(("edges",) if edges else ()), *heads), refused)
        line = last_error(made.folder)
        if refused or list(made.folder.rglob("circuits.json")):
            return Outcome((), refused, line)
        refused = line
        remedy = re.search(r"heads\.analyses: \[(.*?)\]", line)
        if not remedy and "edges.methods: []" not in line:
            break
        heads = remedy[1].split(", ") if remedy else heads
        edges = "edges.methods: []" not in line
    return Outcome((), refused)


def last_error(folder: Path) -> str:
    """The one line with which a study's failed job ended, without the path of its model."""
    logs = sorted((folder / "logs").rglob("*.log"), key=lambda file: file.stat().st_mtime)
    lines = [line for file in logs for line in file.read_text().splitlines() if " error" in line]
    line = lines[-1].partition("error: ")[2] or lines[-1] if lines else "no log says why"
    return re.sub(r" (in|for) /\S+", "", line)
