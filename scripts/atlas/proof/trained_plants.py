"""Trained plants: an ordinary GPT-2 whose circuit is known because training put it there (nodes only).

Exact plants prove a method on models that no training would give. Here norms are ordinary and attention is soft. The
model is trained so that exchanging the activations of anything outside the planted nodes leaves the *whole logit
vector* as it is, and exchanging those of a planted node gives the logits of the prompt that they come from. On logits,
not on accuracy: training on the right label alone leaves much of the effect outside.

Two forward passes a step. The first runs prompts and records all activations; it is also trained on the answers. The
second runs them again, with some components of each row taken from a partner row (or, for components outside, from the
mean over the batch or zero): (a) random sets outside the nodes, target: the row's own logits; (b) one planted node with
random sets outside, target: the partner's logits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from atlas.core.components import Circuit, all_components
from atlas.core.errors import StudyError
from atlas.proof.fixtures import FILLER, KINDS, SERIES, Expected, Fixture, circuit, every_kind
from atlas.proof.planted import BOS, FILLERS, LOGIT, MEMBERS, VOCABULARY, M, Plan, tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

N_LAYERS, N_HEADS, D_MODEL = 2, 4, 64
STEPS = 1000  # half a minute on one core
SHARE_ALLOWED = 0.01  # of effect outside the nodes; see `certificate`


def new_model(seed: int) -> GPT2LMHeadModel:
    """An untrained GPT-2 of 2 layers, 4 heads and D = 64, the same for the same ``seed``; seeds torch."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_positions=len(SERIES) + 1,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        initializer_range=0.1,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def random_prompts(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n, S] laid out as `SERIES` but with random members, and the last member's index [n]."""
    first_member, first_filler = VOCABULARY.index(MEMBERS[0]), VOCABULARY.index(FILLERS[0])
    members = rng.integers(M, size=(n, len(SERIES)))
    fillers = rng.integers(len(FILLERS), size=(n, len(SERIES)))
    is_filler = np.array([slot == FILLER for slot in SERIES])
    tokens = np.where(is_filler, first_filler + fillers, first_member + members)
    bos = np.full((n, 1), VOCABULARY.index(BOS))
    last = max(i for i, slot in enumerate(SERIES) if slot != FILLER)
    return torch.tensor(np.hstack([bos, tokens])), torch.tensor(members[:, last])


def wanted(last: torch.Tensor) -> torch.Tensor:
    """Target logits [n, d_vocab]: ``LOGIT`` for the successor of the last member, 0 for everything else."""
    out = torch.zeros(len(last), len(VOCABULARY))
    out[torch.arange(len(last)), VOCABULARY.index(MEMBERS[0]) + (last + 1) % M] = LOGIT
    return out


class Exchange:
    """Hooks that record activations of a GPT-2 or put others in their place, row by row.

    Activations: ``z`` and ``mlp`` are lists by layer of [n, S, H, d_head] and [n, S, D].
    """

    def __init__(self, model: Any) -> None:
        self.recorded: dict[str, dict[int, torch.Tensor]] = {"z": {}, "mlp": {}}
        # (activations, mask [n, L, H + 1]; the last column is the MLP)
        self.put: tuple[dict[str, Any], torch.Tensor] | None = None
        self.handles = []
        for layer, block in enumerate(model.transformer.h):
            before, after = block.attn.c_proj.register_forward_pre_hook, block.mlp.register_forward_hook
            self.handles.append(before(lambda _, args, layer=layer: (self.z(layer, args[0]),)))
            self.handles.append(after(lambda _, args, out, layer=layer: self.mlp(layer, out)))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def z(self, layer: int, flat: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = flat.unflatten(-1, (N_HEADS, -1))
        self.recorded["z"][layer] = z
        if self.put:
            source, mask = self.put
            z = torch.where(mask[:, layer, None, :N_HEADS, None], source["z"][layer], z)
        return z.flatten(-2)

    def mlp(self, layer: int, out: torch.Tensor) -> torch.Tensor:
        self.recorded["mlp"][layer] = out
        if self.put:
            source, mask = self.put
            out = torch.where(mask[:, layer, N_HEADS, None, None], source["mlp"][layer], out)
        return out


def mask_of(components: Iterable[Any]) -> torch.Tensor:
    """[L, H + 1] True at these components."""
    mask = torch.zeros(N_LAYERS, N_HEADS + 1, dtype=torch.bool)
    for c in components:
        mask[c.layer, c.head] = True  # head -1, the MLP, is the last column
    return mask


def sources(recorded: dict[str, Any], partner: torch.Tensor, kind: str) -> dict[str, Any]:
    """What replaces the activations of row i: those of row partner[i], their mean over the batch, or zeros."""

    def of(x: torch.Tensor) -> torch.Tensor:
        if kind == "zero":
            return torch.zeros_like(x)
        return x.mean(0, keepdim=True).expand_as(x) if kind == "mean" else x[partner]

    return {name: {layer: of(x) for layer, x in layers.items()} for name, layers in recorded.items()}


def train(nodes: Circuit, steps: int, seed: int = 0, rows: int = 64, rate: float = 3e-3) -> GPT2LMHeadModel:
    """A model with these planted nodes; deterministic for one machine and number of threads."""
    model, rng = new_model(seed), np.random.default_rng(seed)
    exchange = Exchange(model)
    everything = all_components(N_LAYERS, N_HEADS)
    inside = torch.stack([mask_of([node]) for node in sorted(nodes)])
    outside = mask_of(set(everything) - set(nodes))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        tokens, last = random_prompts(rng, rows)
        partner, half = torch.tensor(rng.permutation(rows)), rows // 2
        exchange.put = None
        loss = (model(tokens).logits[:, -1] - wanted(last)).square().mean()
        recorded = {name: dict(layers) for name, layers in exchange.recorded.items()}

        share = torch.tensor(rng.choice([0.2, 0.5, 1.0], size=(rows, 1, 1)))
        mask = outside & (torch.tensor(rng.random((rows, *outside.shape))) < share)
        kind = ("resample", "mean", "resample", "zero")[step % 4]
        source = sources(recorded, partner, kind)
        target = last.clone()
        if kind == "resample":  # the other half: one node comes from the partner, and the answer with it
            mask[half:] |= inside[torch.tensor(rng.integers(len(inside), size=rows - half))]
            target[half:] = last[partner][half:]
        exchange.put = (source, mask)
        loss = loss + (model(tokens).logits[:, -1] - wanted(target)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    exchange.remove()
    model.eval()
    return model


def certificate(model: GPT2LMHeadModel, nodes: Circuit, seed: int = 1, rows: int = 512) -> dict[str, dict[str, float]]:
    """How far the planted nodes are the whole truth, on fresh random prompts; kind -> set of components -> share.

    The change of the logits [n, d_vocab] when a set is ablated, as root mean square, in units of the change when the
    planted nodes take the activations of other prompts. ``outside`` all else together, ``worst`` the worst single
    component outside, ``weakest`` the planted node with the least change (interchange only).
    """
    exchange, everything = Exchange(model), all_components(N_LAYERS, N_HEADS)
    rng = np.random.default_rng(seed)
    tokens, _ = random_prompts(rng, rows)
    partner = torch.tensor(rng.permutation(rows))

    def logits(source: dict[str, Any] | None = None, components: Iterable[Any] = ()) -> torch.Tensor:
        exchange.put = (source, mask_of(components).expand(rows, -1, -1)) if source else None
        with torch.no_grad():
            found: torch.Tensor = model(tokens).logits[:, -1]
        return found

    clean = logits()
    recorded = {name: dict(layers) for name, layers in exchange.recorded.items()}

    def change(kind: str, components: Iterable[Any]) -> float:
        return float((logits(sources(recorded, partner, kind), components) - clean).square().mean().sqrt())

    unit, outside, out = change("resample", nodes), [c for c in everything if c not in nodes], {}
    for kind in KINDS:
        out[kind] = {"outside": change(kind, outside) / unit, "worst": max(change(kind, [c]) for c in outside) / unit}
    out["resample"]["weakest"] = min(change("resample", [c]) for c in nodes) / unit
    exchange.remove()
    return out


def certified(fixture: Fixture, folder: Path) -> dict[str, dict[str, float]]:
    """The `certificate` of a fixture that was built in a folder; raises StudyError where too much lies outside."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = certificate(model, fixture.nodes["resample"])
    share = found["resample"]["outside"]
    if share > SHARE_ALLOWED:
        raise StudyError(f"{fixture.id}: {share:.2%} of the effect lies outside the planted nodes; train it longer")
    return found


@dataclass(frozen=True)
class TrainedFixture(Fixture):
    """A fixture whose model is trained when it is built; it states nodes, and no edges or exact effects."""

    steps: int = STEPS

    def build(self, folder: Path | str) -> Path:
        model = train(self.nodes["resample"], self.steps, self.plan.seed)
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return Path(folder)


def trained(steps: int = STEPS) -> TrainedFixture:
    """0.1 finds the last member, m1 writes its successor; ordinary norms."""
    nodes = circuit("0.1 m1")
    return TrainedFixture(
        name="trained",
        family="gpt2",
        shows="ordinary norms and soft attention; the truth holds to less than 1 %, not exactly",
        plan=Plan((), seed=0),
        nodes=every_kind(nodes),
        edges={},
        full=LOGIT,
        effects=(),
        expected=(Expected((nodes,)),),
        steps=steps,
    )
