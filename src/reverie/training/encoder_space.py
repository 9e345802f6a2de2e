"""Where a T5 encoder's vectors live, and an aligner that cannot leave it.

The vectors of a small encoder fill a few dozen directions of its width. The frozen decoder that teaches an aligner
answers to all others too, so an aligner finds vectors that the decoder reads well and that no encoder would write; a
diffusion model, which has only met the encoder's, takes the rest of them for noise. Here the last linear layer writes
coordinates along the principal directions instead, each in units of its own deviation, around the mean. Directions,
deviations and mean come from the encoder's vectors of the VLM's own answers, so nothing but the T5 and the features is
needed, and the loss stays the proxy task alone. Afterwards all of it folds into one matrix: what is saved is an
ordinary aligner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..models.aligner import Aligner, AlignerConfig
from ..models.t5 import encode_text
from .align import Words


@torch.no_grad()
def principal_space(t5: Any, words: Words, texts: Sequence[str], directions: int) -> tuple[Tensor, Tensor]:
    """(mean (D,), basis (D, directions)) of the encoder's vectors of these texts before the weight of its final norm;
    columns are principal directions times deviations."""
    rows = []
    for first in range(0, len(texts), 128):
        ids, mask = words.ids(texts[first : first + 128])
        rows.append(encode_text(t5, ids, mask)[mask.bool()].float() / t5.encoder.final_layer_norm.weight.float())
    vectors = torch.cat(rows)
    if not 1 <= directions <= vectors.shape[1]:
        raise ValueError(f"aligner.space={directions}: the T5's vectors have 1 to {vectors.shape[1]} directions.")
    mean = vectors.mean(0)
    values, columns = torch.linalg.eigh((vectors - mean).T @ (vectors - mean) / len(vectors))
    return mean, columns[:, -directions:] * values[-directions:].clamp(min=0).sqrt()


class SpacedAligner(nn.Module):
    """Linear, GELU, Linear to coordinates, mean + basis, norm: an aligner of two layers with a norm, once folded."""

    mean: Tensor
    basis: Tensor

    def __init__(self, aligner: Aligner, mean: Tensor, basis: Tensor):
        """aligner: fresh; its first layer and its norm are taken over as they are."""
        super().__init__()
        if aligner.config.depth != 2 or not aligner.norms:
            raise ValueError("aligner.space needs an aligner of two layers and a norm, such as mlp2x_gelu_t5_norm.")
        self.config = aligner.config
        self.first: Any = aligner[0]
        self.norm = aligner.norms[0]
        self.coordinates = nn.Linear(aligner.config.target, basis.shape[1])
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    @property
    def device(self) -> torch.device:
        return self.first.weight.device

    def forward(self, features: Tensor) -> Tensor:
        told = self.coordinates(nn.functional.gelu(self.first(features)))
        return self.norm(self.mean + told @ self.basis.T)

    @torch.no_grad()
    def folded(self) -> Aligner:
        """The same function as an ordinary aligner."""
        config: AlignerConfig = self.config
        aligner = Aligner(config)
        aligner[0].load_state_dict(self.first.state_dict())
        last, norm = aligner[2], aligner.norms[0]
        assert isinstance(last, nn.Linear)
        last.weight.copy_(self.basis @ self.coordinates.weight)
        last.bias.copy_(self.basis @ self.coordinates.bias + self.mean)
        norm.load_state_dict(self.norm.state_dict())
        return aligner.eval()
