"""A painter over a pipeline of diffusers that somebody has loaded already: every plan, where users already are.

    pipe = diffusers.QwenImagePipeline.from_pretrained("Qwen/Qwen-Image", torch_dtype=torch.bfloat16).to("cuda")
    pipe.load_lora_weights(...)
    painter = reverie.around(pipe)
    painter.generate("a red fish below a boat", preset="parm", judge=my_reward, seed=7)

The pipeline stays what it is: its LoRA weights, offloading, quantisation and scheduler are used as they are found, and
one image with seed s is what it paints with `generator=torch.Generator().manual_seed(s)`. A community pipeline
(`custom_pipeline=`) would have to repeat the parts of each family in a file of its own; a function takes them all.
"""

from __future__ import annotations

from typing import Any

from reverie.generators.family import OWN_STEPS
from reverie.models.diffusion_checkpoint import PIPELINES
from reverie.models.registry import Source
from reverie.painter import Painter


def around(pipeline: Any, **settings: Any) -> Painter:
    """settings: `steps`, `guidance`, `negative`, `height`, `width`, `limit` (prompt tokens), for an editor `area`
    (pixels of its source pictures) and `paints` (whether it also paints from words alone); by default what the pipeline
    itself would take. ValueError for others, and for a pipeline of a class that Reverie has no canvas for.

    Its pictures' recipes name where the weights came from and hold no fingerprint: what was done to them in memory
    cannot be known, so a replay warns."""
    name = type(pipeline).__name__
    if name not in PIPELINES:
        raise ValueError(f"{name}: Reverie can paint with {', '.join(PIPELINES)}.")
    strange = sorted(set(settings) - set(OWN_STEPS))
    if strange:
        raise ValueError(f"{strange[0]!r} is no setting of a pipeline; there are {', '.join(OWN_STEPS)}.")
    index = {**pipeline.config, "_class_name": name, "_reverie": settings}
    where = str(getattr(pipeline, "name_or_path", "") or name)
    return Painter(Source(where, "diffusion", thinker="t2g", config=index), pipeline, None)
