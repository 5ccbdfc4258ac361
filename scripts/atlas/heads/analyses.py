"""Which analyses a model can be served, found out on a few tokens before anything is computed.

What is read through the final norm must give the model's own logits; what is said of single heads needs that a layer's
attention writes the sum of what its heads write to the residual stream, through no norm but one whose place is known to
the live engine; edges need that engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from atlas.core.errors import StudyError
from atlas.heads.attention import pattern_hook
from atlas.heads.attribution import Readout, Stream, read_stream, widened
from atlas.heads.patching import BY_POSITION, hook_name
from atlas.model.models import Model, z_hook

HEADS = ("patching", "attribution", "lens", "attention", "detectors", "ov", "backup")  # `heads.analyses`
EDGES = "edges"
LENGTH = 24  # tokens of the texts that it is found out on
TOLERANCE = 1e-3  # of the largest number, in float32; wrong norms and scales are off by tenths

Reasons = dict[str, str]  # analysis -> why the model cannot be served it


def reasons(model: Model, tokens: torch.Tensor) -> Reasons:
    """Why each of the analyses that do not apply does not, on tokens [N, S]; none of those that apply."""
    found: Reasons = {}
    if model.weights is None:
        found[EDGES] = "its architecture has no live engine"
    reason = attention_reason(model, tokens)
    found |= dict.fromkeys(("patching", "attention", "detectors"), reason) if reason else {}
    reason = reason or edit_reason(model, tokens)
    found |= {"patching": reason} if reason else {}
    try:
        readout, stream = Readout.of(model), read_stream(model, tokens)
    except (StudyError, KeyError) as error:
        said = "it has no final norm after its last layer" if isinstance(error, StudyError) else f"it has no {error}"
        return found | dict.fromkeys(("lens", "attribution", "ov", "backup"), said)
    reason = readout_reason(readout, stream, model.dtype)
    found |= dict.fromkeys(("lens", "attribution", "ov", "backup"), reason) if reason else {}
    reason = reason or heads_reason(model, stream)
    found |= {name: reason for name in ("attribution", "ov", "backup") if reason}
    return found


def close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> bool:
    """Equal, in one shape, to the rounding of a model's dtype, against the largest number in ``b``."""
    allowed = max(TOLERANCE, 32 * torch.finfo(dtype).eps)
    return bool((a - b).abs().max() <= allowed * b.abs().max())


def readout_reason(readout: Readout, stream: Stream, dtype: torch.dtype) -> str:
    """Are the logits the final norm and unembedding of the residual, and the residual the sum of what is written?"""
    if not close(readout.unembed(readout.norm(stream.resid_post)), stream.logits, dtype):
        return "its logits are not its final norm and unembedding alone"
    after = torch.cat((stream.resid_pre[1:], stream.resid_post[None]))
    if not close(stream.resid_pre + stream.attn_out + stream.mlp_out, after, dtype):
        return "its layers do more than add what attention and MLP write to the residual stream"
    return ""


def heads_reason(model: Model, stream: Stream) -> str:
    """Does the attention of a layer write the sum of what its heads write, through a norm that is known or none?"""
    for layer, z in enumerate(stream.z):
        w_o, b_o = widened(model.w_o(layer), model.b_o(layer))
        written, norm = torch.einsum("nhd,hdm->nm", z, w_o), model.norm_attn_out(layer)
        written = written if b_o is None else written + b_o
        if not close(written if norm is None else norm(written), stream.attn_out[layer], model.dtype):
            return "what its heads write is normed or scaled before it reaches the residual stream"
    return ""


def attention_reason(model: Model, tokens: torch.Tensor) -> str:
    """Are the patterns, on tokens [N, S], shares of earlier positions, by which values are mixed to z?"""
    seen: dict[str, torch.Tensor] = {}

    def save(key: str) -> Callable[..., None]:
        def hook(x: torch.Tensor, hook: object) -> None:
            seen[key] = x.detach().float()

        return hook

    names = {"pattern": pattern_hook(0), "v": "blocks.0.attn.hook_v", "z": z_hook(0)}
    model.run(tokens, [(name, save(key)) for key, name in names.items()])
    pattern, v, z = (seen[key] for key in names)
    if not close(pattern.sum(-1), torch.ones_like(pattern[..., 0]), model.dtype) or pattern.triu(1).any():
        return "its attention weights are no shares of earlier positions"
    v = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
    if not close(torch.einsum("nhqk,nkhd->nqhd", pattern, v), z, model.dtype):
        return "its heads do more than mix values by their attention weights"
    return ""


def edit_reason(model: Model, tokens: torch.Tensor) -> str:
    """On the bridge, on tokens [N, S]: does an edit of each activation that is patched change the logits?"""
    if model.weights:
        return ""  # its patches run on the engine
    clean = model.run(tokens)
    for site in (*BY_POSITION, "z", "q", "k", "v"):
        edit = (hook_name(site, 0), lambda x, hook: x.flip(1))
        if torch.equal(model.run(tokens, [edit]), clean):
            return f"TransformerLens cannot edit its {site}"
    return ""


def refuse(name: str, kind: str, wanted: Mapping[str, Sequence[str]], found: Reasons) -> None:
    """Raise StudyError, with one line, where a study wants what its model cannot be served.

    ``wanted``: key of the configuration -> the analyses it asks for; `edges.methods` asks for edges or for nothing.
    """
    lacking = [analysis for names in wanted.values() for analysis in names if analysis in found]
    if not lacking:
        return
    parts = {reason: [a for a in lacking if found[a] == reason] for reason in dict.fromkeys(found[a] for a in lacking)}
    why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in parts.items())
    remedies = [
        f"{key}: [{', '.join(a for a in names if a not in found)}]"
        for key, names in wanted.items()
        if {*names} & {*found}
    ]
    raise StudyError(f"models.{name}: {kind} cannot be served {why}; set {' and '.join(remedies)}")
