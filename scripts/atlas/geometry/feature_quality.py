"""How good a sparse autoencoder is: how sparse, how much of activations it explains, and of what a model says.

On tokens that it was not trained on: L0, the mean number of features that fire; the share of variance explained,
1 - sum |x - x'|^2 / sum |x - mean|^2; dead features, which fire on none of them. *Share of loss recovered*: with
reconstructions in place of the activations at all tokens but the first, the divergence KL(model || model with
reconstructions) of the next token at a random token of each text, beside that with the mean activation, or zeros, in
their place: 1 - KL / KL of the mean. Agreement: the largest cosine of each direction that fires with those of another
seed's autoencoder, beside that of random directions of the same covariance. Beside a trained one stands its start,
untrained, whose directions are activations of tokens: what training adds to them. Since all seeds start so, they agree
in part by their start, and the untrained one's agreement with the other seed's says how far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from atlas.core.statistics import Bootstrap
from atlas.geometry.feature_members import BATCH

if TYPE_CHECKING:
    from atlas.geometry.autoencoder import Autoencoder
    from atlas.geometry.feature_text import Place, Text
    from atlas.model.models import Model

REPORTED, OTHER, UNTRAINED = "reported", "another seed", "untrained"
ALIKE = 0.9  # cosine from which on directions are counted as the same
COLUMNS = ["autoencoder", "hook", "architecture", "seed", "width", "features", "tokens", "held_out", "l0", "explained"]
COLUMNS += ["dead", "kl_recovered", "ci_low", "ci_high", "kl_recovered_zero", "kl", "kl_mean", "kl_zero", "texts"]
COLUMNS += ["agreement", "agreement_90", "agreement_null"]


def of_activations(sae: Autoencoder, x: torch.Tensor, mean: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
    """(l0, explained, dead; which features [F] fire) on activations x [T, D]; ``mean`` [D] of those trained on."""
    fired, active, error, total = torch.zeros(sae.size, dtype=torch.bool), 0.0, 0.0, 0.0
    for start in range(0, len(x), BATCH):
        own = x[start : start + BATCH]
        activity = sae.encode(own)
        fired |= (activity > 0).any(0)
        active += float((activity > 0).sum())
        error += float((sae.decode(activity) - own).double().pow(2).sum())
        total += float((own - mean).double().pow(2).sum())
    explained = 1 - error / total if total else np.nan
    return {"l0": active / len(x), "explained": explained, "dead": int((~fired).sum())}, fired


def divergences(
    model: Model, text: Text, place: Place, replaced: dict[str, Callable[[torch.Tensor], torch.Tensor]], seed: int
) -> dict[str, np.ndarray]:
    """Name -> KL [N] in nats of the next token, at one random token of each text, from the model to the model with
    activations [.., D] ``replaced`` at all tokens but the first. Takes 8 N d_vocab bytes of a batch at a time."""
    rng = np.random.default_rng(seed)
    position = torch.tensor([[int(rng.integers(1, length))] for length in text.lengths.tolist()])
    found: dict[str, list[torch.Tensor]] = {name: [] for name in replaced}
    for batch in model.batches(len(text.tokens)):
        tokens, at = text.tokens[batch], position[batch]
        clean = model.run(tokens, position=at)[:, 0].log_softmax(-1)
        for name, make in replaced.items():

            def replace(x: torch.Tensor, hook: object, make: Callable[..., torch.Tensor] = make) -> torch.Tensor:
                return torch.cat((x[:, :1], make(x[:, 1:].cpu()).to(x)), 1)

            edited = model.run(tokens, [(place.hook, replace)], position=at)[:, 0].log_softmax(-1)
            found[name].append((clean.exp() * (clean - edited)).sum(-1).double().cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def recovered(kl: dict[str, np.ndarray], name: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """Columns of the share of loss recovered by ``name``, from `divergences` that hold `mean` and `zero` too."""
    value, low, high = bootstrap.statistic(lambda own, most: 1 - own / most, kl[name], kl["mean"])
    of_zero = 1 - kl[name].mean() / kl["zero"].mean()
    means = {f"kl_{other}": kl[other].mean() for other in ("mean", "zero")}
    shares = {"kl_recovered": value, "ci_low": low, "ci_high": high, "kl_recovered_zero": of_zero}
    return shares | {"kl": kl[name].mean(), "texts": len(kl[name])} | means


def agreement(sae: Autoencoder, fired: torch.Tensor, other: Autoencoder, seed: int) -> dict[str, float]:
    """Columns of how near each direction that fires comes to one of another autoencoder."""
    own, theirs = F.normalize(sae.w_dec[fired], dim=-1), F.normalize(other.w_dec, dim=-1)
    nearest = (own @ theirs.T).amax(1)
    draw = torch.randn(len(own), len(own), generator=torch.Generator().manual_seed(seed))
    random = F.normalize(draw @ (own - own.mean(0)) / len(own) ** 0.5 + own.mean(0), dim=-1)
    return {
        "agreement": float(nearest.mean()),
        "agreement_90": float((nearest > ALIKE).float().mean()),
        "agreement_null": float((random @ theirs.T).amax(1).mean()),
    }


def table(
    model: Model,
    saes: dict[str, tuple[Autoencoder, float]],
    trained: torch.Tensor,
    held_out: torch.Tensor,
    text: Text,
    place: Place,
    tokens: int,
    bootstrap: Bootstrap,
) -> pd.DataFrame:
    """Table `features`: a row for each of ``saes``, name -> (autoencoder, seed or nan), the reported one first.

    trained, held_out: activations [T, D]; text: held out, on which the model is run; ``tokens``: how many
    of those trained on were used, 0 where none was.
    """
    mean, rows = trained.mean(0), []
    replaced: dict[str, Callable[[torch.Tensor], torch.Tensor]]
    replaced = {name: sae.reconstruct for name, (sae, _) in saes.items()}
    replaced |= {"mean": lambda x: mean.expand_as(x), "zero": torch.zeros_like}
    kl = divergences(model, text, place, replaced, bootstrap.seed)
    for name, (sae, seed) in saes.items():
        about, fired = of_activations(sae, held_out, mean)
        other = saes.get(REPORTED if name == OTHER else OTHER, (None, seed))[0]
        matched = {} if other is None or not bool(fired.any()) else agreement(sae, fired, other, bootstrap.seed)
        row = {"autoencoder": name, "hook": place.hook, "architecture": sae.architecture, "seed": seed}
        row |= {"width": sae.w_enc.shape[0], "features": sae.size, "tokens": tokens, "held_out": len(held_out)}
        rows.append(row | about | recovered(kl, name, bootstrap) | matched)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)
