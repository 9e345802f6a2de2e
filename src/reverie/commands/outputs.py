"""Where pictures go: file names from prompts, and folders that can be written."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from pathlib import Path

OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def picture_files(out: str | None, name: str, n: int) -> list[Path]:
    """The files of `n` pictures, none of them made yet; ValueError if they could not be written.

    out: a file that ends in .png (with n > 1, NAME-1.png, NAME-2.png, ...), or a folder, or None for the current one.
    In a folder they are called after `name`, with a number where that is taken: only a file that is named is replaced.
    """
    if out is not None and out.lower().endswith(".png") and not Path(out).is_dir():
        path = Path(out)
        if not path.stem or path.name.lower() == ".png":
            raise ValueError(f"--out {out}: give the file a name before .png.")
        check_writable(path.parent)
        files = numbered(path, n)
        taken = next((file for file in files if file.is_dir()), None)
        if taken is not None:
            raise ValueError(f"--out {out}: {taken} is a folder; give another name.")
        return files
    if out is not None and out.lower().endswith(OTHER_PICTURES):
        raise ValueError(f"--out {out}: pictures are written as PNG, which holds their recipe; end the name in .png.")
    folder = Path(out) if out else Path()
    check_writable(folder)
    number, files = 1, numbered(folder / f"{slug(name)}.png", n)
    while any(file.exists() for file in files):
        number += 1
        files = numbered(folder / f"{slug(name)}-{number}.png", n)
    return files


def numbered(path: Path, n: int) -> list[Path]:
    """The path itself, or NAME-1.png, NAME-2.png, ... for several."""
    if n == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{i}{path.suffix}") for i in range(1, n + 1)]


def slug(text: str) -> str:
    """A short file name out of a prompt: letters and digits of any script, words joined by hyphens."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = "-".join(re.findall(r"\w+", plain))
    while len(words.encode()) > 60:
        words = words[:-1]
    return words.strip("-_") or "picture"


def check_writable(folder: Path) -> None:
    """ValueError if no file could be made in `folder`, or in the nearest one above it that exists. Leaves nothing."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"cannot write to {folder}: {place} is not a folder.")
    try:
        # Tried rather than asked: permission bits do not tell of read-only disks, and the superuser may do anything.
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ValueError(f"cannot write to {folder}: {reason}; give another place.") from error
