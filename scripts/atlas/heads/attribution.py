"""Direct logit attribution: what each write to the residual stream adds to the logit difference by itself.

A write u of D numbers at the last position adds norm(u) . (W_U[answer] - W_U[incorrect]), where the final norm
acts with the scale it has in the prompt's own run: (u - mean u) / scale x weight for LayerNorm, u / scale x weight for
RMSNorm (methods: section 6). The final norm's bias and b_U are added once, by no component, and have rows of their own,
as has each layer's b_O; a head's row is z W_O. An MLP's row holds its output bias. Where a norm stands behind attention
(Gemma 2, OLMo 2), z W_O and b_O go through it with the scale that it has in that run, as they do through the final one,
and an MLP's write is what the norm behind it gives. So the rows of a prompt sum to its logit difference, which is
checked on every prompt. Where a model caps its logits, they sum to the difference before the cap.

TransformerLens gives the same numbers by `logit_attrs` where its weights are folded (the norm's weight into W_U); on
the checkpoint's own weights, as here, its stacks lack the norm's weight and the two biases.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from atlas.core.components import MLP, Component
from atlas.core.errors import StudyError
from atlas.core.metrics import per_prompt
from atlas.core.statistics import Bootstrap, interval_columns
from atlas.model.models import Hook, Model, mlp_hook, z_hook
from atlas.prompts.batch import Prompts
from atlas.store.job import progress

COLUMNS = ["part", "name", "layer", "head", "value", "ci_low", "ci_high"]
NO_LAYER = -1  # of rows that belong to no layer


# ---- the residual stream -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stream:
    """What is written to the residual stream at the last position of N prompts, at least float32."""

    embed: torch.Tensor  # [N, D]; all that enters the first layer where it is no plain sum of tokens and positions
    positions: torch.Tensor | None  # [N, D]; None for models without position embeddings, and in that case
    z: torch.Tensor  # [L, N, H, d_head]
    attn_out: torch.Tensor  # [L, N, D]
    mlp_out: torch.Tensor  # [L, N, D]
    resid_pre: torch.Tensor  # [L, N, D]
    resid_post: torch.Tensor  # [N, D] after the last layer
    logits: torch.Tensor  # [N, d_vocab]

    def points(self) -> torch.Tensor:
        """[2 L + 1, N, D]: the residual before each layer and after its attention, and after the last layer.

        The middle of a layer is resid_pre + attn_out, also where attention and MLP run in parallel.
        """
        inside = torch.stack((self.resid_pre, self.resid_pre + self.attn_out), 1).flatten(0, 1)
        return torch.cat((inside, self.resid_post[None]))


def point_names(n_layers: int) -> list[str]:
    """Names of `Stream.points`."""
    return [f"{point} {layer}" for layer in range(n_layers) for point in ("resid_pre", "resid_mid")] + ["resid_post"]


def read_stream(model: Model, tokens: torch.Tensor, edits: Iterable[Hook] = ()) -> Stream:
    """Run one batch of tokens [N, S], with (hook name, function) ``edits``, and read the last position."""
    found: dict[str, torch.Tensor] = {}

    def saver(name: str) -> Callable[..., torch.Tensor]:
        def hook(x: torch.Tensor, hook: object) -> torch.Tensor:
            last = x[:, -1].detach()
            found[name] = last.to(torch.promote_types(last.dtype, torch.float32))
            return x

        return hook

    learned, layers = "pos_embed.hook_out", range(model.n_layers)
    names = ["hook_embed", f"blocks.{model.n_layers - 1}.hook_resid_post"]
    positional = model.weights.w_pos is not None if model.weights else learned in model.bridge.hook_dict
    names += [learned] if positional else []
    each: dict[str, Callable[[int], str]] = {
        "z": z_hook,
        "attn_out": lambda layer: f"blocks.{layer}.hook_attn_out",
        "mlp_out": mlp_hook,
        "resid_pre": lambda layer: f"blocks.{layer}.hook_resid_pre",
    }
    names += [name(layer) for name in each.values() for layer in layers]
    logits = model.run(tokens, [*edits, *((name, saver(name)) for name in names)])
    embed, first = found["hook_embed"], found["blocks.0.hook_resid_pre"]
    positions = found[learned].expand(len(tokens), -1) if learned in found else None
    if not torch.allclose(embed if positions is None else embed + positions, first, rtol=1e-2, atol=1e-4):
        embed, positions = first, None  # scaled or normed on its way in: what enters the first layer, as one write
    return Stream(
        embed=embed,
        positions=positions,
        **{key: torch.stack([found[name(layer)] for layer in layers]) for key, name in each.items()},
        resid_post=found[names[1]],
        logits=logits,
    )


# ---- the end of the model ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Readout:
    """The final norm and the unembedding, in float32 at least, whatever the model's dtype.

    Factors of the logits that a model has (Cohere, Granite) are in ``w_u`` and ``b_u``, a norm's offset of 1 (Gemma) in
    ``weight``. ``cap`` c of a model that caps its logits (Gemma 2): they are c tanh(x / c).
    """

    weight: torch.Tensor  # [D]
    bias: torch.Tensor | None  # [D]
    eps: float
    centred: bool  # LayerNorm subtracts the mean, RMSNorm does not
    w_u: torch.Tensor  # [D, d_vocab]
    b_u: torch.Tensor | None  # [d_vocab]
    cap: float | None = None

    @classmethod
    def of(cls, model: Model) -> "Readout":
        """Raises StudyError where a model has no final norm that is LayerNorm or RMSNorm."""
        if not model.weights:
            return cls._of_bridge(model.bridge)
        norm, w = model.weights.norm_final, model.weights
        weight, bias, w_u, b_u = widened(norm.weight, norm.bias, w.w_u.T, w.b_u)
        if w.logit_factor is not None:
            w_u, b_u = w_u * w.logit_factor, b_u if b_u is None else b_u * w.logit_factor
        return cls(weight, bias, norm.eps, norm.centred, w_u, b_u, w.logit_cap)

    @classmethod
    def _of_bridge(cls, bridge: Any) -> "Readout":
        norm = bridge.ln_final if "ln_final" in bridge.adapter.component_mapping else None
        own = getattr(norm, "original_component", None)
        if norm is None or own is None:
            raise StudyError("models: this model has no final norm; attribution and lens read through one")
        w_u, b_u = widened(bridge.W_U, bridge.b_U)
        weight, bias = widened(getattr(own, "weight", None), getattr(own, "bias", None))
        if weight is None:  # a norm without parameters (OLMo)
            weight = torch.ones_like(w_u[:, 0])
        if norm.uses_weight_offset:
            weight = 1 + weight
        eps = getattr(own, "eps", getattr(own, "variance_epsilon", bridge.cfg.eps))
        cap = getattr(bridge.cfg, "output_logits_soft_cap", None)
        cap = float(cap) if cap and cap > 0 else None
        factor = slope(bridge.adapter.apply_output_logits_transform)
        centred = not norm.uses_rms_norm
        return cls(weight, bias if centred else None, eps, centred, w_u * factor, b_u * factor, cap)

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 1] what the final norm divides the (centred) residual x [..., D] by."""
        return (self.centre(x).pow(2).mean(-1, keepdim=True) + self.eps).sqrt()

    def centre(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., D] less its mean, where the final norm subtracts it; else as it is."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """The final norm of residuals [..., D], each with its own scale."""
        x = self.centre(x) / self.scale(x) * self.weight
        return x if self.bias is None else x + self.bias

    def unembed(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [..., d_vocab] of normed residuals [..., D]."""
        x = self.uncapped(x)
        return x if self.cap is None else self.cap * torch.tanh(x / self.cap)

    def uncapped(self, x: torch.Tensor) -> torch.Tensor:
        """[..., d_vocab] the same before any cap: what is linear in the residual."""
        x = x @ self.w_u
        return x if self.b_u is None else x + self.b_u


def widened(*tensors: torch.Tensor | None) -> list[Any]:
    """Tensors of any shape, or None, in float32 at least and without gradients."""
    return [None if x is None else x.detach().to(torch.promote_types(x.dtype, torch.float32)) for x in tensors]


def slope(transform: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """By what a model multiplies its logits (of any shape), before any cap: the slope at 0."""
    step = 1e-3
    return float(transform(torch.tensor(step, dtype=torch.float64))) / step


@dataclass(frozen=True)
class Attributor:
    """Attribution of anything that is written in one batch of runs."""

    direction: torch.Tensor  # [N, D]; a write's attribution is its inner product with it
    norm_bias: torch.Tensor  # [N]; zeros where the final norm has none, likewise below
    unembedding_bias: torch.Tensor  # [N]

    @classmethod
    def of(
        cls, readout: Readout, resid_post: torch.Tensor, answer: torch.Tensor, incorrect: torch.Tensor
    ) -> "Attributor":
        """``resid_post`` [N, D]: the final residual whose scale is used; ``answer``, ``incorrect``: [N] token ids."""
        unembedded = (readout.w_u[:, answer] - readout.w_u[:, incorrect]).T
        direction = readout.centre(unembedded * readout.weight) / readout.scale(resid_post)
        zeros = direction.new_zeros(len(direction))
        return cls(
            direction,
            zeros if readout.bias is None else unembedded @ readout.bias,
            zeros if readout.b_u is None else readout.b_u[answer] - readout.b_u[incorrect],
        )

    def __call__(self, writes: torch.Tensor) -> torch.Tensor:
        """[..., N] of writes [..., N, D]."""
        return (writes * self.direction).sum(-1)


def directions(model: Model, z: torch.Tensor, attributor: Attributor) -> torch.Tensor:
    """[L, N, D]: what z W_O of a layer's heads, and its b_O, are attributed by, as an inner product.

    Where a norm stands behind attention it acts with the scale that it has in this run, that of the whole attention's
    output, which z [L, N, H, d_head] at the last position gives; so that the shares of the heads and of b_O sum to what
    reaches the residual stream.
    """
    found = []
    for layer, own in enumerate(z):
        norm, direction = model.norm_attn_out(layer), attributor.direction
        if norm is not None:
            w_o, b_o = widened(model.w_o(layer), model.b_o(layer))
            whole = torch.einsum("nhd,hdm->nm", own, w_o)
            direction = norm.back(direction) * norm.scale(whole if b_o is None else whole + b_o)
        found.append(direction)
    return torch.stack(found)


def head_attribution(model: Model, z: torch.Tensor, attributor: Attributor) -> torch.Tensor:
    """[L, H, N] attribution of heads, b_O left out, from their z [L, N, H, d_head] at the last position."""
    out = []
    for layer, (own, direction) in enumerate(zip(z, directions(model, z, attributor), strict=True)):
        read = torch.einsum("hdm,nm->nhd", model.w_o(layer).to(own.dtype), direction)
        out.append((own * read).sum(-1).T)
    return torch.stack(out)


# ---- attribution of a task -----------------------------------------------------------------------------------
def attribute(model: Model, prompts: Prompts) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Every row of the table: its keys (part, name, layer, head) and its values per prompt [N].

    Parts: ``accumulated``, the residual at each point (without the constant rows, so that the last point plus the two
    constant rows is the logit difference); ``write``, each attention layer and MLP; ``head``, heads in place of
    attention layers. Rows of ``write``, and of ``head``, sum to the logit difference.

    Raises StudyError where they do not: where the model's output is something else than norm and unembedding.
    """
    if prompts.position is not None:
        raise ValueError("attribution reads prompts at their last token; give it prompts without padding")
    readout, parts = Readout.of(model), []
    keys: list[dict[str, Any]] = []
    for batch in progress(model.batches(len(prompts)), "attribution"):
        stream = read_stream(model, prompts.tokens[batch])
        answer, incorrect = (x[batch].to(model.device) for x in (prompts.answer, prompts.incorrect))
        rows = batch_rows(model, stream, Attributor.of(readout, stream.resid_post, answer, incorrect))
        logits = stream.logits if readout.cap is None else readout.uncapped(readout.norm(stream.resid_post))
        logit_diff = per_prompt(["logit_diff"], logits, answer, incorrect)["logit_diff"]
        refuse_a_remainder(rows, logit_diff, model.dtype)
        keys = [k for k, _ in rows]
        parts.append(torch.stack([values for _, values in rows]).double().cpu().numpy())
    return list(zip(keys, np.concatenate(parts, axis=1), strict=True))


def batch_rows(model: Model, stream: Stream, attributor: Attributor) -> list[tuple[dict[str, Any], torch.Tensor]]:
    """(keys, values [n]) of the rows of one batch, in the order of the forward pass; see `attribute`."""

    def row(
        part: str, name: str, values: torch.Tensor, layer: int = NO_LAYER, head: int = MLP
    ) -> tuple[dict[str, Any], torch.Tensor]:
        return {"part": part, "name": name, "layer": layer, "head": head}, values

    by_head, read = head_attribution(model, stream.z, attributor), directions(model, stream.z, attributor)
    layers = range(model.n_layers)
    out = []
    for i, (name, values) in enumerate(zip(point_names(model.n_layers), attributor(stream.points()), strict=True)):
        out.append(row("accumulated", name, values, min(i // 2, model.n_layers - 1)))
    for part in ("write", "head"):
        out.append(row(part, "embed", attributor(stream.embed)))
        if stream.positions is not None:
            out.append(row(part, "positions", attributor(stream.positions)))
        for layer in layers:
            if part == "write":
                out.append(row(part, f"attn {layer}", by_head[layer].sum(0), layer))
            else:
                out += [row(part, str(Component(layer, h)), x, layer, h) for h, x in enumerate(by_head[layer])]
            b_o = model.b_o(layer)
            if b_o is not None:
                out.append(row(part, f"bias {layer}", read[layer] @ b_o.to(read.dtype), layer))
            out.append(row(part, str(Component(layer)), attributor(stream.mlp_out[layer]), layer))
        out.append(row(part, "final norm bias", attributor.norm_bias))
        out.append(row(part, "unembedding bias", attributor.unembedding_bias))
    return out


def refuse_a_remainder(
    rows: list[tuple[dict[str, Any], torch.Tensor]], logit_diff: torch.Tensor, dtype: torch.dtype
) -> None:
    """Refuse rows that do not sum to ``logit_diff`` [N], up to the rounding of the model's dtype.

    At least float32's: some norms round to it in any model.
    """
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    for part in ("write", "head"):
        values = torch.stack([v for k, v in rows if k["part"] == part])
        rest = (values.sum(0) - logit_diff).abs()
        allowed = 100 * eps * (1 + values.abs().sum(0))
        if (rest > allowed).any():
            raise StudyError(
                f"models: attributions to each {part} leave {float(rest.max()):.3g} of a logit difference unexplained; "
                "this model's output is not its final norm and unembedding alone, and attribution does not apply"
            )


def attribution_rows(
    attributed: Iterable[tuple[dict[str, Any], np.ndarray]], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """The rows of `attribution.parquet` less model and task, of (keys, values [N]): means over prompts, in logits.

    Positive: what is written raises the logit difference.
    """
    return [keys | interval_columns(bootstrap.mean(values)) for keys, values in attributed]
