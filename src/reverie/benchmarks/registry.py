"""The table of benchmarks: a name, and the function that makes it. One that is new is a line here and a module."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..reason import did_you_mean
from .compbench import CATEGORIES, PLUS_PLUS
from .protocol import Benchmark

ATELIER = {
    "atelier-geneval": "atelier_geneval:benchmark",
    "atelier-wise": "atelier_wise:benchmark",
    "atelier-compbench": "atelier_compbench:benchmark",
    "atelier-cobsat": "atelier_cobsat:benchmark",
    "atelier-rise": "atelier_rise:benchmark",
}
"""Name to a module of this package and a function in it that returns a `protocol.Benchmark`."""

PUBLIC: dict[str, tuple[Any, ...]] = {
    "geneval": ("detected:of_geneval",),
    "geneval-long": ("detected:of_geneval", True),
    "geneval2": ("asked:of_geneval2",),
    "geneval++": ("asked:of_genevalpp",),
    "t2i-compbench": ("detected:of_compbench", "t2i-compbench", [c for c in CATEGORIES if c not in PLUS_PLUS]),
    "t2i-compbench++": ("detected:of_compbench", "t2i-compbench++", CATEGORIES),
    **{f"t2i-compbench-{c}": ("detected:of_compbench", f"t2i-compbench-{c}", [c]) for c in CATEGORIES},
    "wise-legacy": ("asked:of_wise", "legacy"),
    "wise-legacy-rewrite": ("asked:of_wise", "legacy", True),
    "wise-verified": ("asked:of_wise", "verified"),
    "t2i-reasonbench": ("asked:of_reasonbench",),
    **{f"cobsat-{shots}": ("asked:of_cobsat", shots) for shots in range(1, 9)},
    "risebench-full": ("asked:of_risebench", "full"),
    "risebench-small": ("asked:of_risebench", "small"),
    "dpg-bench": ("asked:of_dpg",),
}
"""Name to a function as above that takes `Options` first, and what else it is given."""

ALIASES = {
    "wise": "wise-legacy",
    "genevalpp": "geneval++",
    "cobsat": "cobsat-4",
    "risebench": "risebench-full",
    "dpg": "dpg-bench",
}
"""Short names: the protocol of the paper, and of several sizes the usual one."""


@dataclass(frozen=True)
class Options:
    """What a public benchmark is made from."""

    data: Path | None = None
    """The folder with its files; None: from the hub, where they are there."""
    images_per_prompt: int | None = None
    """Layouts that number images through depend on it. None: the benchmark's own."""
    official: bool = False
    """Whether the bugs of its own code are repeated."""


def names() -> list[str]:
    return [*ATELIER, *PUBLIC]


def find(name: str) -> str:
    """The full name of a benchmark; ValueError if there is none."""
    found = ALIASES.get(name, name)
    if found not in names():
        known = [*ATELIER, *PUBLIC, *ALIASES]
        raise ValueError(f"There is no benchmark {name!r}{did_you_mean(name, known)}; there are {', '.join(names())}.")
    return found


def load(name: str, options: Options = Options()) -> Benchmark:
    """The benchmark of that name. ValueError if there is none, or if its files are not there or damaged."""
    name = find(name)
    if name in ATELIER:
        if options.official:
            raise ValueError(f"{name} has no official code whose bugs could be repeated: leave official out.")
        if options.data is not None:
            raise ValueError(f"{name} draws its own prompts and needs no data: leave data out.")
        return _function(ATELIER[name])()
    target, *more = PUBLIC[name]
    return _function(target)(options, *more)


def _function(target: str) -> Any:
    module, function = target.split(":")
    return getattr(import_module(f"{__package__}.{module}"), function)
