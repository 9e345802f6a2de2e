"""Painters that learn to correct themselves: from prompt, flawed picture and what is wrong with it to a right one.

"Can We Generate Images with CoT?" (arXiv 2501.13926, section on PARM++) fine-tunes Show-o so, and says neither layout
nor loss. Here the loss is on the new image alone, the flawed one is seen and never predicted, and images painted from
the prompt alone stay in the mix, as the published tuning costs the plain painter two points. The text is made of prompt
and reason as `look_back.corrected` makes it, by the wording of the checkpoint.

`CorrectionTask` learns from pairs of codes (`reverie data build correction`) with any painter that sees: Show-o has the
flawed image's codes between text and new image, Janus looks at it through its vision tower. A picture that comes back
as pixels has not quite the codes it was painted from, so training shows what will be seen: codes to pixels and back.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from ..data.pairs import Pairs
from ..generators.janus import JanusPainter, to_uint8
from ..look_back import told
from ..models.showo import Showo
from ..models.showo_text import ShowoTokenizer
from .code_scorers import CodePainter
from .dpo import code_log_prob, hidden_slots

SEES = ("showo", "janus")
"""Families whose painters can look at a picture beside the prompt."""


@dataclass
class Rows:
    """What images (B, L) are painted from: texts, of which some are left blank, and codes of flawed images, or None."""

    texts: Sequence[str]
    blank: Sequence[bool]
    codes: Tensor
    hidden: Tensor
    """(B, L) bool: what is asked about; a next-token model is asked about all."""
    flawed: Tensor | None = None


class Corrector(Protocol):
    """Rows to (B, L) log-probabilities of their codes."""

    def __call__(self, rows: Rows) -> Tensor: ...


@dataclass
class CorrectionConfig:
    batch: int = 16
    """Corrections of a step."""
    plain: int = 8
    """Right images of a step that are painted from their prompt alone, against forgetting."""
    blank: float = 0.1
    """Share of rows without text, for guidance."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.plain < 0 or not 0 <= self.blank < 1:
            raise ValueError(
                f"batch={self.batch}: at least 1; plain={self.plain}: at least 0; blank={self.blank}: in [0, 1)."
            )


@dataclass
class Correction:
    """One example: what is painted from, and both images as codes (L,)."""

    prompt: str
    told: str
    """Prompt and reason, as the painter is told them."""
    worse: Tensor
    better: Tensor


def corrections(pairs: Pairs, wording: str) -> list[Correction]:
    """Stored pairs as examples; those whose fault nobody could name are left out. wording: see `look_back.told`."""
    rows = zip(pairs.prompts, pairs.reasons, pairs.worse, pairs.better, strict=True)
    return [
        Correction(prompt, told(wording, prompt, reason), worse, better)
        for prompt, reason, worse, better in rows
        if reason
    ]


@dataclass
class CorrectionTask:
    """The task for `training.loop.train`."""

    model: nn.Module
    score: Corrector
    examples: Sequence[Correction]
    masked: bool = True
    """Masked-token model; False: next-token, where nothing is hidden and every code counts."""
    config: CorrectionConfig = field(default_factory=CorrectionConfig)

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError("there are no corrections: they need a right image and a wrong one whose fault is known")
        self.model.eval()

    def batch(self, step: int) -> tuple[Rows, Rows | None]:
        """Corrections, and right images from their prompts alone; made from (seed, step) alone."""
        rng = random.Random(f"{self.config.seed}/{step}")
        fixed = rng.choices(self.examples, k=self.config.batch)
        corrections = self._rows(rng, [row.told for row in fixed], fixed)
        corrections.flawed = torch.stack([row.worse for row in fixed])
        plain = rng.choices(self.examples, k=self.config.plain)
        return corrections, self._rows(rng, [row.prompt for row in plain], plain) if plain else None

    def _rows(self, rng: random.Random, texts: Sequence[str], rows: Sequence[Correction]) -> Rows:
        codes = torch.stack([row.better for row in rows])
        hidden = torch.ones_like(codes, dtype=torch.bool)
        if self.masked:
            hidden = torch.stack([hidden_slots(str(rng.random()), codes.shape[1]) for _ in codes])
        return Rows(texts, [rng.random() < self.config.blank for _ in texts], codes, hidden)

    def loss(self, batch: tuple[Rows, Rows | None]) -> tuple[Tensor, dict[str, float | Tensor]]:
        device = next(self.model.parameters()).device
        sums, counts = [], []
        log: dict[str, float | Tensor] = {}
        for name, rows in zip(("corrected", "plain"), batch, strict=True):
            if rows is None:
                continue
            rows = replace(rows, codes=rows.codes.to(device), hidden=rows.hidden.to(device))
            sums.append(-torch.where(rows.hidden, self.score(rows), 0.0).sum())
            counts.append(rows.hidden.sum())
            log[name] = sums[-1].detach() / counts[-1]
        return torch.stack(sums).sum() / torch.stack(counts).sum(), log


def corrector(painter: CodePainter) -> Corrector:
    """ValueError for painters that cannot look at a picture."""
    makers = {"showo": showo_corrector, "janus": janus_corrector}
    if painter.family not in makers:
        raise ValueError(f"A {painter.family} cannot look at a picture, so it cannot learn to correct one.")
    return makers[painter.family](painter.model, painter.words)


def showo_corrector(model: Any, words: ShowoTokenizer) -> Corrector:
    """Rows without text keep the flawed image: guidance may take either twin."""
    seen = Seen(model)

    def score(rows: Rows) -> Tensor:
        texts = ["" if blank else text for text, blank in zip(rows.texts, rows.blank, strict=True)]
        flawed = None if rows.flawed is None else seen(rows.flawed)
        return model.log_prob([words.painting_ids(text) for text in texts], rows.codes, rows.hidden, flawed=flawed)

    return score


@dataclass
class Seen:
    """`seen_codes`, each image once."""

    model: Showo
    known: dict[bytes, Tensor] = field(default_factory=dict)

    def __call__(self, codes: Tensor) -> Tensor:
        keys = [row.numpy().tobytes() for row in codes.cpu()]
        new = {key: row for key, row in zip(keys, codes, strict=True) if key not in self.known}
        if new:
            self.known |= zip(new, seen_codes(self.model, torch.stack(list(new.values()))), strict=True)
        return torch.stack([self.known[key] for key in keys])


@torch.no_grad()
def seen_codes(model: Showo, codes: Tensor) -> Tensor:
    """The codes of pictures (B, L) once they were painted as bytes and read again."""
    painted = to_uint8(model.pictures.decode(codes.to(model.device)))
    return model.encode(torch.from_numpy(painted).permute(0, 3, 1, 2))


def janus_corrector(model: Any, words: Any) -> Corrector:
    """Rows without text have the blank twin of their prompt, without a picture, as when painting."""
    from .janus_policy import predictors

    painter = JanusPainter(model, words)

    def score(rows: Rows) -> Tensor:
        pictures: list[Image.Image | None] = [None] * len(rows.texts)
        if rows.flawed is not None:
            with torch.no_grad():
                pictures = [Image.fromarray(pixels) for pixels in to_uint8(model.decode_codes(rows.flawed))]
        shown = [painter.embed_with(*row) for row in zip(rows.texts, pictures, rows.blank, strict=True)]
        painted = [model.embed_codes(row[:-1]).to(text.dtype) for row, text in zip(rows.codes, shown, strict=True)]
        return code_log_prob(model.code_logits(predictors(model, shown, painted)), rows.codes)

    return score
