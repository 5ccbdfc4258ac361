"""A naive forward pass over the nodes of a checkpoint, for testing: every edge is written out. For GPT-2, GPT-NeoX,
Llama, Gemma 2 and 3 and OLMo 2, by transformers' own norms, MLPs and rotation.

Each node's write to the residual stream is kept apart; what a receiver reads is their sum, with any chosen sender's
write exchanged. Where norms stand behind the parts of a layer, each receiver takes that of the heads' writes that it
gets, bias included. Slow and plain on purpose; shares nothing with the engine.
"""

import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from atlas.core.components import Component
from atlas.core.graph import Edge


class Oracle:
    def __init__(self, model, behind=None):
        """``behind``: of each layer the norms of what its attention and of what its MLP gives; None: there are none."""
        self.behind = behind
        self.model, self.config = model.eval().requires_grad_(False), model.config
        self.family = self.config.model_type
        body = getattr(model, {"gpt2": "transformer", "gpt_neox": "gpt_neox"}.get(self.family, "model"))
        self.body, self.parallel = body, getattr(self.config, "use_parallel_residual", False)
        parts = {"gpt2": ("h", "ln_f", "wte"), "gpt_neox": ("layers", "final_layer_norm", "embed_in")}
        self.blocks, self.final, self.embed = (
            getattr(body, name) for name in parts.get(self.family, ("layers", "norm", "embed_tokens"))
        )
        self.heads = self.config.num_attention_heads
        self.groups = getattr(self.config, "num_key_value_heads", None) or self.heads
        self.d_head = self.config.hidden_size // self.heads
        self.gemma, self.olmo = self.family.startswith("gemma"), self.family == "olmo2"
        if self.gemma or self.olmo:
            self.behind = [(block.post_attention_layernorm, block.post_feedforward_layernorm) for block in self.blocks]
        nothing = torch.nn.Identity()
        before = {"gpt2": ("ln_1", "ln_2")}.get(self.family, ("input_layernorm", "post_attention_layernorm"))
        before = ("input_layernorm", "pre_feedforward_layernorm") if self.gemma else before
        self.norms = [[nothing if self.olmo else getattr(block, name) for name in before] for block in self.blocks]

    def run(self, tokens, exchanged: dict[str, dict[str, torch.Tensor]] | None = None, embeddings=None):
        """Logits [N, d_vocab] at the last position, writes (sender -> [N, S, D]) and reads (receiver -> [N, S, D]).

        ``exchanged``: receiver -> sender -> what it reads in place of that sender's write. ``embeddings`` [N, S, D]
        stand in for those of the tokens.
        """
        exchanged, reads = exchanged or {}, {}
        writes = {"embed": self.embed(tokens)}
        if embeddings is not None:
            writes["embed"] = embeddings
        elif self.family == "gpt2":
            writes["embed"] = writes["embed"] + self.body.wpe.weight[: tokens.shape[1]]

        def read(receiver):
            other = exchanged.get(receiver, {})
            given = {sender: other.get(sender, write) for sender, write in writes.items()}
            mixed = {}  # layer -> what its attention gives to this receiver, before the norm behind it
            for sender in [s for s in given if self.behind and s not in ("embed", *map(str, self.mlps))]:
                layer = int(sender.split()[-1].split(".")[0])
                mixed[layer] = mixed.get(layer, 0) + given.pop(sender)
            reads.update({(receiver, layer): mixture for layer, mixture in mixed.items()})
            if torch.is_grad_enabled():
                for mixture in mixed.values():
                    mixture.requires_grad_(True).retain_grad()
            normed = [self.behind[layer][0](mixture) for layer, mixture in mixed.items()]
            reads[receiver] = sum([*given.values(), *normed])
            if torch.is_grad_enabled():
                reads[receiver].requires_grad_(True).retain_grad()
            return reads[receiver]

        for layer, block in enumerate(self.blocks):
            mixed = {h: self.head(layer, block, h, read) for h in range(self.heads)}
            if self.parallel:
                mlp = self.mlp(layer, block, read(f"m{layer}"))
            writes |= {str(Component(layer, h)): z for h, z in mixed.items()}
            path = {"gpt2": "attn.c_proj", "gpt_neox": "attention.dense"}.get(self.family, "self_attn.o_proj")
            if (bias := block.get_submodule(path).bias) is not None:
                writes[f"bias {layer}"] = bias.expand_as(writes["embed"])
            writes[str(Component(layer))] = mlp if self.parallel else self.mlp(layer, block, read(f"m{layer}"))
        return self.capped(self.model.get_output_embeddings()(self.final(read("logits"))[:, -1])), writes, reads

    def capped(self, logits):
        cap = self.option("final")
        return cap * torch.tanh(logits / cap) if cap else logits

    def option(self, which):
        """The cap of logits (`final`) or of scores (`attn`), or None."""
        return getattr(self.config, f"{which}_logit_softcapping", None)

    @property
    def mlps(self):
        return [Component(layer) for layer in range(len(self.blocks))]

    def mlp(self, layer, block, x):
        out = block.mlp(self.norms[layer][1](x))
        return self.behind[layer][1](out) if self.behind else out

    def head(self, layer, block, h, read):
        norm = self.norms[layer][0]
        q, k, v = (self.project(block, h, part, norm(read(f"{layer}.{h}.{part}"))) for part in "qkv")
        if self.family != "gpt2":
            kind = (self.config.layer_types[layer],) if self.family == "gemma3_text" else ()
            cos, sin = self.body.rotary_emb(q, torch.arange(q.shape[1])[None], *kind)
            turned = cos.shape[-1]  # GPT-NeoX turns the first entries only
            parts = apply_rotary_pos_emb(q[:, None, :, :turned], k[:, None, :, :turned], cos, sin)
            q, k = (torch.cat((new[:, 0], old[..., turned:]), -1) for new, old in zip(parts, (q, k), strict=True))
        scores = q @ k.transpose(1, 2) / (self.config.query_pre_attn_scalar if self.gemma else self.d_head) ** 0.5
        if cap := self.option("attn"):
            scores = cap * torch.tanh(scores / cap)
        scores = scores.masked_fill(torch.ones_like(scores[0]).triu(1).bool(), -torch.inf)
        if self.gemma and self.config.layer_types[layer] == "sliding_attention":
            past = torch.ones_like(scores[0]).tril(-self.config.sliding_window).bool()
            scores = scores.masked_fill(past, -torch.inf)
        own = slice(h * self.d_head, (h + 1) * self.d_head)
        w_o = {
            "gpt2": lambda: block.attn.c_proj.weight[own],
            "gpt_neox": lambda: block.attention.dense.weight[:, own].T,
        }.get(self.family, lambda: block.self_attn.o_proj.weight[:, own].T)()
        return self.pattern(layer, h, scores) @ v @ w_o

    def pattern(self, layer, h, scores):
        return scores.softmax(-1)

    def project(self, block, h, part, x):
        if self.family == "gpt2":
            start = "qkv".index(part) * self.config.hidden_size + h * self.d_head
            own = slice(start, start + self.d_head)
            return x @ block.attn.c_attn.weight[:, own] + block.attn.c_attn.bias[own]
        if self.family == "gpt_neox":
            start = (3 * h + "qkv".index(part)) * self.d_head
            own = slice(start, start + self.d_head)
            return x @ block.attention.query_key_value.weight[own].T + block.attention.query_key_value.bias[own]
        g = h if part == "q" else h * self.groups // self.heads
        own = slice(g * self.d_head, (g + 1) * self.d_head)
        every, norm = getattr(block.self_attn, f"{part}_proj")(x), getattr(block.self_attn, f"{part}_norm", None)
        if norm is None:
            return every[..., own]
        return norm(every)[..., own] if self.olmo else norm(every[..., own])

    def all_edges(self) -> list[Edge]:
        """Receivers last to first."""
        senders, edges = ["embed"], []
        for layer in range(len(self.blocks)):
            new = [str(Component(layer, h)) for h in range(self.heads)]
            edges += [Edge(s, f"{head}.{part}") for head in new for part in "qkv" for s in senders]
            if self.parallel:
                edges += [Edge(s, f"m{layer}") for s in senders]
            senders += new
            if not self.parallel:
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

    def gradients(self, embeddings=None) -> dict[str, torch.Tensor]:
        """Receiver -> gradient of the summed difference by its input before the norm, [N, S, D]; (receiver, layer) ->
        that by what it gets of a layer's attention before the norm behind that, where there is one."""
        with torch.enable_grad():
            logits, _, reads = self.oracle.run(self.prompts.tokens, embeddings=embeddings)
            self.difference(logits).sum().backward()
        return {receiver: read.grad for receiver, read in reads.items()}

    def attribution(self, edges) -> dict[Edge, float]:
        """(ablated - clean write) . gradient at the receiver's input before its norm, mean over prompts."""
        n, gradients = len(self.prompts), self.gradients()
        return {e: float(self.along(e, gradients).sum()) / n for e in edges}

    def along(self, edge, gradients) -> torch.Tensor:
        """[N, S, D] (ablated - clean write) times the gradient by what the receiver gets of it."""
        head = self.oracle.behind and "." in edge.sender
        place = (edge.receiver, Component.parse(edge.sender).layer) if head else edge.receiver
        return (self.ablated[edge.sender] - self.clean[edge.sender]) * gradients[place]
