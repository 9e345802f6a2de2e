"""Pipelines of diffusers as canvases: the pipeline's own pictures, and the promise of the canvas."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="needs reverie[diffusion]")

import diffusion_toy as toys

from reverie.canvas import Canvas, Conditions, copy_seed
from reverie.generators.diffusion import DiffusionPainter
from reverie.generators.flow_canvas import EditConditions, FlowCanvas
from reverie.models.diffusion_families import family_of, pack, unpack
from reverie.models.flow_sde import SdeNoise, flow_step

PROMPTS = ("a cat", "a red fish below a boat", "two dogs under a pale moon")
SIDE, STEPS = 32, 4
GUIDANCE = {"qwen_image": "true_cfg_scale", "stable_diffusion_3": "guidance_scale", "flux": "guidance_scale"}
KINDS = tuple(GUIDANCE)


@functools.cache
def pipeline(kind: str):
    return getattr(toys, kind)()


@functools.cache
def painter(kind: str, together: int = 1, **settings) -> DiffusionPainter:
    return DiffusionPainter(pipeline(kind), steps=STEPS, height=SIDE, width=2 * SIDE, together=together, **settings)


def own_latents(kind: str, prompts, seeds, guidance: float, **more) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    negative = {} if kind == "flux" else {"negative_prompt": [" " if kind == "qwen_image" else ""] * len(prompts)}
    settings = {GUIDANCE[kind]: guidance, "num_inference_steps": STEPS, "generator": generators, **negative, **more}
    return pipeline(kind)(list(prompts), height=SIDE, width=2 * SIDE, return_dict=False, **settings)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("together", [1, 4])
def test_latents_and_pictures_are_those_of_the_pipeline(kind, guidance, together):
    seeds = (3, 4, 5)
    generator = painter(kind, together)
    canvas = generator.advance(generator.start(Conditions(PROMPTS, guidance), seeds))
    torch.testing.assert_close(
        canvas.trail[-1], own_latents(kind, PROMPTS, seeds, guidance, output_type="latent"), atol=1e-4, rtol=1e-4
    )
    theirs = own_latents(kind, PROMPTS, seeds, guidance, output_type="pil")
    for ours, picture in zip(generator.preview(canvas), theirs, strict=True):
        # A value that lies between two bytes may fall to either side.
        assert np.abs(ours.astype(int) - np.asarray(picture).astype(int)).max() <= 1
