"""Planted models: plans of circuits whose truth is known by construction, and stock checkpoints made from them.

A plan says, for the few components of a circuit, what they attend to, read and write, in named subspaces of the
residual stream. `planted_gpt2` and `planted_llama` turn a plan into the weights of an unmodified Hugging Face model.
Why such a model does exactly what its plan says:

1. *The norm is the identity.* Its epsilon is 2**40 and its weights are 2**20. RMSNorm gives x 2**20 / sqrt(2**40 + v)
   with v = mean(x^2), which is x (1 - v / 2**41 + ...). In float32 2**40 + v rounds to 2**40 while v < 2**16, both
   roots are powers of two, and the result is x to the last bit. LayerNorm gives x - mean(x) in the same way.
2. *The mean is zero.* Every row that writes to the residual stream (embeddings, each row of W_O and of an MLP's output
   matrix, each bias) sums to zero, because the dimension `balance`, which nothing in a circuit reads, holds minus the
   rest. Sums of such rows sum to zero too, ablated or not, so LayerNorm also is the identity, to rounding.
3. *Attention is sharp.* The scores of a planned head differ by at least 25 between the position it attends to and any
   other, and exp(-25) is below 1e-10. Where a plan means a tie the scores are equal.
4. *MLPs are linear or silent.* Planned hidden units are fed +20 or more, where gelu and silu return their input to 1
   part in 1e8, or -20 or less, where they return less than 1e-7.
5. *Nothing else is read.* All other components have random weights that read everything and write into `junk` and
   `balance` alone, which no planned component and no row of the unembedding reads. Ablating them, by whatever
   replacement, changes no logit beyond rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MEMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")  # cyclic: one follows eight
FILLERS = ("box", "cup", "hat", "key", "map", "pen", "bag", "jar", "lid", "net")
BOS, UNKNOWN = "<s>", "<unk>"
VOCABULARY = (BOS, UNKNOWN, *MEMBERS, *FILLERS)
M = len(MEMBERS)

N_LAYERS, N_HEADS, D_HEAD, D_MODEL, D_MLP = 3, 4, 32, 128, 64
N_POSITIONS = 16
EPSILON, NORM_WEIGHT = 2.0**40, 2.0**20
LOGIT = 8.0  # logit of a member per unit of its dimension of `next`
POSITION_UNIT = 8.0  # GPT-2's embedding of position p holds p/8 and (p/8)^2
GAIN = 0.5  # of random matrices, so that junk stays of order 1 through all layers


# ---- the residual stream -------------------------------------------------------------------------------------
SPACES = {
    "token": M,  # one-hot member; zero for every other token
    "member": 1,  # 1 on members
    "first": 1,  # 1 on BOS
    "one": 1,  # 1 on every token
    "position": 1,  # p / 8 (GPT-2 only)
    "square": 1,  # (p / 8)^2 (GPT-2 only)
    "found": M,
    "next": M,  # read by the unembedding
    "extra": M,  # what a fixture needs beside these
    "here": 1,
}


def layout() -> dict[str, slice]:
    """Name of a subspace -> its dimensions of the residual stream; `junk` takes what is left, `balance` is the last."""
    out, start = {}, 0
    for name, size in SPACES.items():
        out[name], start = slice(start, start + size), start + size
    return out | {"junk": slice(start, D_MODEL - 1), "balance": slice(D_MODEL - 1, D_MODEL)}


SPACE = layout()


def balance(rows: torch.Tensor) -> torch.Tensor:
    """Rows [..., D] with `balance` set so that each sums to zero (point 2 above)."""
    rows[..., SPACE["balance"]] = 0
    rows[..., SPACE["balance"]] = -rows.sum(-1, keepdim=True)
    return rows


# ---- plans ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Key:
    """Score += weight x the key position's value of a one-dimensional subspace."""

    space: str
    weight: float


@dataclass(frozen=True)
class Match:
    """Score += weight x the inner product of ``query`` at the attending position and ``key`` at the other."""

    query: str
    key: str
    weight: float


@dataclass(frozen=True)
class Recent:
    """Score falls by at least ``weight`` with each position of distance (by at most 1.6 ``weight`` under RoPE)."""

    weight: float


@dataclass(frozen=True)
class Offset:
    """Score is highest ``distance`` positions back, and lower by at least ``weight`` anywhere else."""

    distance: int
    weight: float


@dataclass(frozen=True)
class Write:
    """Dimension k of what was read goes, times ``gain``, to dimension k + ``shift`` (cyclic) of ``space``."""

    space: str
    gain: float = 1.0
    shift: int = 0


@dataclass(frozen=True)
class Head:
    """A planned head: where it attends (the sum of its terms; none: everywhere alike), what it reads and writes."""

    layer: int
    head: int
    attend: tuple[Key | Match | Recent | Offset, ...]
    read: str
    write: tuple[Write, ...]


@dataclass(frozen=True)
class Unit:
    """A hidden unit: fed sum(coefficient x dimension) + bias; adds ``gain`` x its activation to a dimension.

    ``read``: (dimension of the residual stream, coefficient) pairs.
    """

    read: tuple[tuple[int, float], ...]
    bias: float
    write: int
    gain: float


@dataclass(frozen=True)
class Mlp:
    """The planned hidden units of one MLP; what it has beside them is random and writes to junk."""

    layer: int
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Plan:
    """The planned components of a model; everything else is random (seeded)."""

    heads: tuple[Head, ...]
    mlps: tuple[Mlp, ...] = ()
    seed: int = 0

    @cached_property
    def _heads(self) -> dict[tuple[int, int], Head]:
        return {(h.layer, h.head): h for h in self.heads}

    def head(self, layer: int, head: int) -> Head | None:
        return self._heads.get((layer, head))

    def mlp(self, layer: int) -> Mlp | None:
        return next((m for m in self.mlps if m.layer == layer), None)


# ---- pieces that plans are made of ---------------------------------------------------------------------------
# On `... filler member filler` the last member is one step back, costs at most 32 and gains 80: more than the filler
# itself (0) by 48, and more than the member before it by twice 20.
RECENT_MEMBER = (Key("member", 80), Recent(20))
SELF = (Recent(40),)
SHARPNESS = 64.0  # what planned units are fed is of this order, with either sign


def dimension(space: str, k: int) -> int:
    """Index in the residual stream of dimension ``k`` of a subspace of `SPACES`."""
    return int(SPACE[space].start) + k


def linear_units(space: str, shift: int) -> tuple[Unit, ...]:
    """Units by which `next` gets 2 f - 1 at k + shift where dimension k of ``space`` is f = 1, and 0 where f <= 1/4.

    With G the sharpness a unit is fed G (2 f - 1): G, written as 1, or -G / 2 and less, where it is silent. Its slope
    at f = 1 is 2, so gradients see it.
    """
    g = SHARPNESS
    return tuple(Unit(((dimension(space, k), 2 * g),), -g, dimension("next", (k + shift) % M), 1 / g) for k in range(M))


def threshold_units(space: str, shift: int) -> tuple[Unit, ...]:
    """Units by which `next` gets 1 at k + shift where dimension k of ``space`` is at least 1, and 0 where it is <= 1/4.

    With f the value and G the sharpness, the first unit is fed G (2 f - 1) and the second G (2 f - 1.5). For f >= 1
    both are linear and differ by G / 2, which is written as 1. For f <= 1/4 they are fed -G / 2 or less and are silent.
    The output does not grow with f beyond 1: its slope there is 0.
    """
    g, units = SHARPNESS, []
    for k in range(M):
        read, write = ((dimension(space, k), 2 * g),), dimension("next", (k + shift) % M)
        units += [Unit(read, -g, write, 2 / g), Unit(read, -1.5 * g, write, -2 / g)]
    return tuple(units)


def dead_zone_units(space: str, shift: int, gain: float) -> tuple[Unit, ...]:
    """Units by which `next` gets ``gain`` at k + shift where dimension k of ``space`` is at least 7/8 or at most -7/8.

    With r the value, the units for r > 0 are fed G (2 r - 1) and G (2 r - 1.25), as above; those for r < 0 the same of
    -r. At |r| <= 1/8 all four are fed -0.75 G or less and are silent, with slope 0.
    """
    g, units = SHARPNESS, []
    for k in range(M):
        write = dimension("next", (k + shift) % M)
        for sign in (1, -1):
            read = ((dimension(space, k), sign * 2 * g),)
            units += [Unit(read, -g, write, gain * 4 / g), Unit(read, -1.25 * g, write, -gain * 4 / g)]
    return tuple(units)


# ---- weights that both families share ------------------------------------------------------------------------
class Weights:
    """Matrices of a plan in one convention: inputs are rows, ``x @ w``; float64, rounded when the model is filled."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = torch.Generator().manual_seed(plan.seed)

    def random(self, *shape: int, fan_in: int = 0) -> torch.Tensor:
        """[*shape] normal numbers of variance GAIN^2 / fan_in (by default the number of rows)."""
        scale: float = GAIN / (fan_in or shape[0]) ** 0.5
        return scale * torch.randn(*shape, generator=self.rng, dtype=torch.float64)

    def junk(self, rows: int, fan_in: int = 0) -> torch.Tensor:
        """[rows, D] that write to junk and `balance` alone."""
        out = torch.zeros(rows, D_MODEL, dtype=torch.float64)
        out[:, SPACE["junk"]] = self.random(rows, SPACE["junk"].stop - SPACE["junk"].start, fan_in=fan_in)
        return balance(out)

    def scores(self) -> torch.Tensor:
        """Random W_Q or W_K [D, d_head], large enough for attention that is far from uniform."""
        return self.random(D_MODEL, D_HEAD, fan_in=8)

    def embeddings(self) -> torch.Tensor:
        """[d_vocab, D]: `one`, a member's one-hot and flag, the flag of BOS; junk tells fillers apart."""
        rows = self.junk(len(VOCABULARY), fan_in=1)
        rows[:, SPACE["one"]] = 1
        rows[0, SPACE["first"]] = 1
        first = VOCABULARY.index(MEMBERS[0])
        rows[first : first + M, SPACE["token"]] = torch.eye(M, dtype=torch.float64)
        rows[first : first + M, SPACE["member"]] = 1
        return balance(rows)

    def unembedding(self) -> torch.Tensor:
        """[d_vocab, D]: a member's logit is ``LOGIT`` x its dimension of `next`; every other logit is 0."""
        rows = torch.zeros(len(VOCABULARY), D_MODEL, dtype=torch.float64)
        first = VOCABULARY.index(MEMBERS[0])
        rows[first : first + M, SPACE["next"]] = LOGIT * torch.eye(M, dtype=torch.float64)
        return rows

    def values(self, head: Head | None) -> torch.Tensor:
        """W_V [D, d_head]: a planned head's z starts with what it reads; the rest of z is random."""
        w = self.random(D_MODEL, D_HEAD)
        if head:
            size = SPACES[head.read]
            w[:, :size] = 0
            w[SPACE[head.read], :size] = torch.eye(size, dtype=torch.float64)
        return w

    def output(self, head: Head | None) -> torch.Tensor:
        """W_O [d_head, D]: the planned writes of what was read; the random rest of z goes to junk."""
        w = self.junk(D_HEAD, fan_in=N_HEADS * D_HEAD)
        if head:
            size = SPACES[head.read]
            w[:size] = 0
            for write in head.write:
                for k in range(size):
                    w[k, dimension(write.space, (k + write.shift) % SPACES[write.space])] += write.gain
        return balance(w)


# ---- building ------------------------------------------------------------------------------------------------
FAMILIES = ("gpt2", "llama")


def tokenizer() -> PreTrainedTokenizerBase:
    """A fast tokenizer: one token per word, BOS never added by itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=BOS,
        eos_token=BOS,
        unk_token=UNKNOWN,
        model_max_length=N_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
