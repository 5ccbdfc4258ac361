"""Trained plants: ordinary models whose circuit is known because training put it there (nodes only).

Exact plants prove a method on models that no training would give. Here norms are ordinary and attention is soft. The
model is trained so that exchanging the activations of anything outside the planted nodes leaves the *whole logit
vector* as it is, and exchanging those of planted nodes gives the logits that the plant's program says (`programs`). On
logits, not on accuracy: training on the right label alone leaves much of the effect outside.

Two forward passes a step. The first runs prompts and records all activations; it is also trained on the answers. The
second runs them again, with some components of each row taken from a partner row (or, for components outside and those
that a program can spare, from the mean over the batch or zero): (a) random sets outside the nodes, target: the row's
own logits; (b) planted nodes with random sets outside, target: the program's logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas.core.components import all_components
from atlas.core.errors import StudyError
from atlas.proof import programs
from atlas.proof.fixtures import KINDS, Expected, Fixture, circuit, every_kind
from atlas.proof.planted import LOGIT, VOCABULARY, Plan, tokenizer
from atlas.proof.programs import Program

N_LAYERS, N_HEADS, D_MODEL = 2, 4, 64
HINTED = 0.4  # of the steps, where a program has hints
STEPS, RATE = 1000, 3e-3  # half a minute on one core
# Smaller MLPs and a fused activation: a fifth less time for programs that need more steps
QUICK: dict[str, Any] = {"rate": 5e-3, "config": {"n_inner": 128, "activation_function": "gelu_pytorch_tanh"}}
SHARE_ALLOWED = 0.01  # of effect outside the nodes; see `certificate`
OFF_ALLOWED = 0.05  # from what the program says, when nodes are exchanged or spared; see `certificate`


def new_model(seed: int, family: str, positions: int, **more: Any) -> Any:
    """An untrained GPT-2 or Llama of 2 layers, 4 heads and D = 64, the same for the same ``seed``; seeds torch.

    ``more``: keys of its config. The Llama has rotary positions, RMSNorm, a gated MLP, and two query heads for each
    key/value head.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    common: dict[str, Any] = {"vocab_size": len(VOCABULARY), "initializer_range": 0.1}
    common |= {"bos_token_id": 0, "eos_token_id": 0} | more
    if family == "gpt2":
        dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        sizes = {"n_positions": positions, "n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": N_HEADS}
        return GPT2LMHeadModel(GPT2Config(**common, **sizes, **dropouts))
    sizes = {"hidden_size": D_MODEL, "intermediate_size": 4 * D_MODEL, "num_hidden_layers": N_LAYERS}
    sizes |= {"num_attention_heads": N_HEADS, "num_key_value_heads": N_HEADS // 2, "max_position_embeddings": positions}
    return LlamaForCausalLM(LlamaConfig(**common, **sizes))


class Exchange:
    """Hooks that record activations of a model or put others in their place, row by row.

    Activations: ``z`` and ``mlp`` are lists by layer of [n, S, H, d_head] and [n, S, D].
    """

    def __init__(self, model: Any) -> None:
        self.recorded: dict[str, dict[int, torch.Tensor]] = {"z": {}, "mlp": {}}
        # (activations, mask [n, L, H + 1]; the last column is the MLP)
        self.put: tuple[dict[str, Any], torch.Tensor] | None = None
        self.handles = []
        is_gpt2 = hasattr(model, "transformer")
        for layer, block in enumerate(model.transformer.h if is_gpt2 else model.model.layers):
            out = block.attn.c_proj if is_gpt2 else block.self_attn.o_proj
            before, after = out.register_forward_pre_hook, block.mlp.register_forward_hook
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


def swaps(program: Program, mask: torch.Tensor) -> dict[Any, torch.Tensor]:
    """Planted node -> [n] which rows of a mask [n, L, H + 1] exchange it."""
    return {node: mask[:, node.layer, node.head] for node in program.nodes}


def unlike_hints(program: Program, own: torch.Tensor, attentions: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean of minus the log of the weight on what the heads of a program are told to attend to.

    ``attentions``: of each layer [n, H, S, S].
    """
    assert program.hints
    rows = torch.arange(len(own))
    weights = [attentions[head.layer][rows, head.head, query, key] for head, query, key in program.hints(own)]
    return -torch.stack(weights).clamp_min(1e-6).log().mean()


def train(
    program: Program, family: str, steps: int, seed: int = 0, rows: int = 64, rate: float = RATE, **config: Any
) -> Any:
    """A model that computes a program in its nodes; deterministic for one machine and number of threads.

    ``rate``: the highest learning rate. ``config``: see `new_model`.
    """
    config |= {"attn_implementation": "eager"} if program.hints else {}  # which gives attention weights
    model, rng = new_model(seed, family, len(program.slots) + 1, **config), np.random.default_rng(seed)
    hinted = round(HINTED * steps) if program.hints else 0
    exchange = Exchange(model)
    moves = torch.stack([mask_of(move) for move in program.moves])
    replaced = [mask_of(nodes) for nodes in (*program.spare, *program.silent)]
    outside = mask_of(set(all_components(N_LAYERS, N_HEADS)) - set(program.nodes))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        tokens, own = program.draw(rng, rows)
        partner, half = program.partners(rng, rows), rows // 2
        exchange.put = None
        out = model(tokens, output_attentions=step < hinted)
        loss = (out.logits[:, -1] - program.target(own, own, frozenset())).square().mean()
        if step < hinted:
            loss = loss + (1 - step / hinted) * unlike_hints(program, own, out.attentions)
        recorded = {name: dict(layers) for name, layers in exchange.recorded.items()}

        share = torch.tensor(rng.choice([0.2, 0.5, 1.0], size=(rows, 1, 1)))
        mask = outside & (torch.tensor(rng.random((rows, *outside.shape))) < share)
        kind = ("resample", "mean", "resample", "zero")[step % 4]
        source = sources(recorded, partner, kind)
        sets = moves if kind == "resample" else replaced  # the other half of the rows: planted nodes too
        target = program.target(own, own, frozenset())
        if len(sets):
            which = torch.tensor(rng.integers(len(sets), size=rows - half))
            mask[half:] |= torch.stack(list(sets))[which]
            if kind != "resample":
                target[half:][which >= len(program.spare)] = 0
        if kind == "resample":
            target = program.logits(own, own[partner], swaps(program, mask))
        exchange.put = (source, mask)
        loss = loss + (model(tokens).logits[:, -1] - target).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    exchange.remove()
    model.eval()
    return model


def certificate(model: Any, program: Program, seed: int = 1, rows: int = 512) -> dict[str, dict[str, float]]:
    """How far a program in its nodes is the whole truth, on fresh random prompts; kind -> set of components -> share.

    The change of the logits [n, d_vocab] when a set is ablated, as root mean square, in units of the change when the
    planted nodes take the activations of other prompts. ``outside``: all else together; ``worst``: the worst single
    component outside. Of interchange alone: ``weakest``, the move of the program that changes least; ``program``, how
    far the logits are from those that the program says, over the worst of its moves; where it says what replaced nodes
    leave, the same of means and zeros.
    """
    exchange, everything = Exchange(model), all_components(N_LAYERS, N_HEADS)
    rng = np.random.default_rng(seed)
    tokens, own = program.draw(rng, rows)
    partner = program.partners(rng, rows)

    def logits(source: dict[str, Any] | None = None, components: Iterable[Any] = ()) -> torch.Tensor:
        exchange.put = (source, mask_of(components).expand(rows, -1, -1)) if source else None
        with torch.no_grad():
            found: torch.Tensor = model(tokens).logits[:, -1]
        return found

    clean = logits()
    recorded = {name: dict(layers) for name, layers in exchange.recorded.items()}

    def change(kind: str, components: Iterable[Any], wanted: torch.Tensor = clean) -> float:
        return float((logits(sources(recorded, partner, kind), components) - wanted).square().mean().sqrt())

    unit, outside = change("resample", program.nodes), [c for c in everything if c not in program.nodes]
    out: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        out[kind] = {"outside": change(kind, outside) / unit, "worst": max(change(kind, [c]) for c in outside) / unit}
        if kind != "resample" and (program.spare or program.silent):
            off = [change(kind, nodes) for nodes in program.spare]
            off += [change(kind, nodes, torch.zeros_like(clean)) for nodes in program.silent]
            out[kind]["program"] = max(off) / unit
    out["resample"]["weakest"] = min(change("resample", move) for move in program.moves) / unit
    wanted = {move: program.target(own, own[partner], move) for move in program.moves}
    out["resample"]["program"] = max(change("resample", move, w) for move, w in wanted.items()) / unit
    exchange.remove()
    return out


def certified(fixture: TrainedFixture, folder: Path) -> dict[str, dict[str, float]]:
    """The `certificate` of a fixture that was built in a folder; raises StudyError where too much lies outside its
    nodes, or where these do something else than its program."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = certificate(model, fixture.program)
    share = found["resample"]["outside"]
    if share > SHARE_ALLOWED:
        raise StudyError(f"{fixture.id}: {share:.2%} of the effect lies outside the planted nodes; train it longer")
    off = max(of["program"] for of in found.values() if "program" in of)
    if off > OFF_ALLOWED:
        raise StudyError(f"{fixture.id}: its nodes are {off:.2%} off from what they must do; train it longer")
    return found


@dataclass(frozen=True, kw_only=True)
class TrainedFixture(Fixture):
    """A fixture whose model is trained when it is built; it states nodes, and no edges or exact effects."""

    program: Program
    steps: int = STEPS
    rate: float = RATE
    config: Mapping[str, Any] = field(default_factory=dict)

    def build(self, folder: Path | str) -> Path:
        model = train(self.program, self.family, self.steps, self.plan.seed, rate=self.rate, **self.config)
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return Path(folder)


def _plant(name: str, family: str, shows: str, program: Program, **more: Any) -> TrainedFixture:
    """A trained fixture of a program, of which every node search returns all nodes unless ``more`` says otherwise."""
    more = {"expected": (Expected((program.nodes,)),)} | more
    return TrainedFixture(
        name=name,
        family=family,
        shows=shows,
        plan=Plan((), seed=0),
        nodes=every_kind(program.nodes),
        edges={},
        full=LOGIT,
        effects=(),
        slots=program.slots,
        program=program,
        **more,
    )


def trained(steps: int = STEPS) -> TrainedFixture:
    """0.1 finds the last member, m1 writes its successor; ordinary norms."""
    shows = "ordinary norms and soft attention; the truth holds to less than 1 %, not exactly"
    return _plant("trained", "gpt2", shows, programs.SUCCESSOR, steps=steps)


def trained_llama(steps: int = STEPS) -> TrainedFixture:
    """The same circuit in a Llama: rotary positions, RMSNorm, a gated MLP, grouped queries."""
    shows = "the same in a Llama: rotary positions, RMSNorm, a gated MLP, grouped queries"
    return _plant("trained", "llama", shows, programs.SUCCESSOR, steps=steps)


def trained_induction(steps: int = 1500) -> TrainedFixture:
    """0.2 tells each position what stands before it, 1.1 finds where that is its own token and copies what is there."""
    shows = "induction by soft attention: a query that meets a key which another head writes"
    asks = {"answer": 3, "incorrect": 6}
    return _plant("trained_induction", "gpt2", shows, programs.INDUCTION, steps=steps, **asks, **QUICK)


def trained_backup(steps: int = 1300) -> TrainedFixture:
    """0.1 and 1.2 both find the last member, m1 writes the successor of what either finds.

    A search removes the head that it tries first and keeps the other; `layers` goes backward and tries 1.2.
    """
    shows = "a redundant pair that training made: a search keeps one of two"
    early, late = circuit("0.1 m1"), circuit("1.2 m1")
    expected = Expected((early,), ("layers", "speculative")), Expected((early, late))
    return _plant("trained_backup", "gpt2", shows, programs.BACKUPS, expected=expected, steps=steps, **QUICK)


def all_trained() -> list[TrainedFixture]:
    """Every trained plant."""
    return [trained(), trained_llama(), trained_induction(), trained_backup()]
