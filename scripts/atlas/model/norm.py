"""The norm before a part of a layer: of LayerNorm's kind or of RMSNorm's."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Norm:
    """LayerNorm, or, where it does not centre, RMSNorm.

    RMSNorm runs in float32 whatever the model's dtype, as in the Hugging Face implementation.
    """

    weight: torch.Tensor  # [D]
    bias: torch.Tensor | None  # [D]; of LayerNorm alone
    eps: float
    centred: bool = True

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.centred:
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        """The part of the norm that is linear in x [..., D]: the norm is this times `scale` of x, and the bias."""
        return self.weight * (x - x.mean(-1, keepdim=True) if self.centred else x)

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 1] what `linear` is multiplied with."""
        if self.centred:  # many times faster than the variance by itself
            return torch.native_layer_norm(x, x.shape[-1:], None, None, self.eps)[2]
        return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
