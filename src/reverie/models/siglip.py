"""The vision tower of Janus: SigLIP (arXiv 2303.15343), a vision transformer without class token and without pooling.

The network and its parameter names are those of transformers' JanusVisionModel, which a test compares; written here
because importing the modelling code of that library takes as long as painting a picture. Left out on purpose: dropout,
query and key normalisation, and other sizes of pictures than the one of the configuration; no public Janus uses them.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TowerConfig:
    """Defaults are those of transformers' JanusVisionConfig, for configurations that leave them out."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 384
    patch_size: int = 16
    mlp_ratio: float = 4.0
    layer_norm_eps: float = 1e-6
    projection_dim: int = 2048
    """Width of the language model, to which the aligner behind the tower leads."""
    depth: int = 2
    """Linear layers of that aligner."""
    num_image_tokens: int = 576


class SelfAttention(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.projection_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        projected = (proj(x).unflatten(-1, (self.heads, -1)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        query, key, value = (p.transpose(1, 2) for p in projected)  # (B, H, P, D / H)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.projection_layer(attended.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.fc2 = nn.Linear(inner, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        size = config.patch_size
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, kernel_size=size, stride=size)
        self.position_embedding = nn.Embedding((config.image_size // size) ** 2, config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight


class Encoder(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))


class Tower(nn.Module):
    def __init__(self, config: TowerConfig):
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"The vision tower's width {config.hidden_size} must be a multiple of its {config.num_attention_heads} "
                f"heads; correct the vision section of config.json."
            )
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        normal_weights(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pixels to patch states (B, P, D), row by row."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)


def normal_weights(network: nn.Module, std: float = 0.02) -> None:
    """Fresh weights as transformers draws them: N(0, std), no biases, norms that change nothing."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
