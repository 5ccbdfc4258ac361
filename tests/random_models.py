"""Random models of some families with large weights, and prompts and ablations for them, that several tests share.

In float64 GPT-2 and NeoX differ from an oracle by rounding alone, below 1e-9. The norms of Llama and of all families of
`NORMED` compute in float32 whatever the dtype, so there the tolerance is 1e-5, on logits of order 1. Models of `NORMED`
have norms behind attention and MLP, of queries and keys or caps of scores and logits, and windows shorter than prompts.
"""

import pytest
import torch
from hypothesis import strategies as st

from atlas.circuit.replacement import Replacement
from atlas.core.components import all_components
from atlas.model import models
from atlas.prompts.batch import Prompts
from conftest import load_tokenizer

N, S, VOCAB, L, H, D = 5, 7, 30, 3, 4, 16
TOLERANCE = {"gpt2": 1e-9, "neox": 1e-9, "neox sequential": 1e-9, "llama": 1e-5}
NORMED = {"gemma2": 1e-5, "gemma3": 1e-5, "olmo2": 1e-5}
EVERY = TOLERANCE | NORMED
FAMILIES = [*TOLERANCE, "gemma3", *(pytest.param(family, marks=pytest.mark.slow) for family in ("gemma2", "olmo2"))]
COMPONENTS = all_components(L, H)


def build_normed(family, common):
    """One of `NORMED`, with grouped or a single key/value head, biases everywhere, windows of 3 where it has some."""
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        Olmo2Config,
        Olmo2ForCausalLM,
    )

    caps = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}
    kind, config, options = {
        "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"num_key_value_heads": 1} | caps),
        "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, {"num_key_value_heads": 2, "query_pre_attn_scalar": 3}),
        "olmo2": (Olmo2ForCausalLM, Olmo2Config, {"num_key_value_heads": 2}),
    }[family]
    if family != "olmo2":
        types = ["sliding_attention", "full_attention", "sliding_attention"]
        options |= {"layer_types": types, "sliding_window": 3, "head_dim": D // H}
    options |= {"pad_token_id": None}  # a padding token is embedded as zeros, at which a norm is steep as 1 / sqrt(eps)
    network = kind(config(attention_bias=True, max_position_embeddings=S, **options, **common))
    for name, parameter in network.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return network


def build(family):
    """A random model with large weights, so that attention is far from uniform."""
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    common = {"vocab_size": VOCAB, "initializer_range": 0.5, "bos_token_id": 0, "eos_token_id": 0}
    sizes = {"hidden_size": D, "num_hidden_layers": L, "num_attention_heads": H, "intermediate_size": 24}
    if family in NORMED:
        return build_normed(family, sizes | common | {"initializer_range": 0.2})
    match family:
        case "gpt2":
            return GPT2LMHeadModel(GPT2Config(n_layer=L, n_head=H, n_embd=D, n_positions=S, **common))
        case "llama":
            common["initializer_range"] = (
                0.2  # its norm rounds to float32: logits stay of order 1, as the tolerance says
            )
            return LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, max_position_embeddings=S, **sizes, **common))
        case _:
            parallel = family == "neox"
            rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
            config = GPTNeoXConfig(
                use_parallel_residual=parallel, rope_parameters=rope, max_position_embeddings=S, **sizes, **common
            )
            return GPTNeoXForCausalLM(config)


def save(family, folder):
    """A random model with its biases, and a tokenizer, which the bridge wants and nothing uses."""
    torch.manual_seed(0)
    network = build(family)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)  # biases are zero by default, which would hide a lost one
    network.save_pretrained(folder)
    load_tokenizer("shipped").save_pretrained(folder)


def load_random(family, folder):
    """Such a model in float64, with the tolerance of its family."""
    save(family, folder)
    loaded = models.load(folder, device="cpu", dtype="float64", batch_size=2)
    loaded.tolerance = EVERY[family]
    return loaded


def random_prompts() -> Prompts:
    """N prompts of S tokens, in two groups of means."""
    rng = torch.Generator().manual_seed(1)
    tokens, corrupted = (torch.randint(VOCAB, (N, S), generator=rng) for _ in range(2))
    answer, incorrect = torch.arange(N), torch.arange(N) + 1
    return Prompts(tokens, corrupted, answer, incorrect, list(range(N)), torch.tensor([0, 1, 0, 1, 1]))


def substitute(rows) -> Replacement:
    rng = torch.Generator().manual_seed(2)
    n = int(rows.max()) + 1
    z = torch.randn(L, n, S, H, D // H, generator=rng, dtype=torch.float64)
    return Replacement(z, torch.randn(L, n, S, D, generator=rng, dtype=torch.float64), rows)


ROWS = {
    "one mean": torch.zeros(N, dtype=torch.long),
    "groups": torch.tensor([0, 1, 0, 1, 1]),
    "resample": torch.arange(N),
}
circuits_strategy = st.sets(st.sampled_from(COMPONENTS)).map(frozenset)
