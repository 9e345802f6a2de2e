"""Files that appear whole or not at all, and files that one process has for itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a sibling file, then put it in place: readers see the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # processes may write the same file at once
    try:
        write(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_array(path: Path, array: Any) -> None:
    """A numpy array as .npy, whole or not at all."""
    import numpy as np

    def fill(partial: Path) -> None:
        with partial.open("wb") as file:  # by its name numpy would give it another ending
            np.save(file, array)

    write_atomically(path, fill)


def claim(file: Path, record: Mapping[str, Any]) -> None:
    """Say in `file` what its folder is for, or check that it says the same already; ValueError if it does not."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            text = json.dumps(record, indent=1) + "\n"
            write_atomically(file, lambda part: part.write_text(text, "utf-8"))
            return
        there = read_object(file)
    except OSError as error:
        said = error.strerror or error
        raise ValueError(f"The folder {file.parent} cannot be used ({said}): give one that is writable.") from error
    for key, value in json.loads(json.dumps(record)).items():
        if there.get(key) != value:
            raise ValueError(f"{file.parent} holds {key} {there.get(key)!r}, not {value!r}: give another folder.")


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError where there is none."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): give another folder.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged (no object): give another folder.")
    return found


@contextmanager
def locked(path: Path, busy: str | None = None, first: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Keep a file to this process. Where another has it: ValueError with `busy`, or without that, wait until it is
    free. `first` runs once it is ours.

    The lock goes when the process ends, however it ends. Where the system has no such locks, nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        first()
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError as error:
            raise ValueError(busy) from error
        except OSError:
            pass  # a file system without locks, such as some network mounts
        first()
        yield
