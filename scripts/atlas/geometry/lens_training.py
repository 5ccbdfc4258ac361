"""How a tuned lens is learned: an affine map of its own for each point of the residual stream.

A translator takes a point's residual h to h + (h - mean) A + b; final norm and unembedding follow, as for the logit
lens. A and b are learned so that the distribution q over tokens comes near the model's final one p: the loss is
KL(p || q) in nats (arXiv 2303.08112). Steps are taken in numbers of the residual that are whitened first, so that large
and small directions learn alike; what can be learned is any affine map all the same. A and b start at 0, where the
tuned lens is the logit lens, or at the least-squares map to the final residual, whichever is nearer to p on positions
put aside; of the states looked at on the way the nearest one is kept. So on these positions a tuned lens is never worse
than the logit lens.

Of a large vocabulary each step sums over the tokens that p favours most over all texts, and over others drawn at
random, each of which stands for many (sampled softmax, arXiv 1412.2007). What is measured on positions put aside, and
all that is reported, is of the whole vocabulary.

Letters: A positions put aside, B a batch, D width, L layers, N positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from atlas.heads.attribution import Readout
from atlas.store.job import progress

IDENTITY, LEAST_SQUARES = "identity", "least squares"
LOOKS = 4  # states of each translator that are compared on the positions put aside, beside its start
RIDGE = 0.01  # added to correlations of the residual's numbers, which need not be of full rank
AT_ONCE = 2**25  # logits that are held at a time


@dataclass(frozen=True)
class Training:
    """``steps`` of Adam at ``rate`` over the square root of D, falling linearly to 0, on ``batch`` positions each; by
    such a step a weighted sum of D whitened numbers changes by about ``rate``.

    ``favoured``, ``drawn``: tokens that a step sums over, where there are more.
    """

    steps: int = 100
    rate: float = 0.02
    batch: int = 48
    favoured: int = 3072
    drawn: int = 1024
    seed: int = 0


# ---- lenses --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Translator:
    """h -> h + (h - mean) @ map + shift, of one point; map [D, D], mean and shift [D]."""

    mean: torch.Tensor
    map: torch.Tensor
    shift: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] of residuals [..., D]."""
        return x + (x - self.mean) @ self.map + self.shift


@dataclass(frozen=True)
class Tuned:
    """The translators of points 0 .. L - 1 (the last point needs none), and how each came about.

    Of each: ``start``; the ``step`` whose state was kept, 0 for that of the start; mean KL in nats on the positions put
    aside, ``before`` (logit lens) and ``after``. ``trained``, ``aside``: numbers of positions.
    """

    translators: list[Translator]
    start: list[str]
    step: list[int]
    before: list[float]
    after: list[float]
    trained: int
    aside: int

    def translated(self, point: int, x: torch.Tensor) -> torch.Tensor:
        """[..., D] what the lens makes of residuals [..., D] of a point, 0 .. L; those of the last as they are."""
        return x if point == len(self.translators) else self.translators[point](x)


def log_probabilities(readout: Readout, x: torch.Tensor) -> torch.Tensor:
    """[N, V] log-probabilities of tokens in nats, of residuals x [N, D]."""
    return readout.unembed(readout.norm(x)).log_softmax(-1)


def divergence(readout: Readout, log_p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[N] KL(p || q) in nats, of log-probabilities ``log_p`` [N, V] and the q of residuals x [N, D]."""
    return (log_p.exp() * (log_p - log_probabilities(readout, x))).sum(-1)


# ---- tokens that a step sums over ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Sampled:
    """A part of the vocabulary: ``ids`` [n], and the log of how many tokens each stands for, ``log_weight`` [n]."""

    ids: torch.Tensor
    log_weight: torch.Tensor


class Vocabulary:
    """The tokens that a step sums over: those that p favours most over all positions, and others drawn anew."""

    def __init__(self, readout: Readout, final: torch.Tensor, favoured: int, drawn: int) -> None:
        """``final`` [N, D]: final residuals at the positions that are trained on."""
        size = readout.w_u.shape[1]
        self.favoured, self.others = torch.arange(size, device=final.device), torch.arange(0)
        self.drawn = drawn
        if size > favoured + drawn:
            total = torch.zeros(size, dtype=final.dtype, device=final.device)
            for part in final.split(max(1, AT_ONCE // size)):
                total += log_probabilities(readout, part).exp().sum(0)
            order = total.argsort(descending=True, stable=True)
            self.favoured, self.others = order[:favoured], order[favoured:]

    def draw(self, rng: torch.Generator) -> Sampled:
        """The tokens of one step: [V], or [favoured + drawn] of a large vocabulary."""
        own = torch.zeros(len(self.favoured), device=self.favoured.device)
        if not len(self.others):
            return Sampled(self.favoured, own)
        rows = torch.randint(len(self.others), (self.drawn,), generator=rng).to(self.others.device)
        weight = torch.full((self.drawn,), math.log(len(self.others) / self.drawn), dtype=own.dtype, device=own.device)
        return Sampled(torch.cat((self.favoured, self.others[rows])), torch.cat((own, weight)))


def restricted(readout: Readout, part: Sampled) -> Readout:
    """The readout with some of its tokens alone."""
    return replace(readout, w_u=readout.w_u[:, part.ids], b_u=None if readout.b_u is None else readout.b_u[part.ids])


def loss(readout: Readout, x: torch.Tensor, p: torch.Tensor, log_weight: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of p [B, n] and what translated residuals x [B, D] give the same tokens.

    ``readout``: of these tokens alone, each standing for e^``log_weight`` [n] tokens, in p too.
    """
    logits = readout.unembed(readout.norm(x))
    return ((logits + log_weight).logsumexp(-1) - (p * logits).sum(-1)).mean()


# ---- training ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Whitened:
    """(h - mean) @ factor, [D] and [D, D]: a point's residual in numbers that are nearly uncorrelated and of size 1.

    The inverse Cholesky factor of correlations with `RIDGE` added. A number that never varies is not scaled.
    """

    mean: torch.Tensor
    factor: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor) -> Whitened:
        """Of residuals [N, D]."""
        wide = x.double()
        mean, size = wide.mean(0), wide.std(0)
        size = torch.where(size > 0, size, torch.ones_like(size))
        unit = (wide - mean) / size
        eye = torch.eye(len(size), dtype=wide.dtype, device=wide.device)
        lower = torch.linalg.cholesky(unit.T @ unit / len(unit) + RIDGE * eye)
        inverse = torch.linalg.solve_triangular(lower, eye, upper=False)
        return cls(mean.to(x.dtype), (inverse / size).T.to(x.dtype))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] of residuals [..., D]."""
        return (x - self.mean) @ self.factor


class Learner:
    """One translator while it is learned: h + (whitened h @ w + shift) * size, ``size`` [D] that of what it adds."""

    def __init__(
        self, readout: Readout, trained: torch.Tensor, aside: torch.Tensor, log_p: torch.Tensor, point: int
    ) -> None:
        """``trained`` [L + 1, N, D], ``aside`` [L + 1, A, D]: residuals of all points, its own ``point`` among them;
        ``log_p`` [A, V]: log-probabilities that the last one of ``aside`` gives."""
        self.readout, self.x, final = readout, trained[point], trained[-1]
        self.aside, self.log_p = aside[point], log_p
        self.white, rest = Whitened.of(self.x), final - self.x
        size = rest.std(0)
        self.size, self.unit = torch.where(size > 0, size, torch.ones_like(size)), self.white(self.x)
        self.w, self.shift = self.x.new_zeros(self.x.shape[1], self.x.shape[1]), self.x.new_zeros(self.x.shape[1])
        self.start, self.step, self.best = IDENTITY, 0, self.translator()
        self.before = self.after = self.away(self.best)
        self._start_at_least_squares(rest / self.size)
        self.w.requires_grad_()
        self.shift.requires_grad_()

    def _start_at_least_squares(self, rest: torch.Tensor) -> None:
        """``rest`` [N, D]: what the final residual has beyond this one; whitened numbers need no matrix inverted."""
        zero = self.w, self.shift
        self.shift = rest.mean(0)
        self.w = self.unit.T @ (rest - self.shift) / len(rest)
        if not self.look(0):
            self.w, self.shift = zero
        else:
            self.start = LEAST_SQUARES

    def translated(self, rows: torch.Tensor) -> torch.Tensor:
        """[B, D] of some positions, with gradients."""
        return self.x[rows] + (self.unit[rows] @ self.w + self.shift) * self.size

    def translator(self) -> Translator:
        """What it has learned so far."""
        w, shift = self.w.detach(), self.shift.detach()
        return Translator(self.white.mean, self.white.factor @ w * self.size, shift * self.size)

    def away(self, translator: Translator) -> float:
        """Mean KL in nats on the positions put aside."""
        with torch.no_grad():
            return float(divergence(self.readout, self.log_p, translator(self.aside)).mean())

    def look(self, step: int) -> bool:
        """Keep the state that it has after ``step`` steps if it is the nearest so far."""
        translator = self.translator()
        found = self.away(translator)
        nearer = found < self.after
        if nearer:
            self.step, self.best, self.after = step, translator, found
        return nearer


class Adam:
    """Adam (arXiv 1412.6980) with its usual constants; torch's own takes seconds to import."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self.parameters, self.steps = parameters, 0
        self.moments = [(torch.zeros_like(x), torch.zeros_like(x)) for x in parameters]

    def step(self, rate: float) -> None:
        """One step along the gradients, which are cleared."""
        self.steps += 1
        with torch.no_grad():
            for x, (mean, square) in zip(self.parameters, self.moments, strict=True):
                assert x.grad is not None
                mean.mul_(0.9).add_(x.grad, alpha=0.1)
                square.mul_(0.999).addcmul_(x.grad, x.grad, value=0.001)
                size = (square / (1 - 0.999**self.steps)).sqrt_().add_(1e-8)
                x.addcdiv_(mean, size, value=-rate / (1 - 0.9**self.steps))
                x.grad = None


def train(readout: Readout, trained: torch.Tensor, aside: torch.Tensor, settings: Training) -> Tuned:
    """A lens from residuals of all points, [L + 1, N, D] to train on and [L + 1, A, D] ``aside``; the last give p.

    Every point takes the same steps, with the same positions and tokens. Holds 6 L D^2 numbers (maps, their gradients,
    Adam's state, the states kept) beside twice the residuals, 4 A V of the positions put aside, and the logits of one
    point of a batch.
    """
    rng, final = torch.Generator().manual_seed(settings.seed), trained[-1]
    vocabulary = Vocabulary(readout, final, settings.favoured, settings.drawn)
    log_p_aside = log_probabilities(readout, aside[-1])
    learners = [Learner(readout, trained, aside, log_p_aside, point) for point in range(len(trained) - 1)]
    looks = {round((i + 1) * settings.steps / LOOKS) for i in range(LOOKS)}
    adam, rate = Adam([x for one in learners for x in (one.w, one.shift)]), settings.rate / final.shape[1] ** 0.5
    for step, rows in enumerate(progress(batches(len(final), settings, rng), "tuned lens"), start=1):
        part, rows = vocabulary.draw(rng), rows.to(final.device)
        own = restricted(readout, part)
        p = (log_probabilities(readout, final[rows])[:, part.ids] + part.log_weight).softmax(-1)
        for one in learners:
            loss(own, one.translated(rows), p, part.log_weight).backward()
        adam.step(rate * (1 - (step - 1) / settings.steps))
        if step in looks:
            for one in learners:
                one.look(step)
    told = {key: [getattr(one, key) for one in learners] for key in ("start", "step", "before", "after")}
    return Tuned([one.best for one in learners], **told, trained=len(final), aside=aside.shape[1])


def batches(n: int, settings: Training, rng: torch.Generator) -> list[torch.Tensor]:
    """The rows [B] of each step: all n in an order drawn anew whenever they are through, less a rest below a batch."""
    size, found = min(settings.batch, n), list[torch.Tensor]()
    while len(found) < settings.steps:
        found += torch.randperm(n, generator=rng)[: n - n % size].split(size)
    return found[: settings.steps]
