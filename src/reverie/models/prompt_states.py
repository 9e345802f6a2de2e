"""Many prompts to the states that a diffusion transformer reads: each different text once, many of them in one pass.

For Qwen-Image the pass ends before the language model's head: the states are those behind the last norm, which equal
the pipeline's own `hidden_states[-1]`, without the logits of a large vocabulary at every position. Editors, whose texts
hold pictures, and the other families read one text at a time through the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from reverie.models.diffusion_family import Family, Text
from reverie.models.diffusion_qwen import QwenImage

Asked = tuple[str, tuple[Any, ...]]
"""A prompt and the pictures that go with it."""


class Reads(Protocol):
    """A painter, as far as reading goes (see generators/diffusion.py)."""

    @property
    def family(self) -> Family: ...

    @property
    def words(self) -> Family | None:
        """Of an editor that also paints from words alone: who reads these."""


def read_prompts(painter: Reads, asked: Iterable[Asked], together: int = 64) -> list[Text]:
    """A `Text` for each; equal prompts about the same pictures are read once and share theirs. With gradient where
    that is on."""
    asked = list(asked)
    places: dict[tuple[Any, ...], int] = {}
    for prompt, pictures in asked:
        places.setdefault(_key(prompt, pictures), len(places))
    first = {places[_key(*one)]: one for one in reversed(asked)}
    different = [first[place] for place in range(len(places))]
    texts: list[Text] = []
    for first_one, last_one in _runs([not pictures for _, pictures in different], together):
        part = different[first_one:last_one]
        family = painter.words if painter.words is not None and not part[0][1] else painter.family
        if type(family) is QwenImage:
            texts += qwen_states(family, [prompt for prompt, _ in part])
        else:
            texts += [family.encode(prompt, pictures) for prompt, pictures in part]
    return [texts[places[_key(*one)]] for one in asked]


def _runs(kinds: Sequence[bool], most: int) -> Iterable[tuple[int, int]]:
    """Stretches of one kind, of `most` at most."""
    start = 0
    for end in range(1, len(kinds) + 1):
        if end == len(kinds) or kinds[end] != kinds[start] or end - start == most:
            yield start, end
            start = end


def _key(prompt: str, pictures: Sequence[Any]) -> tuple[Any, ...]:
    return prompt, *map(id, pictures)


def qwen_states(family: QwenImage, prompts: Sequence[str]) -> list[Text]:
    """What `family.encode` gives for each prompt, in one pass padded at the end."""
    pipe, first = family.pipeline, family.pipeline.prompt_template_encode_start_idx
    # The pipeline reads up to its own maximum and cuts the states to the limit afterwards; what stands later cannot
    # change what stands before.
    rows = pipe.tokenizer(
        [pipe.prompt_template_encode.format(prompt) for prompt in prompts],
        max_length=first + family.limit, padding=True, truncation=True, padding_side="right", return_tensors="pt",
    ).to(family.device)  # fmt: skip
    hidden: Tensor = pipe.text_encoder.base_model(
        input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False
    ).last_hidden_state
    counts = rows.attention_mask.sum(1).tolist()
    return [Text(hidden[i : i + 1, first:count]) for i, count in enumerate(counts)]


def states_gap(texts: Sequence[Text], others: Sequence[Text]) -> Tensor:
    """A scalar: mean squared distance of the states of the same prompts, in units of the mean square of `others`."""
    mine, theirs = (torch.cat([text.states[0] for text in one]).float() for one in (texts, others))
    return (mine - theirs.detach()).square().mean() / theirs.detach().square().mean()
