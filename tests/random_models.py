"""Random models of three families with large weights, and prompts and ablations for them, that several tests share.

In float64 GPT-2 and NeoX differ from an oracle by rounding alone, below 1e-9. Llama's norm computes in float32 whatever
the dtype, so there the tolerance is 1e-5, on logits of order 1.
"""

import torch
from hypothesis import strategies as st

from atlas.circuit.replacement import Replacement
from atlas.core.components import all_components
from atlas.model import models
from atlas.prompts.batch import Prompts
from conftest import load_tokenizer

N, S, VOCAB, L, H, D = 5, 7, 30, 3, 4, 16
TOLERANCE = {"gpt2": 1e-9, "neox": 1e-9, "neox sequential": 1e-9, "llama": 1e-5}
COMPONENTS = all_components(L, H)


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
    loaded.tolerance = TOLERANCE[family]
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
