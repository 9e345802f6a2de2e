"""Pictures of noise."""

import numpy as np
from PIL import Image


def noise(seed: int = 0, size: tuple[int, int] = (24, 16)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)
