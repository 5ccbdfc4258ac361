"""Tiny GGUF files, written the other way round: from models of Hugging Face, by what llama.cpp does to their tensors.

Whatever is known of the format here is written down a second time; of transformers' reading of it nothing is used.
"""

import hashlib
from zipfile import ZipFile

import gguf
import numpy as np
import torch
import transformers

Q, Conf = gguf.GGMLQuantizationType, transformers.AutoConfig
LAYERS, WIDTH = 2, 64
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"intermediate_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "initializer_range": 0.2}
TIED, LOOSE = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
GEMMA = {"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 8} | TIED
# Architecture of GGUF -> model type of transformers and its configuration, heads as files of these families have them
MODELS = {
    "llama": ("llama", LOOSE | {"head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}),
    "qwen2": ("qwen2", TIED),
    "qwen3": ("qwen3", LOOSE | {"head_dim": 128}),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3_text", GEMMA | {"num_hidden_layers": 7}),  # the sixth layer is the first without a window
    "gpt2": (
        "gpt2",
        {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 4, "n_positions": 1024, "layer_norm_epsilon": 1e-5},
    ),
}
MIXED = (Q.Q4_1, Q.Q8_0, Q.Q5_0, Q.F16, Q.Q4_0, Q.BF16, Q.Q5_1)  # of matrices, one after another
FLOAT32 = (Q.F32,)


# ---- tokenizers ----------------------------------------------------------------------------------------------
def byte_letters() -> list[str]:
    """How byte-level BPE writes each byte: itself where it can be seen, else a letter from 256 on."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


def bpe() -> dict[str, list]:
    """Byte-level BPE with a few merges: `Ġ` before letters, pairs of letters, digits that go together, line breaks."""
    letters = byte_letters()
    space, newline = letters[32], letters[10]
    merges = [("a", "n"), ("J", "an"), (space, "Jan"), ("1", "2"), (space, "x"), (newline, newline), (space, space)]
    tokens = ["<|endoftext|>", *letters, *("".join(pair) for pair in merges)]
    types = [gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(tokens) - 1)]
    return {"tokens": tokens, "types": types, "merges": [" ".join(pair) for pair in merges]}


def pieces() -> dict[str, list]:
    """A sentencepiece vocabulary with bytes, letters and a few words."""
    space = "\u2581"
    words = [space, *"abcdefghijklmnopqrstuvwxyzJFM0123456789", "\n", "-", "an", "Jan", f"{space}J", f"{space}Jan"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = gguf.TokenType
    types = [kinds.CONTROL] * 3 + [kinds.UNKNOWN, kinds.CONTROL] + [kinds.BYTE] * 256 + [kinds.NORMAL] * len(words)
    return {"tokens": tokens, "types": types, "scores": [-float(i) for i in range(len(tokens))]}


def add_tokenizer(writer, kind: str, split: str) -> None:
    made = bpe() if kind == "gpt2" else pieces()
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(split if kind == "gpt2" else "default")
    writer.add_token_list(made["tokens"])
    writer.add_token_types(made["types"])
    if kind == "gpt2":
        writer.add_token_merges(made["merges"])
        writer.add_eos_token_id(0)
    else:
        writer.add_token_scores(made["scores"])
        for number, add in enumerate((writer.add_pad_token_id, writer.add_eos_token_id, writer.add_bos_token_id)):
            add(number)
        writer.add_unk_token_id(3)
        writer.add_add_space_prefix(False)
    writer.add_add_bos_token(kind == "llama")


def tokenizer_kind(architecture: str) -> str:
    return "llama" if architecture.startswith("gemma") else "gpt2"


# ---- models --------------------------------------------------------------------------------------------------
def model_of(architecture: str, **changes):
    """A random model of transformers with the vocabulary of its tokenizer; biases and norms are not trivial."""
    kind, own = MODELS[architecture]
    words = len((bpe() if tokenizer_kind(architecture) == "gpt2" else pieces())["tokens"])
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
    sizes = {"initializer_range": 0.2} if architecture == "gpt2" else SIZES
    torch.manual_seed(0)
    config = Conf.for_model(kind, **({"vocab_size": words} | sizes | own | ids | changes))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape)
    return model.eval()


def add_settings(writer, config) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    rope = config.rope_parameters
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    if config.model_type.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def as_llama_cpp(model, name: str, tensor: np.ndarray) -> np.ndarray:
    """A tensor as llama.cpp stores it.

    Llama's rotary positions turn neighbours there, and the two halves of a head here: row 2i of a head is row i, row
    2i + 1 is row i + d/2. Norms of Gemma are stored as 1 + w. GPT-2's matrices stand the other way.
    """
    kind = model.config.model_type
    if kind == "llama" and ("q_proj" in name or "k_proj" in name):
        d = model.config.head_dim
        order = [
            head * d + i + half * d // 2 for head in range(len(tensor) // d) for i in range(d // 2) for half in (0, 1)
        ]
        return tensor[order]
    if kind.startswith("gemma") and "norm" in name:
        return tensor + 1
    if kind == "gpt2" and tensor.ndim == 2 and ".h." in name:
        return np.ascontiguousarray(tensor.T)
    return tensor


def write(architecture, model, file, types=FLOAT32, tokenizer=None, split=None, change=None, extra=None):
    """Write a model as a GGUF file. ``types``: of its matrices, in turn; the model gets the dequantised values itself.

    ``split``: how byte-level BPE splits texts, by its name in the file, by default as files of the architecture do.
    ``change(writer)`` adds settings; ``extra``: tensors beside those of the model.
    """
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    add_settings(writer, model.config)
    kind = tokenizer or tokenizer_kind(architecture)
    if kind != "none":
        add_tokenizer(writer, kind, split or ("qwen2" if architecture.startswith("qwen") else "gpt-2"))
    if change:
        change(writer)
    key = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names, matrices = gguf.get_tensor_name_map(key, model.config.num_hidden_layers), 0
    for name, parameter in model.named_parameters():  # a tied head stands once
        stored = as_llama_cpp(model, name, parameter.detach().numpy())
        of = Q.F32
        if stored.ndim == 2:
            of, matrices = types[matrices % len(types)], matrices + 1
        data = gguf.quantize(stored, of)
        if of != Q.F32:
            with torch.no_grad():
                whole = gguf.dequantize(data, of)
                parameter.copy_(torch.from_numpy(back(model, name, whole)))
        stem, suffix = name.rsplit(".", 1)
        writer.add_tensor(f"{names.get_name(stem)}.{suffix}", data, raw_dtype=of)
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return file


def back(model, name: str, stored: np.ndarray) -> np.ndarray:
    """The inverse of `as_llama_cpp`, of a matrix: where each row went to."""
    shape = stored.T.shape if model.config.model_type == "gpt2" and ".h." in name else stored.shape
    places = as_llama_cpp(model, name, np.arange(stored.size, dtype=np.int64).reshape(shape))
    found = np.empty(stored.size, dtype=stored.dtype)
    found[places.ravel()] = stored.ravel()
    return found.reshape(shape)


# ---- packages ------------------------------------------------------------------------------------------------
def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(folder, name: str, version: str, files: dict[str, bytes]):
    """A wheel as pip takes it: files, and what it must say of itself."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    whole = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{stem}-py3-none-any.whl"
    with ZipFile(made, "w") as opened:
        for member, content in {**whole, f"{info}/RECORD": "".join(f"{n},,\n" for n in whole).encode()}.items():
            opened.writestr(member, content)
    return made
