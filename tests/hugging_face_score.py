"""A node circuit's score on held-out prompts, by hooks on the Hugging Face model; imports nothing of the library.

python tests/hugging_face_score.py results/MODEL/TASK CHECKPOINT [--order layers] [--threshold 20] [--batch 16]

Reads the circuit and its reported score from `circuits.json` and `faithfulness.parquet`, the token ids from
`prompts.parquet`, which of them passed the filter from `clean.parquet`, and runs transformers' own model with plain
attention, in float32. What is not in the circuit is replaced at every position by its mean over the corrupted prompts
of the search split: of a head the d_head numbers that the output map of its attention reads, of an MLP what reaches the
residual stream (behind its norm, where it has one).
Mean ablation over all prompts, and answers of one token, are what it knows.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

OUTPUT_MAPS = ("self_attn.o_proj", "attention.dense", "attn.c_proj", "self_attn.out_proj", "self_attn.dense")
MLPS = ("post_feedforward_layernorm", "mlp")  # the first that a layer has is the one that writes to the residual


def layers_of(model):
    """[(output map of the attention, what gives the MLP's write)] of each layer."""
    modules = dict(model.named_modules())
    stacks = [module for module in modules.values() if isinstance(module, torch.nn.ModuleList)]
    found = []
    for layer in max(stacks, key=len):
        own = dict(layer.named_modules())
        found.append(tuple(next(own[name] for name in names if name in own) for names in (OUTPUT_MAPS, MLPS)))
    return found


class Hooked:
    """A model whose heads' z and MLPs' writes are recorded, or replaced where a circuit lacks them."""

    def __init__(self, model, n_heads):
        self.model, self.n_heads, self.layers = model, n_heads, layers_of(model)
        self.sums, self.replaced = None, {}
        for layer, (output_map, mlp) in enumerate(self.layers):
            output_map.register_forward_pre_hook(lambda module, args, layer=layer: (self.z(layer, args[0]),))
            mlp.register_forward_hook(lambda module, args, out, layer=layer: self.at((layer, None), out))

    def z(self, layer, x):
        heads = x.unflatten(-1, (self.n_heads, -1)).clone()
        for head in range(self.n_heads):
            heads[:, :, head] = self.at((layer, head), heads[:, :, head])
        return heads.flatten(2)

    def at(self, key, x):
        if self.sums is not None:
            self.sums[key] = self.sums.get(key, 0) + x.double().sum(0)
        return self.replaced[key].to(x).expand_as(x) if key in self.replaced else x

    def means(self, tokens, batch):
        """(layer, head or None) -> mean [S, d_head or D] over rows of tokens [N, S]."""
        self.sums, self.replaced = {}, {}
        for rows in tokens.split(batch):
            self.model(rows, use_cache=False, logits_to_keep=1)
        sums, self.sums = self.sums, None
        return {key: x / len(tokens) for key, x in sums.items()}

    def logit_diffs(self, tokens, answer, incorrect, batch):
        """[N] logit of the answer minus that of the incorrect answer, at the last position."""
        found = []
        for rows, a, b in zip(tokens.split(batch), answer.split(batch), incorrect.split(batch), strict=True):
            logits = self.model(rows, use_cache=False, logits_to_keep=1).logits[:, -1]
            found.append(logits.gather(1, a[:, None]) - logits.gather(1, b[:, None]))
        return torch.cat(found)[:, 0].double()


def score(folder, checkpoint, order, threshold, batch):
    """(percent of the full model's logit difference by hooks, the reported percent) on the held-out prompts."""
    folder = Path(folder)
    circuits = json.loads((folder / "circuits.json").read_text())["circuits"]
    (circuit,) = [c for c in circuits if c["order"] == order and c["threshold"] == threshold]
    table = pd.read_parquet(folder / "faithfulness.parquet")
    chosen = table[(table.order == order) & (table.threshold == threshold) & (table.split == "held_out")]
    (reported,) = chosen[chosen.metric == "percent_of_full"].value
    prompts, clean_scores = pd.read_parquet(folder / "prompts.parquet"), pd.read_parquet(folder / "clean.parquet")
    prompts = prompts[prompts.prompt.isin(clean_scores.prompt[clean_scores.kept])]
    if prompts.layout.nunique() > 1:
        raise SystemExit(f"{folder}: prompts of {prompts.layout.nunique()} layouts; this script knows one")

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    hooked = Hooked(model, model.config.num_attention_heads)
    stack = {split: prompts[prompts.split == split] for split in ("search", "held_out")}
    corrupted = torch.tensor([list(row) for row in stack["search"].corrupted_tokens])
    held = stack["held_out"]
    clean = torch.tensor([list(row) for row in held.tokens])
    ends = [torch.tensor(held[f"{name}_token"].to_numpy()) for name in ("answer", "incorrect")]
    kept = {tuple(map(int, head.split("."))) for head in circuit["heads"]}
    kept |= {(int(mlp[1:]), None) for mlp in circuit["mlps"]}
    with torch.no_grad():
        means = hooked.means(corrupted, batch)
        full = hooked.logit_diffs(clean, *ends, batch)
        hooked.replaced = {key: mean for key, mean in means.items() if key not in kept}
        ablated = hooked.logit_diffs(clean, *ends, batch)
    return 100 * float(ablated.mean() / full.mean()), float(reported)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("checkpoint")
    parser.add_argument("--order", default="layers")
    parser.add_argument("--threshold", type=float, default=20)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    ours, reported = score(args.folder, args.checkpoint, args.order, args.threshold, args.batch)
    print(f"{args.folder} {args.order} T = {args.threshold:g}: by hooks {ours:.6f} %, reported {reported:.6f} %")
