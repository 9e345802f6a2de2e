"""Training a small T5 in the Atelier: the space in which ThinkDiff's aligner writes and its diffusion model reads.

What the aligner learns from the decoder helps the diffusion model only if the decoder finds everything in the encoder's
vectors: one that could guess captions by itself would be content with vectors that say little. So most of what it has
to write is another wording of what the encoder read, or the whole of a caption of which much is hidden; only a share is
the continuation of a prefix (the proxy task itself). Noise on the encoder's vectors, and vectors left out, make their
neighbourhoods mean the same. Half of the batches read their padding, as FLUX and its kin have it: no mask.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.t5 import IGNORED, decode_states, read_back
from .align import Words
from .captions import pictured, worded

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration, T5Tokenizer

SENTINELS = 16
"""Tokens that stand for hidden spans; a caption with more of them repeats the last."""


@dataclass
class TextSizes:
    """Sizes of the T5; feed-forward layers are gated, the head is the embedding, as in T5 and unlike T5 v1.1.

    scale: of the encoder's vectors in the end. Those of public T5s are about a tenth; here training leaves them at 1.
    """

    width: int = 192
    heads: int = 6
    ffn: int = 384
    encoder_layers: int = 3
    decoder_layers: int = 2
    vocabulary: int = 1024
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise ValueError(f"scale={self.scale}: must be above 0.")


@dataclass
class TextTraining:
    """batch: pairs of texts a step. reword, heal, go_on, copy: how often the decoder has to write another wording, the
    whole of a caption with hidden spans, the end of a caption whose beginning was read, the same again.
    noise: largest deviation of noise on the encoder's vectors, relative to their size; left_out: share of vectors that
    the decoder does not see. longest: of a text, in tokens."""

    batch: int = 64
    reword: float = 0.45
    heal: float = 0.25
    go_on: float = 0.2
    copy: float = 0.1
    noise: float = 0.7
    left_out: float = 0.08
    longest: int = 64
    rich: float = 0.08
    """Share of batches whose texts are of several sentences; together they are not padded for."""

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.reword, self.heal, self.go_on, self.copy) < 0:
            raise ValueError(f"batch={self.batch}: must be at least 1, and no share of a task may be negative.")
        if not 0 <= self.left_out < 1 or self.noise < 0:
            raise ValueError(f"left_out={self.left_out}, noise={self.noise}: must be a share, and not negative.")


def word_pieces(texts: Iterable[str], size: int) -> T5Tokenizer:
    """A T5 tokenizer (SentencePiece unigrams) of at most `size` entries, sentinels included: the commonest words of the
    texts, each one piece, and letters for all else."""
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(33, 127)]
    found = Counter(word for text in texts for word in re.findall(r"[A-Za-z0-9]+", text))
    room = size - SENTINELS - len(letters) - 4
    total, common = found.total(), found.most_common(room)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    pieces += [(f"▁{word}", math.log(count / total)) for word, count in common]
    pieces += [(letter, -3.0 if letter in ",." else -16.0) for letter in letters]  # dearer than any word
    pieces += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(SENTINELS))]
    return T5Tokenizer(vocab=pieces, extra_ids=SENTINELS, model_max_length=512)


def caption_texts(count: int = 20000, seed: int = 0) -> Iterable[str]:
    """What the tokenizer learns from."""
    rng = random.Random(f"pieces/{seed}")
    return (worded(pictured(rng)[0], rng) for _ in range(count))


def fresh_t5(sizes: TextSizes, words: T5Tokenizer) -> T5ForConditionalGeneration:
    """With random weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    settings: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    config = T5Config(
        vocab_size=len(words), d_model=sizes.width, d_kv=sizes.width // sizes.heads, d_ff=sizes.ffn,
        num_layers=sizes.encoder_layers, num_decoder_layers=sizes.decoder_layers, num_heads=sizes.heads,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, **settings,
    )  # fmt: skip
    return T5ForConditionalGeneration(config).train()


@torch.no_grad()
def rescale(t5: Any, scale: float) -> None:
    """The same T5, in place, whose encoder writes vectors of another size and whose decoder takes them as they were. A
    power of two changes nothing at all in what is said, in any precision."""
    t5.encoder.final_layer_norm.weight.mul_(scale)
    for block in t5.decoder.block:
        attention = block.layer[1].EncDecAttention
        attention.k.weight.div_(scale)
        attention.v.weight.div_(scale)


def hide(text: str, share: float, rng: random.Random) -> str:
    """The text with about this share of its words hidden, each run of hidden ones behind one sentinel."""
    shown: list[str] = []
    runs, inside = 0, False
    for word in text.split():
        hidden = rng.random() < share
        if not hidden:
            shown.append(word)
        elif not inside:
            shown.append(f"<extra_id_{min(runs, SENTINELS - 1)}>")
            runs += 1
        inside = hidden
    return " ".join(shown)


class TextTask:
    """`training.loop.Task` of the T5."""

    def __init__(self, model: T5ForConditionalGeneration, words: T5Tokenizer, config: TextTraining, seed: int = 0):
        self.model, self.words, self.config, self.seed = model, Words(words, config.longest), config, seed

    def pair(self, rng: random.Random, rich: float = 0.0) -> tuple[str, str]:
        """(what the encoder reads, what the decoder has to write)."""
        demand, _ = pictured(rng)
        text, config = worded(demand, rng, rich), self.config
        tasks: dict[Callable[[], tuple[str, str]], float] = {
            lambda: (text, worded(demand, rng, rich)): config.reword,
            lambda: (hide(text, rng.uniform(0.1, 0.6), rng), text): config.heal,
            lambda: _cut(text, rng): config.go_on,
            lambda: (text, text): config.copy,
        }
        return rng.choices(list(tasks), list(tasks.values()))[0]()

    def batch(self, step: int) -> dict[str, Tensor]:
        rng = random.Random(f"{self.seed}/{step}")
        rich = float(rng.random() < self.config.rich)
        pairs = [self.pair(rng, rich) for _ in range(self.config.batch)]
        ids, mask = self.words.ids([read for read, _ in pairs])
        labels, label_mask = self.words.labels([written for _, written in pairs])
        if rng.random() < 0.5:
            more = rng.randint(0, 10)
            ids, mask = F.pad(ids, (0, more)), torch.ones(len(ids), ids.shape[1] + more, dtype=torch.long)
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        noise = torch.randn(*ids.shape, self.model.config.d_model, generator=generator)
        noise *= self.config.noise * torch.rand(len(ids), 1, 1, generator=generator)
        seen = mask * (torch.rand(mask.shape, generator=generator) >= self.config.left_out)
        seen[:, 0] = 1  # something must be left to look at
        return {"ids": ids, "mask": mask, "seen": seen, "noise": noise, "labels": labels, "label_mask": label_mask}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        model, labels = self.model, batch["labels"]
        memory = model.encoder(input_ids=batch["ids"], attention_mask=batch["mask"]).last_hidden_state
        memory = memory + batch["noise"] * memory.detach().square().mean(-1, keepdim=True).sqrt()
        real = labels != IGNORED
        states = decode_states(model, memory, batch["seen"], labels, batch["label_mask"])[real]
        logits = model.lm_head(states).float()
        right = (logits.detach().argmax(-1) == labels[real]).float().mean()
        return F.cross_entropy(logits, labels[real]), {"right": right}

    @torch.no_grad()
    def understood(self, step: int, out: Path, count: int = 128) -> None:
        """Appends to `out`/readings.jsonl which share of captions, parsable ones, the decoder rewords rightly: what it
        writes must parse to what the encoder read. And a few examples."""
        from ..atelier.language import parse

        rng = random.Random(f"understood/{self.seed}")
        asked = [(demand, worded(demand, rng, rich=0)) for demand, _ in (pictured(rng) for _ in range(count))]
        ids, mask = self.words.ids([text for _, text in asked])
        device = self.model.device
        memory = self.model.encoder(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        read = read_back(self.model, memory, mask.to(device), self.config.longest)
        texts = self.words.tokenizer.batch_decode(read, skip_special_tokens=True)
        pairs = [[text, written] for (_, text), written in zip(asked, texts, strict=True)]
        right = [_parsed(parse, written) == _parsed(parse, text) for text, written in pairs]
        with (out / "readings.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "understood": sum(right) / len(right), "examples": pairs[:6]}) + "\n")


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    """What a text demands, or the text itself where the grammar does not read it."""
    from .captions import HEAD

    try:
        return parse(text.removeprefix(HEAD).strip())
    except ValueError:
        return text


def _cut(text: str, rng: random.Random) -> tuple[str, str]:
    """A beginning and the rest; of a single word, nothing and the word."""
    parts = text.split()
    at = rng.randint(1, len(parts) - 1) if len(parts) > 1 else 0
    return " ".join(parts[:at]), " ".join(parts[at:])


def save_t5(model: Any, words: T5Tokenizer, folder: str | Path) -> None:
    """The transformers layout, in bfloat16: model, configuration, tokenizer."""
    model.to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
