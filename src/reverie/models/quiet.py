"""Loading without the progress bars of transformers and diffusers: ours would be torn apart by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


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
