"""The table of benchmarks: a name, and the function that makes it."""

from __future__ import annotations

from importlib import import_module

from ..reason import did_you_mean
from .protocol import Benchmark

BENCHMARKS = {
    "atelier-geneval": "atelier_geneval:benchmark",
    "atelier-wise": "atelier_wise:benchmark",
}
"""Name to a module of this package and a function in it that returns a `protocol.Benchmark`."""


def load(name: str) -> Benchmark:
    """The benchmark of that name; ValueError if there is none."""
    if name not in BENCHMARKS:
        raise ValueError(
            f"There is no benchmark {name!r}{did_you_mean(name, BENCHMARKS)}; there are {', '.join(BENCHMARKS)}."
        )
    module, function = BENCHMARKS[name].split(":")
    return getattr(import_module(f"{__package__}.{module}"), function)()
