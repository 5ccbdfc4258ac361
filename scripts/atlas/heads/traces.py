"""What happens on single prompts: a sample of a task's prompts for the atlas page.

Nothing is computed here that another module computes: patterns are those of `attention`, direct attributions those of
`attribution`, what the model would answer at each point that of `lens`; what a prompt loses when one component is
ablated stands in `component_scores.parquet`. `written` alone is new: the tokens that a component writes.

Lists over components are in the order of `components.all_components`: layer by layer, heads before the MLP.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.core import components
from atlas.core.components import Circuit, Component, all_components
from atlas.core.positions import Layout
from atlas.heads import attention, attribution, lens
from atlas.model.models import Model
from atlas.prompts import layouts
from atlas.prompts.batch import Prompts

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from atlas.circuit.task_data import TaskData

ATTENTION, ATTRIBUTION, LENS = PARTS = ("attention", "attribution", "lens")  # analyses of heads that traces show
TOP, WRITTEN = 5, 8  # tokens listed at each point of the lens, and of what a component writes
FULL = 255  # of eight bits: a weight of 1


@dataclass(frozen=True)
class Settings:
    """prompts: how many, at most. heads: of how many, beside those of circuits, attention is kept. analyses: of heads,
    which a model can be served; of an empty list nothing but what tables hold is shown. kind: of the effects by which
    the heads are chosen."""

    prompts: int
    heads: int
    analyses: Sequence[str]
    kind: str


# ---- what is traced ------------------------------------------------------------------------------------------
def largest(effects: pd.DataFrame, kind: str, n: int) -> list[Component]:
    """The n heads whose ablation moves the score of any task most, either way, the largest first.

    ``effects``: rows of `component_effects.parquet`; ``kind``: of ablation.
    """
    rows = effects[(effects["kind"] == kind) & (effects["metric"] == "percent_of_full") & (effects["head"] >= 0)]
    size = (rows["value"] - 100).abs().groupby([rows["layer"], rows["head"]]).max()
    order = sorted(size.items(), key=lambda item: (-item[1], item[0]))
    return [Component(*map(int, at)) for at, _ in order[:n]]


def shown_heads(circuits: Mapping[str, Circuit], effects: pd.DataFrame, settings: Settings) -> list[Component]:
    """Heads whose attention is kept: those of any circuit, by name, then the `largest` others."""
    inside = components.heads(frozenset().union(*circuits.values()))
    beside = [head for head in largest(effects, settings.kind, settings.heads + len(inside)) if head not in inside]
    return [*inside, *beside[: settings.heads]]


def trace(
    data: TaskData,
    tokenizer: PreTrainedTokenizerBase,
    info: Mapping[str, Any],
    heads: Sequence[Component],
    settings: Settings,
    scores: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """`traces.json` of a task, less its identity and provenance.

    ``info``: its `prompts.json`; ``heads``: whose attention is kept; ``scores``: its `component_scores.parquet`, where
    its components were ablated one at a time. Prompts are then some of those searched on, which alone have such
    scores; else some of those that results are reported on. They are spread evenly over first members and templates.
    Of a task with answers of several tokens only what tables hold is given, and the model is not loaded.
    """
    split = "search" if scores is not None else data.report_split
    given = data.frame(split)
    frame = layouts.spread(given, settings.prompts)
    several = "answer_tokens" in frame
    parts = [] if several else [part for part in PARTS if part in settings.analyses]
    found = {int(n): entry for n, entry in zip(frame["prompt"], of_tables(data, frame, info, tokenizer), strict=True)}
    if scores is not None:
        for n, kinds in ablated(scores, list(found)).items():
            found[n]["ablated"] = kinds
    written: dict[str, Any] = {}
    if not several:
        for _, own in frame.groupby("layout"):
            prompts = Prompts.from_frame(own)
            for n, entry in zip(prompts.prompt, of_model(data.model, prompts, heads, parts, tokenizer), strict=True):
                found[n] |= entry
        if ATTRIBUTION in parts:
            written = written_tokens(data.model, frame, tokenizer.decode)
    return {
        "split": split,
        "prompts_of": len(given),
        "parts": parts,
        "several_tokens": several,
        "heads": list(map(str, heads)) if ATTENTION in parts else [],
        "written": written,
        "prompts": list(found.values()),
    }


# ---- from tables ---------------------------------------------------------------------------------------------
def of_tables(
    data: TaskData, frame: pd.DataFrame, info: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Of each prompt: its texts, what each position is called, and the unablated logit difference (logits)."""
    clean = data.clean[(data.clean["run"] == "clean") & (data.clean["metric"] == "logit_diff")]
    value = dict(zip(clean["prompt"], clean["value"], strict=True))
    names = [list(Layout.of(entry).names) for entry in layouts.all_of(info)]
    return [
        {
            "prompt": int(row.prompt),
            "template": str(row.template),
            "split": row.split,
            "tokens": [tokenizer.decode([token]) for token in row.tokens],
            "corrupted": [tokenizer.decode([token]) for token in row.corrupted_tokens],
            "roles": names[int(row.layout)],
            "answer": row.answer,
            "incorrect": row.incorrect,
            "clean": float(value[row.prompt]),
        }
        for row in frame.itertuples()
    ]


def ablated(scores: pd.DataFrame, prompts: Sequence[int]) -> dict[int, dict[str, list[float]]]:
    """Prompt -> kind of ablation -> its logit difference with each component alone ablated."""
    rows = scores[(scores["metric"] == "logit_diff") & scores["prompt"].isin(set(prompts))]
    rows = rows.assign(place=rows["head"].where(rows["head"] >= 0, rows["head"].max() + 1))
    found: dict[int, dict[str, list[float]]] = {n: {} for n in prompts}
    for (prompt, kind), own in rows.groupby(["prompt", "kind"], sort=False):
        found[int(prompt)][str(kind)] = own.sort_values(["layer", "place"])["value"].tolist()
    return found


# ---- from the model ------------------------------------------------------------------------------------------
def of_model(
    model: Model,
    prompts: Prompts,
    heads: Sequence[Component],
    parts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> list[dict[str, Any]]:
    """Of each of the prompts, which have one length: its first choices, and what ``parts`` name.

    top: [token, logit]. attribution: of each component, in logits, positive for the answer; rest: [name, value] of what
    else is written; all of both sum to the logit difference (before a cap of logits). lens: of each point its name, the
    logit difference and the first choices. attention: `packed`.
    """
    decode = tokenizer.decode
    found: list[dict[str, Any]] = [{"top": top} for top in first_choices(model, prompts, decode)]
    if ATTRIBUTION in parts:
        rows = [(keys, values) for keys, values in attribution.attribute(model, prompts) if keys["part"] == "head"]
        for i, entry in enumerate(found):
            entry |= attributed([(keys, float(values[i])) for keys, values in rows], model.n_heads)
    if LENS in parts:
        read = lens.read_lenses(model, prompts, TOP)["norm"]
        for i, entry in enumerate(found):
            entry["lens"] = {
                "points": read.names,
                "value": read.logit_diff[:, i].tolist(),
                "top": [[decode([int(token)]) for token in tokens] for tokens in read.tokens[:, i]],
            }
    if ATTENTION in parts and heads:
        for batch in model.batches(len(prompts)):
            patterns = attention.patterns(model, prompts.tokens[batch], heads)
            weights = torch.stack(list(patterns.values()), 1).float().numpy()
            for entry, own in zip(found[batch], weights, strict=True):
                entry["attention"] = packed(own)
    return found


def first_choices(model: Model, prompts: Prompts, decode: Callable[..., str]) -> list[list[tuple[str, float]]]:
    """Of each prompt the tokens of the largest logits, best first, with these (logits, not less anything)."""
    found: list[list[tuple[str, float]]] = []
    for batch in model.batches(len(prompts)):
        logits = model.run(prompts.tokens[batch])
        order = lens.best(logits, TOP)
        for ids, values in zip(order.tolist(), logits.gather(1, order).tolist(), strict=True):
            found.append([(decode([token]), value) for token, value in zip(ids, values, strict=True)])
    return found


def attributed(rows: Sequence[tuple[Mapping[str, Any], float]], n_heads: int) -> dict[str, Any]:
    """``attribution`` of components and ``rest`` of one prompt, from its (keys, value) of `attribution.attribute`.

    The output biases of attention are one entry.
    """
    value = {(keys["layer"], keys["head"]): x for keys, x in rows if is_component(keys)}
    order = all_components(1 + max(layer for layer, _ in value), n_heads)
    rest: dict[str, float] = {}
    for keys, x in rows:
        if not is_component(keys):
            name = "attention biases" if keys["name"].startswith("bias ") else keys["name"]
            rest[name] = rest.get(name, 0.0) + x
    return {"attribution": [value[c] for c in order], "rest": [[name, x] for name, x in rest.items()]}


def is_component(keys: Mapping[str, Any]) -> bool:
    """Whether a row of `attribution.attribute` is what a head or an MLP writes, and no bias or embedding."""
    return bool(keys["layer"] != attribution.NO_LAYER and keys["name"] == str(Component(keys["layer"], keys["head"])))


def packed(weights: np.ndarray) -> str:
    """Attention of H heads on one prompt, [H, S, S], as base64 of bytes: head by head and query by query the weights
    on keys up to the query, times 255 and rounded (so each is right to 0.002)."""
    rows, columns = np.tril_indices(weights.shape[-1])
    return base64.b64encode(np.rint(FULL * weights[:, rows, columns]).astype(np.uint8).tobytes()).decode()


def unpacked(bits: str, tokens: int) -> np.ndarray:
    """[H, S, S] weights of what `packed` made of prompts of S ``tokens``; 0 above the diagonal."""
    rows, columns = np.tril_indices(tokens)
    flat = np.frombuffer(base64.b64decode(bits), dtype=np.uint8).reshape(-1, len(rows))
    out = np.zeros((len(flat), tokens, tokens))
    out[:, rows, columns] = flat / FULL
    return out


# ---- what components write -----------------------------------------------------------------------------------
def written_tokens(model: Model, frame: pd.DataFrame, decode: Callable[..., str]) -> dict[str, Any]:
    """Name of a component -> ``top`` and ``bottom``: [token, logits] that it raises and lowers most by itself.

    In the mean over the prompts of ``frame``: what it writes at the last position through the final norm, with the
    scale of each prompt's own run, and the unembedding, less the mean over all tokens (adding the same to every logit
    changes nothing). Biases belong to no head; a cap of logits is left out.
    """
    readout = attribution.Readout.of(model)
    total = torch.zeros(model.n_layers, model.n_heads + 1, model.d_model, dtype=torch.float64)
    for _, own in frame.groupby("layout"):
        tokens = Prompts.from_frame(own).tokens
        for batch in model.batches(len(tokens)):
            total += written(model, readout, tokens[batch]).sum(2)
    components_of = iter(all_components(model.n_layers, model.n_heads))
    found = {}
    for mean in total / len(frame):
        logits = mean.to(readout.w_u) @ readout.w_u
        logits = (logits - logits.mean(-1, keepdim=True)).cpu()
        for own, top, bottom in zip(logits, lens.best(logits, WRITTEN), lens.best(-logits, WRITTEN), strict=True):
            found[str(next(components_of))] = {
                "top": [(decode([int(token)]), float(own[token])) for token in top],
                "bottom": [(decode([int(token)]), float(own[token])) for token in bottom],
            }
    return found


def written(model: Model, readout: attribution.Readout, tokens: torch.Tensor) -> torch.Tensor:
    """[L, H + 1, N, D] what heads and MLPs write at the last position of tokens [N, S], through the final norm.

    Its inner product with a column of the unembedding is a direct logit. A norm behind attention acts with the scale
    that it has in the run (as in `attribution.directions`).
    """
    stream, out = attribution.read_stream(model, tokens), []
    scale = readout.scale(stream.resid_post)
    for layer in range(model.n_layers):
        w_o, b_o = attribution.widened(model.w_o(layer), model.b_o(layer))
        heads, norm = torch.einsum("nhd,hdm->hnm", stream.z[layer], w_o), model.norm_attn_out(layer)
        if norm is not None:
            whole = heads.sum(0) if b_o is None else heads.sum(0) + b_o
            heads = norm.linear(heads) * norm.scale(whole)
        writes = torch.cat((heads, stream.mlp_out[layer][None]))
        out.append(readout.centre(writes) / scale * readout.weight)
    return torch.stack(out).cpu().double()
