"""Tiny models in which the class of an answer is a direction that is read linearly, or is not read at all.

A prompt is a filler, a member and a filler; layer 0's head 0 attends to all three alike and writes, at the last
position, the place after the member's and the member's class: -1 for the source, +1 for the target. The unembedding
reads both, so that the vector from one class to the other, 2, turns a source prompt's answer into the target's when it
is added once. Half of it leaves a tie, and from twice on one token that is no member is on top.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from atlas.geometry.sequences import HELD_OUT, SEARCH, Matched, Ordered, Pair
from conftest import load_tokenizer

D, PLACES, VOCAB = 64, 6, 16
PLACE, CLASS, FILLER, NEXT = 0, 6, 8, 10  # first dimension of each
UNTIED = {"tie_word_embeddings": False}
SOURCE, TARGET, BEYOND = 2, 8, 14  # token ids: of first members, and of what is on top where the class is too large


def build(folder, reads_class=True):
    """The checkpoint; without ``reads_class`` the unembedding favours the source's members whatever the class."""
    sizes = {"hidden_size": D, "intermediate_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=VOCAB, **sizes, max_position_embeddings=32, tie_word_embeddings=False, rms_norm_eps=1e-12
    )
    network = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.fill_(1)
        embedding, head = network.model.embed_tokens.weight, network.lm_head.weight
        for i in range(2):
            embedding[i, FILLER + i] = 2**0.5
        for place in range(PLACES):
            for first, sign in ((SOURCE, -1.0), (TARGET, 1.0)):
                embedding[first + place, PLACE + place] = 1
                embedding[first + place, CLASS] = sign
                head[first + place, NEXT + place] = 2
                head[first + place, CLASS if reads_class else FILLER + 1] = sign if reads_class else -sign
        head[BEYOND, CLASS], head[BEYOND, FILLER + 1] = (4, -3 / 2**0.5) if reads_class else (0, 0)
        attention = network.model.layers[0].self_attn
        scale = 3 / (D / 2) ** 0.5  # of three positions one is read, and the norm makes sqrt(D / 2) of a unit
        for place in range(PLACES - 1):
            attention.v_proj.weight[place, PLACE + place] = scale
            attention.o_proj.weight[NEXT + place + 1, place] = 1
        attention.v_proj.weight[PLACES, CLASS] = scale
        attention.o_proj.weight[CLASS, PLACES] = 1
    network.save_pretrained(folder)
    load_tokenizer("shipped").save_pretrained(folder)
    return folder


def prompts() -> Matched:
    """Each member but the last with either filler before it; every other one is held out."""
    words = tuple("abcdef")
    pair = Pair(Ordered("source", words), Ordered("target", tuple(word.upper() for word in words)))
    found = Matched(
        pair, source_ids=list(range(SOURCE, SOURCE + PLACES)), target_ids=list(range(TARGET, TARGET + PLACES))
    )
    for place in range(PLACES - 1):
        for filler in (0, 1):
            found.source_tokens.append([filler, SOURCE + place, 1])
            found.target_tokens.append([filler, TARGET + place, 1])
            found.source_next.append(SOURCE + place + 1)
            found.target_next.append(TARGET + place + 1)
            found.split.append((SEARCH, HELD_OUT)[place % 2])
            found.text.append(f"{filler} {words[place]}")
            found.expected.append(words[place + 1].upper())
            found.sequence.append(words[place])
    return found
