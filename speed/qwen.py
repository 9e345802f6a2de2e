"""N images of one prompt from a Qwen-Image: Reverie's canvas against N calls of the diffusers pipeline, in one process.

    python speed/qwen.py --images 8 --repeats 5

Same weights, noise, guidance and steps; the pictures are compared first. `each` is the canvas as it stands, every image
bit for bit the same in any company: it reads the prompt once where the pipeline reads it N times, takes both ways of
guidance in one batch, and leaves out the kernels of the autoencoder that a still never meets. `together` has all images
in one batch. `pipeline, N at once` is the pipeline's own num_images_per_prompt. Ways take turns, so that what else the
machine does meets all of them; medians of wall seconds and of the ratios of one round.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

PROMPT = "three blue cats and a red boat"


def load(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """The pipeline as diffusers loads it, as Reverie loads it, and with what settings it is to paint."""
    import diffusers

    import reverie
    from reverie.generators.family import own_steps

    painter = reverie.load(name, "cpu")
    plain = diffusers.QwenImagePipeline.from_pretrained(painter.folder, torch_dtype=torch.float32)
    plain.set_progress_bar_config(disable=True)
    return plain, painter.model, own_steps(painter.source.config)


def ways(
    pipe: Any, editor: Any, own: dict[str, Any], images: int, prompt: str = PROMPT
) -> dict[str, Callable[[], list[np.ndarray]]]:
    """What is timed, by name; each makes the same pictures with seeds 0, 1, ..."""
    from reverie.canvas import Conditions
    from reverie.generators.diffusion import DiffusionPainter
    from reverie.models.diffusion_qwen import in_words_alone

    call = {
        "negative_prompt": " ", "true_cfg_scale": own["guidance"], "num_inference_steps": own["steps"],
        "height": own["height"], "width": own["width"],
    }  # fmt: skip

    def one_by_one() -> list[np.ndarray]:
        seeds = (torch.Generator().manual_seed(seed) for seed in range(images))
        return [np.asarray(pipe(prompt, generator=seed, **call).images[0]) for seed in seeds]

    def at_once() -> list[np.ndarray]:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(images)]
        return [np.asarray(one) for one in pipe(prompt, num_images_per_prompt=images, generator=seeds, **call).images]

    def canvas(together: int) -> Callable[[], list[np.ndarray]]:
        if together == 1:
            generator = DiffusionPainter(editor, **own)
        else:  # images that may be edited go one by one, so these are of a painter from words alone
            wanted = {name: own[name] for name in ("steps", "guidance", "height", "width", "limit")}
            generator = DiffusionPainter(in_words_alone(editor).pipeline, **wanted, together=together)

        def paint() -> list[np.ndarray]:
            started = generator.start(Conditions([prompt] * images), list(range(images)))
            return generator.preview(generator.advance(started))

        return paint

    return {
        "pipeline, N calls": one_by_one, "pipeline, N at once": at_once, "each": canvas(1), "together": canvas(images),
    }  # fmt: skip


def differences(made: dict[str, Callable[[], list[np.ndarray]]]) -> dict[str, int]:
    """The largest difference of a pixel, of 255, from what N calls of the pipeline paint."""
    first, *others = made
    wanted = [np.asarray(one, int) for one in made[first]()]
    return {name: max(int(np.abs(a - b).max()) for a, b in zip(wanted, made[name](), strict=True)) for name in others}


def measure(
    made: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(repeats):
        for name, paint in made.items():
            begin = clock()
            paint()
            found[name].append(clock() - begin)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="atelier-qwen")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(arguments)
    made = ways(*load(args.model), args.images)
    print("largest difference of a pixel:", differences(made))
    seconds = measure(made, args.repeats)
    base = seconds["pipeline, N calls"]
    result = {}
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(base, times, strict=True)]
        result[name] = {"seconds": statistics.median(times), "times as fast": statistics.median(ratios)}
        print(f"{name:22} {result[name]['seconds']:8.3f} s   {result[name]['times as fast']:6.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
