"""Train and test the shipped model from one specification (resources/models/<name>/training.yaml)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.shipped.corpus import END, Corpus

if TYPE_CHECKING:
    import pandas as pd
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase


def build_tokenizer(spec: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Byte-level BPE whose vocabulary is all bytes plus every word of the corpus, whole.

    ``ignore_merges`` looks a word up before any merging, so a known word is always one token and an unknown one
    falls apart into bytes (as rare words do in GPT-2), never into an unknown-token mark.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    as_symbols = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = [as_symbols.pre_tokenize_str(token)[0][0] for token in Corpus(spec).vocabulary]
    vocab = {symbol: i for i, symbol in enumerate(dict.fromkeys([*byte_symbols, *words, END]))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = as_symbols
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=spec["architecture"]["n_positions"],
        clean_up_tokenization_spaces=False,
    )


def token_ids(tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any]) -> dict[str, int]:
    """Id of every token string of the corpus; raises if one of them is not a single token."""
    ids = {}
    for token in [*Corpus(spec).vocabulary, END]:
        encoded = tokenizer.encode(token, add_special_tokens=False)
        if len(encoded) != 1:
            raise ValueError(f"{token!r} is {len(encoded)} tokens, not one")
        ids[token] = encoded[0]
    return ids


def build_model(spec: dict[str, Any], vocab_size: int, end_id: int) -> GPT2LMHeadModel:
    """An untrained GPT-2 of the specification's `architecture`, drawn from torch's random state.

    ``vocab_size``: of the tokenizer; ``end_id``: of its one special token, which begins and ends texts.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        **spec["architecture"],
        vocab_size=vocab_size,
        bos_token_id=end_id,
        eos_token_id=end_id,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # the fused form of GPT-2's gelu_new, a fifth faster on CPU
    )
    return GPT2LMHeadModel(config)


def component_penalty(model: Any) -> torch.Tensor:
    """[] sum over heads of sqrt(|W_V| |W_O|) plus sum over MLPs of sqrt(|W_in| |W_out|), Frobenius norms."""
    total = torch.zeros(())
    heads, width = model.config.n_head, model.config.n_embd
    for block in model.transformer.h:
        w_v = block.attn.c_attn.weight[:, 2 * width :].view(width, heads, -1).norm(dim=(0, 2))
        w_o = block.attn.c_proj.weight.view(heads, -1, width).norm(dim=(1, 2))
        total = total + (w_v * w_o).sqrt().sum()
        total = total + (block.mlp.c_fc.weight.norm() * block.mlp.c_proj.weight.norm()).sqrt()
    return total


def ramp(step: int, steps: int, start: float, end: float) -> float:
    """0 before ``start`` of training, 1 after ``end``, linear in between."""
    return min(1.0, max(0.0, (step / steps - start) / (end - start)))


def learning_rate(step: int, optimisation: dict[str, Any]) -> float:
    """Linear warm-up, then cosine to zero; a factor of the peak rate."""
    warmup, steps = optimisation["warmup_steps"], optimisation["steps"]
    if step < warmup:
        return float((step + 1) / warmup)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(
    spec: dict[str, Any],
    log: Callable[[dict[str, Any]], None],
    on_step: Callable[[int, GPT2LMHeadModel], None] | None = None,
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerBase]:
    """Train from scratch; returns (model, tokenizer).

    ``log(dict)`` receives one row per ``log_every`` steps; ``on_step(step, model)`` is called after every step.
    """
    torch.manual_seed(spec["seed"])
    rng = np.random.default_rng(spec["seed"])
    corpus, tokenizer, o = Corpus(spec), build_tokenizer(spec), spec["optimisation"]
    ids = token_ids(tokenizer, spec)
    model = build_model(spec, len(tokenizer), ids[END])
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": o["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
        lr=o["learning_rate"],
        betas=tuple(o["betas"]),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, o))
    started, losses = time.time(), []
    model.train()
    for step in range(1, o["steps"] + 1):
        rows = torch.tensor([[ids[t] for t in corpus.row(rng)] for _ in range(o["rows"])])
        loss = model(rows, labels=rows).loss
        penalty = component_penalty(model)
        weight = o["component_penalty"]["weight"] * ramp(step, o["steps"], *o["component_penalty"]["ramp"])
        optimizer.zero_grad(set_to_none=True)
        (loss + weight * penalty).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), o["gradient_clip"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if on_step:
            on_step(step, model)
        if step % o["log_every"] == 0:
            row = {
                "step": step,
                "loss": np.mean(losses),
                "penalty": penalty.item(),
                "minutes": (time.time() - started) / 60,
            }
            if step % o["evaluate_every"] == 0:
                table = evaluate(model, tokenizer, spec, prompts=64)
                main = table[table.family.isin(spec["evaluation"]["main"]) & (table.step == 1)]
                row |= {"top1_main": main.top1.mean(), "top1_lowest": table.top1.min()}
                row["lowest"] = table.sort_values("top1").task.iloc[0]
                model.train()
            log(row)
            losses = []
    model.config.activation_function = "gelu_new"  # the same function under GPT-2's own name
    return model.eval(), tokenizer


# ---- evaluation ----------------------------------------------------------------------------------------------
def evaluation_prompts(
    spec: dict[str, Any], prompts: int
) -> Iterator[tuple[str, str, int, str, list[list[str]], list[int]]]:
    """Yield (task, family, step, form, token rows, scored positions).

    Each row is a whole text; the tokens at the scored positions are the answers, predicted from what stands before.
    Template prompts use fillers whose pairs never occur together in a training document.
    """
    corpus = Corpus(spec)
    rng = np.random.default_rng(spec["seed"] + 1)
    length = spec["evaluation"]["shown"] + 1
    for family in corpus.families.values():
        for step in family.steps:
            starts = list(family.starts(step, length))
            for form in ("template", "bare"):
                rows = []
                for i in range(prompts):
                    members = family.sequence(starts[i % len(starts)], step, length)
                    if form == "template":
                        template = spec["templates"][i % len(spec["templates"])]
                        tokens = corpus.clauses(rng, template, members, held_out=True)[:-1]
                    else:
                        tokens = corpus.bare(members, comma=i % 2 == 0)
                    rows.append(tokens)
                yield f"{family.name} {step:+d} {form}", family.name, step, form, rows, [-1]
    for number, form in enumerate(spec["problems"]):
        for name in spec["problem_units"]:
            rows = [corpus.random_problem(rng, form, corpus.families[name])[:-1] for _ in range(prompts)]
            yield f"{name} problem {number + 1}", name, 0, "problem", rows, [-1]
    rows = []
    for _ in range(prompts):
        block = list(rng.choice(corpus.repeatable, 10, replace=False))
        rows.append([block[0].lstrip(), *block[1:], *block])
    yield "repeated random text", "any", 0, "repeat", rows, list(range(12, 20))


def evaluate(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, spec: dict[str, Any], prompts: int
) -> pd.DataFrame:
    """Top-1 accuracy per task as a table (task, family, step, form, prompts, top1)."""
    import pandas as pd

    ids = token_ids(tokenizer, spec)
    model.eval()
    table = []
    for task, family, step, form, rows, scored in evaluation_prompts(spec, prompts):
        hits = []
        with torch.no_grad():
            for length in sorted({len(r) for r in rows}):
                batch = torch.tensor([[ids[t] for t in r] for r in rows if len(r) == length])
                guess = model(batch[:, :-1]).logits.argmax(-1)
                where = torch.tensor([p % length for p in scored])
                hits.append((guess[:, where - 1] == batch[:, where]).flatten())
        top1 = torch.cat(hits).float().mean().item()
        table.append({"task": task, "family": family, "step": step, "form": form, "prompts": prompts, "top1": top1})
    return pd.DataFrame(table)


def below_thresholds(table: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """The rows of `evaluate` below their threshold of top-1: ``main`` for what studies search, else ``other``."""
    about = spec["evaluation"]
    main = table["family"].isin(about["main"]) & (table["step"] == 1) & (table["form"] == "template")
    return table[table["top1"] < main.map({True: about["thresholds"]["main"], False: about["thresholds"]["other"]})]
