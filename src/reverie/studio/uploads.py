"""Pictures from outside: believed only after they were decoded, and kept as PNGs that were written here.

A name says nothing and is not used. The header is read first: a format that is not allowed, or more pixels than
allowed, is refused before a single one is unpacked. What is kept holds pixels only, no text, profile or second frame.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import BinaryIO

from reverie.png import save_png

FORMATS = ("PNG", "JPEG", "WEBP")
ID_LETTERS = 32


def decoded(file: BinaryIO, most_pixels: int):  # type: ignore[no-untyped-def]  # PIL is imported inside
    """The picture in a file, upright, as RGB or RGBA. ValueError, in one sentence, for anything else."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the lower one
            picture = Image.open(file, formats=FORMATS)
        if picture.width * picture.height > most_pixels:
            raise ValueError(
                f"the picture has {picture.width} x {picture.height} pixels; at most "
                f"{most_pixels / 1e6:g} million are read here, so make it smaller."
            )
        upright = ImageOps.exif_transpose(picture)
        return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"the picture has far more than {most_pixels / 1e6:g} million pixels; make it smaller."
        ) from error
    except ValueError as error:
        if str(error).startswith("the picture has"):
            raise
        raise ValueError(f"the file is damaged ({' '.join(str(error).split())}); send another one.") from error
    except (Image.UnidentifiedImageError, SyntaxError, EOFError, OSError) as error:
        raise ValueError("the file cannot be read as a picture; send a whole PNG, JPEG or WebP file.") from error


def keep(file: BinaryIO, folder: Path, most_pixels: int) -> tuple[str, int, int]:
    """Decodes a picture and files it in `folder`: (id, width, height). Equal pictures have equal ids."""
    picture = decoded(file, most_pixels)
    digest = hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()
    name = digest[:ID_LETTERS]
    path = folder / f"{name}.png"
    if not path.is_file():
        save_png(picture, path)
    return name, picture.width, picture.height
