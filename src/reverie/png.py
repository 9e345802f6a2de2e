"""Pictures that remember how they were made: PNG files with their recipe in a text chunk.

The recipe is JSON under the key `reverie` (an iTXt chunk, so prompts of any language survive). Files are written under
a temporary name and then renamed: a reader, or a user who pressed Ctrl-C, finds the whole picture or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "reverie"
LARGEST_SIDE = 8192
LARGEST_AREA = LARGEST_SIDE**2
"""Pixels of a picture that is still decoded."""


def save_png(image: Image, path: str | Path, recipe: Mapping[str, Any] | None = None, size: int | None = None) -> Path:
    """Writes `image` to `path`, with its recipe; scaled so that its longer side has `size` pixels if given."""
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    info = PngInfo()
    if recipe is not None:
        info.add_itxt(KEY, json.dumps(recipe, ensure_ascii=False))
    # The name is chosen before the file exists: an interrupt at any moment from here on finds it and takes it away.
    partial = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            resized(image, size).save(file, format="PNG", pnginfo=info)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The recipe inside a PNG; ValueError where the file is missing, is no picture, or has none."""
    text = open_picture(path).info.get(KEY)
    if text is None:
        raise ValueError(f"{path} carries no recipe; only PNG files written by reverie can be replayed.")
    try:
        recipe = json.loads(text)
    except ValueError as error:
        raise ValueError(f"The recipe in {path} is damaged ({error}); it cannot be replayed.") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"The recipe in {path} is damaged (not an object); it cannot be replayed.")
    return recipe


def open_picture(path: str | Path | BinaryIO, largest: int = LARGEST_AREA) -> Image:
    """An image file, fully read; `info` holds its text chunks. A picture of more than `largest` pixels is refused from
    what its header says, before it is decoded."""
    from PIL import Image, UnidentifiedImageError

    name = path if isinstance(path, str | Path) else "what was given"
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; those are refused here, in a sentence.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        if image.width * image.height > largest:
            raise ValueError(
                f"{name} has {image.width} x {image.height} pixels, and at most {largest} are read; scale it down."
            )
        image.load()
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {name}; give the name of a picture.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} has more than the {largest} pixels that are read; scale it down.") from error
    except (UnidentifiedImageError, SyntaxError, EOFError) as error:
        raise ValueError(f"{name} cannot be read as a picture; give a PNG, JPEG or WebP file.") from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read as a picture ({error.strerror or error}).") from error
    return image


def resized(image: Image, size: int | None) -> Image:
    """Scaled with Lanczos to a longer side of `size` pixels; the image itself if that changes nothing."""
    from PIL.Image import Resampling

    check_size(size)
    if size is None or size == max(image.size):
        return image
    factor = size / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Resampling.LANCZOS)


def check_size(size: int | None) -> None:
    """ValueError for a display size that no picture can have."""
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise ValueError(f"size={size}: must lie between 1 and {LARGEST_SIDE} pixels.")


def picture_hash(image: Image) -> str:
    """SHA-256 of size and RGB pixels: equal exactly for equal pictures, however they are compressed."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()
