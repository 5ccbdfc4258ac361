"""Run only the live part of an ablated model (GPT-2 architecture); the bridge with hooks is the oracle.

Three exact savings over hooks, which compute what they then replace:

1. An ablated head's q, k, v and an ablated MLP are never computed.
2. Only live positions are computed. The score is read at the last position, so a layer's output is needed at every
   position only while a later layer keeps a head; in the last such layer K and V run everywhere, the rest at the last.
3. The residual entering layer l depends on the circuit below l alone. Residuals are remembered by that part, and an
   evaluation starts at the highest layer whose residual is known: in sweeps over layers, at the layer that changes.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from atlas.components import MLP, Circuit, Component

BUDGET = 512 * 2**20  # bytes of remembered residuals


@dataclass(frozen=True)
class Block:
    """Weights of one layer: W_Q, W_K, W_V [D, 3, H, d_head], W_O [H, d_head, D], an MLP, two layer norms."""

    ln1: tuple
    w_qkv: torch.Tensor
    b_qkv: torch.Tensor
    w_o: torch.Tensor
    b_o: torch.Tensor
    ln2: tuple
    w_in: torch.Tensor
    b_in: torch.Tensor
    w_out: torch.Tensor
    b_out: torch.Tensor


class Engine:
    """The forward pass of a GPT-2 checkpoint with components outside a circuit replaced."""

    def __init__(self, hf_model):
        body, config = hf_model.transformer, hf_model.config
        d, h = config.n_embd, config.n_head
        self.blocks = [
            Block(
                ln1=(b.ln_1.weight.detach(), b.ln_1.bias.detach()),
                w_qkv=b.attn.c_attn.weight.detach().view(d, 3, h, d // h),
                b_qkv=b.attn.c_attn.bias.detach().view(3, h, d // h),
                w_o=b.attn.c_proj.weight.detach().view(h, d // h, d),
                b_o=b.attn.c_proj.bias.detach(),
                ln2=(b.ln_2.weight.detach(), b.ln_2.bias.detach()),
                w_in=b.mlp.c_fc.weight.detach(),
                b_in=b.mlp.c_fc.bias.detach(),
                w_out=b.mlp.c_proj.weight.detach(),
                b_out=b.mlp.c_proj.bias.detach(),
            )
            for b in body.h
        ]
        self.wte, self.wpe = body.wte.weight.detach(), body.wpe.weight.detach()
        self.ln_f = (body.ln_f.weight.detach(), body.ln_f.bias.detach())
        self.w_u = hf_model.lm_head.weight.detach()  # [d_vocab, D]
        self.eps, self.n_heads = config.layer_norm_epsilon, h

    def norm(self, x, weights):
        return F.layer_norm(x, x.shape[-1:], *weights, self.eps)

    def embed(self, tokens):
        return self.wte[tokens] + self.wpe[: tokens.shape[1]]

    def layer(self, index: int, x, circuit: Circuit, substitute, last_only: bool):
        """Residual after layer ``index`` from the one before it, x [N, S, D] (or [N, 1, D]: the last position alone).

        ``substitute(name, index)`` gives what replaces ablated components: ``z`` [1 or N, S, H, d_head], ``mlp_out``
        [1 or N, S, D]. ``last_only``: the output is needed at the last position only.
        """
        block = self.blocks[index]
        kept = [h for h in range(self.n_heads) if Component(index, h) in circuit]
        ablated = [h for h in range(self.n_heads) if h not in kept]
        resid = x[:, -1:] if last_only else x
        where = slice(-resid.shape[1], None)  # the output's positions
        out = resid + block.b_o
        if ablated:
            replaced = substitute("z", index)[:, where, ablated].to(x.dtype)
            out = out + replaced.flatten(2) @ block.w_o[ablated].flatten(0, 1)
        if kept:
            out = out + self.attention(block, self.norm(x, block.ln1), kept, where)
        if Component(index, MLP) in circuit:
            hidden = F.gelu(
                torch.addmm(block.b_in, self.norm(out, block.ln2).flatten(0, 1), block.w_in), approximate="tanh"
            )
            return out + torch.addmm(block.b_out, hidden, block.w_out).view_as(out)
        return out + substitute("mlp_out", index)[:, where].to(x.dtype)

    def attention(self, block: Block, x, heads: list[int], where: slice):
        """What these heads write, [N, positions of ``where``, D], without b_O."""
        w, b = block.w_qkv[:, :, heads], block.b_qkv[:, heads]

        def project(part, x):  # [N, len(heads), positions, d_head]
            return (x @ w[:, part].flatten(1) + b[part].flatten()).unflatten(-1, (len(heads), -1)).transpose(1, 2)

        causal = where.start == -x.shape[1]  # the last position alone sees everything
        q = project(0, x[:, where])
        mixed = F.scaled_dot_product_attention(q, project(1, x), project(2, x), is_causal=causal)
        return mixed.transpose(1, 2).flatten(2) @ block.w_o[heads].flatten(0, 1)

    def unembed(self, x):
        """Logits [N, d_vocab] of the final residual at the last position, [N, D]; at least float32."""
        return at_least_float32(self.norm(x, self.ln_f) @ self.w_u.T)

    def logit_diff(self, x, answer, incorrect):
        """The one column difference that the metric needs, [N]; at least float32."""
        direction = at_least_float32(self.w_u[answer]) - at_least_float32(self.w_u[incorrect])
        return (at_least_float32(self.norm(x, self.ln_f)) * direction).sum(-1)


def at_least_float32(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def for_bridge(bridge) -> Engine | None:
    """The engine of a loaded bridge, or None where it holds another architecture than stock GPT-2."""
    model = getattr(bridge, "original_model", None)
    config = getattr(model, "config", None)
    stock = (
        getattr(config, "model_type", None) == "gpt2"
        and type(model).__name__ == "GPT2LMHeadModel"
        and config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
    )
    return Engine(model) if stock else None


class LiveRun:
    """Final residuals of circuits on fixed tokens [N, S], with remembered residuals (saving 3)."""

    def __init__(self, engine: Engine, tokens, budget: int = BUDGET):
        self.engine, self.tokens, self.budget = engine, tokens, budget
        self.memory: OrderedDict = (
            OrderedDict()
        )  # (layer, all positions?, circuit below) -> residual entering the layer
        self.bytes = 0

    def final_residual(self, circuit: Circuit, substitute):
        """[N, D] at the last position.

        What ``substitute`` gives for a layer may depend on the circuit up to that layer and on nothing above it: it is
        fixed, but for legacy MLP means.
        """
        n_layers = len(self.engine.blocks)
        top = max((c.layer for c in circuit if not c.is_mlp), default=-1)  # the last layer that keeps a head
        below = [frozenset(c for c in circuit if c.layer < layer) for layer in range(n_layers + 1)]
        with torch.no_grad():
            start, x = self.known(below, top)
            for layer in range(start, n_layers):
                x = self.engine.layer(layer, x, circuit, substitute, last_only=layer >= top)
                self.remember((layer + 1, layer + 1 <= top, below[layer + 1]), x)
        return x[:, -1]

    def known(self, below, top):
        """The highest layer whose input is remembered, and that input; else the embeddings."""
        for layer in range(len(below) - 1, 0, -1):
            for everywhere in (True,) if layer <= top else (False, True):
                key = (layer, everywhere, below[layer])
                if key in self.memory:
                    self.memory.move_to_end(key)
                    x = self.memory[key]
                    return layer, x if layer <= top else x[:, -1:]
        return 0, self.engine.embed(self.tokens)

    def remember(self, key, x) -> None:
        self.memory[key] = x
        self.bytes += x.numel() * x.element_size()
        while self.bytes > self.budget:
            _, old = self.memory.popitem(last=False)
            self.bytes -= old.numel() * old.element_size()
