"""`reverie train RECIPE key=value ...`: runs a recipe, some of its values replaced, and prints where the result is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def train(recipe: str, overrides: Sequence[str], fit: str | None = None) -> int:
    # Asked before torch comes in, which takes seconds.
    if not Path(recipe).is_file():
        raise ValueError(f"there is no recipe {recipe}; give a YAML file, such as recipes/atelier/janus.yaml.")
    wrong = next((text for text in overrides if not text.partition("=")[0] or "=" not in text), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} must have the form key=value.")
    if fit is not None:
        from reverie.commands.plan import fitted

        overrides = fitted(recipe, list(overrides), fit)
    from reverie.training.recipes import run

    print(run(recipe, overrides))
    return 0
