"""Plans over a diffusers pipeline that is in memory."""

import diffusion_toy as toys
import numpy as np
import pytest
import torch

import reverie
from reverie.events import Chosen, Thought

SETTINGS = {"steps": 3, "height": 32, "width": 32}


@pytest.mark.parametrize("kind", ["stable_diffusion_3", "flux", "qwen_image"])
def test_one_picture_is_what_the_pipeline_paints(kind):
    pipe = getattr(toys, kind)()
    ours = reverie.around(pipe, **SETTINGS).generate("a cat", seed=7)
    more = {"negative_prompt": " "} if kind == "qwen_image" else {}
    generator = torch.Generator().manual_seed(7)
    theirs = pipe("a cat", num_inference_steps=3, height=32, width=32, generator=generator, **more).images[0]
    assert np.abs(np.asarray(ours.image).astype(int) - np.asarray(theirs).astype(int)).max() <= 1
    assert ours.recipes[0]["fingerprint"] is None


def test_candidates_are_chosen_and_weights_in_memory_count():
    pipe = toys.stable_diffusion_3()
    painter = reverie.around(pipe, **SETTINGS)

    def bright(prompts, pictures):
        return [float(np.asarray(picture).mean()) for picture in pictures]

    best = painter.generate("a cat", choose="orm", candidates=4, judge=bright, seed=7)
    (chosen,) = [event for event in best.trace if isinstance(event, Chosen)]
    alone = painter.generate("a cat", seed=chosen.seed)
    assert np.array_equal(np.asarray(best.image), np.asarray(alone.image))
    first = painter.generate("a cat", seed=7)
    assert bright([], [best.image]) >= bright([], [first.image])
    with torch.no_grad():
        for weight in pipe.transformer.parameters():
            weight.mul_(1.5)
    assert not np.array_equal(np.asarray(painter.generate("a cat", seed=7).image), np.asarray(first.image))


def test_a_text_encoder_that_writes_thinks():
    painter = reverie.around(toys.qwen_image(), **SETTINGS)
    events = list(painter.stream("a cat", think="before", thought_tokens=4, seed=1))
    assert any(isinstance(event, Thought) and event.whole is not None for event in events)
    with pytest.raises(ValueError, match="cannot look at what it paints"):
        painter.stream("a cat", think="during")


def test_what_it_cannot_be_put_around():
    with pytest.raises(ValueError, match="can paint with QwenImagePipeline"):
        reverie.around(object())
    with pytest.raises(ValueError, match="'step' is no setting"):
        reverie.around(toys.stable_diffusion_3(), step=3)
