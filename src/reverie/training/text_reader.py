"""A reader of T5 encoder states: which thing and which detail do these vectors speak of?

It stands in for the diffusion model while an aligner is tuned: like the diffusion model it learns from the encoder's
vectors of captions, with noise, never from the T5's decoder and never from aligned vectors, but it learns in a minute
and judges in milliseconds. An aligner that has found vectors that only the decoder understands is caught by it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..atelier.episode_pictures import detail_of
from ..atelier.episodes import THEMES, Episode, episode, theme_of
from ..models.t5 import encode_text
from .align import Words
from .vlm import caption
from .vlm_facts import GROUPS, facts


class TextReader(nn.Module):
    """(B, L, D) vectors and 0/1 (B, L) to logits over the names of each group. size: of the vectors that it learns
    from, a root mean square."""

    def __init__(self, width: int, size: float = 1.0, hidden: int = 192):
        super().__init__()
        self.size = size
        self.queries = nn.Parameter(torch.randn(len(GROUPS), hidden) * hidden**-0.5)
        self.keys, self.values = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, len(names)))
            for names in GROUPS.values()
        )

    def forward(self, vectors: Tensor, mask: Tensor) -> dict[str, Tensor]:
        vectors = vectors / self.size
        scores = torch.einsum("gh,blh->bgl", self.queries, self.keys(vectors)) * 4
        shares = scores.masked_fill(mask[:, None] == 0, -torch.inf).softmax(-1)
        pooled = shares @ self.values(vectors)  # (B, groups, hidden)
        return {name: head(pooled[:, at]) for at, (name, head) in enumerate(zip(GROUPS, self.heads, strict=True))}


def learn_to_read(t5: Any, tokenizer: Any, steps: int = 400, batch: int = 64, noise: float = 0.5, seed: int = 0) -> Any:
    """A reader taught by the T5's encoder on captions of single things; noise: relative to the size of the vectors."""
    torch.manual_seed(seed)
    rng, words = random.Random(f"reader/{seed}"), Words(tokenizer, 64)
    size = t5.encoder.final_layer_norm.weight.float().square().mean().sqrt().item()
    reader = TextReader(t5.config.d_model, size)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        scenes = [episode(rng, rng.randint(1, 2 * len(THEMES)), 1).answer for _ in range(batch)]
        ids, mask = words.ids([caption(scene, rng) for scene in scenes])
        vectors = encode_text(t5, ids, mask).float()
        loud = vectors.square().mean(-1, keepdim=True).sqrt() * noise * torch.rand(batch, 1, 1)
        told = reader(vectors + torch.randn_like(vectors) * loud, mask)
        wanted = torch.tensor([facts(scene) for scene in scenes]).split([len(names) for names in GROUPS.values()], 1)
        loss = torch.stack([F.cross_entropy(told[n], w) for n, w in zip(GROUPS, wanted, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval().requires_grad_(False)


@torch.no_grad()
def read_scene(
    reader: TextReader, vectors: Tensor, mask: Tensor, episodes: Sequence[Episode]
) -> list[tuple[bool, bool]]:
    """(object right, detail right) of what the vectors of each episode say, by the likeliest name of a group."""
    told = {name: logits.argmax(-1).tolist() for name, logits in reader(vectors, mask).items()}
    found = []
    for row, one in enumerate(episodes):
        theme = theme_of(one.task)
        kind, detail = GROUPS["kind"][told["kind"][row]], GROUPS[theme][told[theme][row]]
        found.append((kind == one.answer.things[0].kind, detail == detail_of(one.answer, theme)))
    return found
