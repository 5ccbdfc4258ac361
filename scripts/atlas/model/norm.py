"""The norm before a part of a layer: of LayerNorm's kind or of RMSNorm's."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Norm:
    """LayerNorm, or, where it does not centre, RMSNorm.

    RMSNorm runs in float32 whatever the model's dtype, as in the Hugging Face implementation; ``late``: so does the
    product with its weight (Gemma, OLMo 2), else what it is multiplied with is rounded to the dtype before (Llama).
    """

    weight: torch.Tensor  # [D]; of queries or keys [d_head], or, where one norm is of all heads, [heads, d_head]
    bias: torch.Tensor | None  # [D]; of LayerNorm alone
    eps: float
    centred: bool = True
    late: bool = False

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.centred:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        y = x.float()
        return self.weighted(y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps), self.weight, x.dtype)

    def weighted(self, y: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What is normed, y [..., D] in float32, times a weight that goes with it, in ``dtype``."""
        return (weight * y).to(dtype) if self.late else weight * y.to(dtype)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """The part of the norm that is linear in x [..., D]: the norm is this times `scale` of x, and the bias."""
        return self.weight * (x - x.mean(-1, keepdim=True) if self.centred else x)

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 1] what `linear` is multiplied with."""
        if self.centred:  # many times faster than the variance by itself
            return torch.native_layer_norm(x, x.shape[-1:], None, None, self.eps)[2]
        return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def back(self, direction: torch.Tensor) -> torch.Tensor:
        """[..., D] whose inner product with any x is that of ``direction`` [..., D] with `linear` of x."""
        weighted = self.weight * direction
        return weighted - weighted.mean(-1, keepdim=True) if self.centred else weighted


class NoNorm(Norm):
    """What stands where a layer reads the residual as it is (OLMo 2 norms what is written instead)."""

    @classmethod
    def like(cls, weight: torch.Tensor) -> "NoNorm":
        """Of the width of ``weight`` [D], in its dtype."""
        return cls(torch.ones_like(weight), None, 0.0, centred=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 1] ones."""
        return torch.ones_like(x[..., :1])
