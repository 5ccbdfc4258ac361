"""A naive forward pass over the nodes of a GPT-2 or Llama checkpoint, for testing: every edge is written out.

Each node's write to the residual stream is kept apart; what a receiver reads is their sum, with any chosen sender's
write exchanged. Slow and plain on purpose; shares nothing with the engine.
"""

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from atlas.components import Component
from atlas.fixtures import Edge


class Oracle:
    def __init__(self, model):
        self.model, self.config = model.eval().requires_grad_(False), model.config
        self.gpt2 = self.config.model_type == "gpt2"
        body = model.transformer if self.gpt2 else model.model
        self.blocks, self.final = (body.h, body.ln_f) if self.gpt2 else (body.layers, body.norm)
        self.embed = body.wte if self.gpt2 else body.embed_tokens
        self.heads = self.config.num_attention_heads
        self.d_head = self.config.hidden_size // self.heads if self.gpt2 else self.config.head_dim

    def run(self, tokens, exchanged: dict[str, dict[str, torch.Tensor]] | None = None):
        """Logits [N, d_vocab] at the last position, writes (sender -> [N, S, D]) and reads (receiver -> [N, S, D]).

        ``exchanged``: receiver -> sender -> what it reads in place of that sender's write.
        """
        exchanged, reads = exchanged or {}, {}
        writes = {"embed": self.embed(tokens)}
        if self.gpt2:
            writes["embed"] = writes["embed"] + self.model.transformer.wpe.weight[: tokens.shape[1]]

        def read(receiver):
            other = exchanged.get(receiver, {})
            reads[receiver] = sum(other.get(sender, write) for sender, write in writes.items())
            if torch.is_grad_enabled():
                reads[receiver].requires_grad_(True).retain_grad()
            return reads[receiver]

        for layer, block in enumerate(self.blocks):
            mixed = {h: self.head(layer, block, h, read) for h in range(self.heads)}
            writes |= {str(Component(layer, h)): z for h, z in mixed.items()}
            if self.gpt2:
                writes[f"bias {layer}"] = block.attn.c_proj.bias.expand_as(writes["embed"])
            norm = block.ln_2 if self.gpt2 else block.post_attention_layernorm
            writes[str(Component(layer))] = block.mlp(norm(read(f"m{layer}")))
        return self.model.lm_head(self.final(read("logits"))[:, -1]), writes, reads

    def head(self, layer, block, h, read):
        norm = block.ln_1 if self.gpt2 else block.input_layernorm
        q, k, v = (self.project(block, h, part, norm(read(f"{layer}.{h}.{part}"))) for part in "qkv")
        if not self.gpt2:
            where = torch.arange(q.shape[1])[None]
            cos, sin = self.model.model.rotary_emb(q, where)
            q, k = (x[:, 0] for x in apply_rotary_pos_emb(q[:, None], k[:, None], cos, sin))
        scores = q @ k.transpose(1, 2) / self.d_head**0.5
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
        own = slice(h * self.d_head, (h + 1) * self.d_head)
        w_o = block.attn.c_proj.weight[own] if self.gpt2 else block.self_attn.o_proj.weight[:, own].T
        return scores.softmax(-1) @ v @ w_o

    def project(self, block, h, part, x):
        if self.gpt2:
            start = "qkv".index(part) * self.config.hidden_size + h * self.d_head
            own = slice(start, start + self.d_head)
            return x @ block.attn.c_attn.weight[:, own] + block.attn.c_attn.bias[own]
        g = h if part == "q" else h * self.config.num_key_value_heads // self.heads
        w = getattr(block.self_attn, f"{part}_proj").weight[g * self.d_head : (g + 1) * self.d_head]
        return x @ w.T

    def all_edges(self) -> list[Edge]:
        """Receivers last to first."""
        senders, edges = ["embed"], []
        for layer in range(len(self.blocks)):
            new = [str(Component(layer, h)) for h in range(self.heads)]
            edges += [Edge(s, f"{head}.{part}") for head in new for part in "qkv" for s in senders]
            senders += new
            edges += [Edge(s, f"m{layer}") for s in senders]
            senders.append(f"m{layer}")
        return [*edges, *(Edge(s, "logits") for s in senders)][::-1]


class EdgeScores:
    """The logit difference with edges of a fixture ablated, and their attribution scores."""

    def __init__(self, oracle: Oracle, prompts, kind: str):
        self.oracle, self.prompts = oracle, prompts
        with torch.no_grad():
            _, self.clean, _ = oracle.run(prompts.tokens)
            _, corrupted, _ = oracle.run(prompts.corrupted_tokens)
        if kind == "mean":
            corrupted = {s: w.mean(0, keepdim=True).expand_as(w) for s, w in corrupted.items()}
        self.ablated = {s: torch.zeros_like(w) if kind == "zero" else w for s, w in corrupted.items()}

    def difference(self, logits):
        rows = torch.arange(len(logits))
        return logits[rows, self.prompts.answer] - logits[rows, self.prompts.incorrect]

    def without(self, edges) -> torch.Tensor:
        """[N] with these edges ablated."""
        exchanged = {}
        for edge in edges:
            exchanged.setdefault(edge.receiver, {})[edge.sender] = self.ablated[edge.sender]
        with torch.no_grad():
            return self.difference(self.oracle.run(self.prompts.tokens, exchanged)[0])

    def attribution(self, edges) -> dict[Edge, float]:
        """(ablated - clean write) . gradient at the receiver's input before its norm, mean over prompts."""
        with torch.enable_grad():
            logits, _, reads = self.oracle.run(self.prompts.tokens)
            self.difference(logits).sum().backward()
        n = len(self.prompts)
        return {
            e: float(((self.ablated[e.sender] - self.clean[e.sender]) * reads[e.receiver].grad).sum()) / n
            for e in edges
        }
