"""Many prompts to the states that a diffusion transformer reads: each different text once, many of them in one pass.

For Qwen-Image the pass ends before the language model's head: the states are those behind the last norm, which equal
the pipeline's own `hidden_states[-1]`, without the logits of a large vocabulary at every position. Editors, whose texts
hold pictures, and the other families read one text at a time through the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from reverie.models.diffusion_families import Family, QwenImage, Text

Asked = tuple[str, tuple[Any, ...]]
"""A prompt and the pictures that go with it."""


def read_prompts(family: Family, asked: Iterable[Asked], together: int = 64) -> list[Text]:
    """A `Text` for each; equal prompts about the same pictures are read once and share theirs. With gradient where
    that is on."""
    asked = list(asked)
    places: dict[tuple[Any, ...], int] = {}
    for prompt, pictures in asked:
        places.setdefault(_key(prompt, pictures), len(places))
    first = {places[_key(*one)]: one for one in reversed(asked)}
    different = [first[place] for place in range(len(places))]
    if type(family) is QwenImage:
        texts = []
        for start in range(0, len(different), together):
            texts += qwen_states(family, [prompt for prompt, _ in different[start : start + together]])
    else:
        texts = [family.encode(prompt, pictures) for prompt, pictures in different]
    return [texts[places[_key(*one)]] for one in asked]


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
