"""Loading without the progress bars of transformers and diffusers, which would tear ours apart, and without warnings
that are about something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

LARGE = 2**30
"""Bytes of weights that take a while."""


def unless_large(folder: str | Path, *libraries: ModuleType) -> AbstractContextManager[None]:
    """`quietly`, for a folder whose weights are not large; bars stay where they are, or have to be fetched."""
    small = Path(folder).is_dir() and sum(one.stat().st_size for one in Path(folder).rglob("*.safetensors")) <= LARGE
    return quietly(*libraries) if small else nullcontext()


@contextmanager
def quietly(*libraries: ModuleType) -> Iterator[None]:
    """libraries: the modules `utils.logging` of transformers and diffusers."""
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


@contextmanager
def errors_only(library: ModuleType) -> Iterator[None]:
    """library: the module `utils.logging` of transformers or diffusers."""
    before = library.get_verbosity()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(before)
