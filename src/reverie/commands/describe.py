"""`reverie describe IMAGE`: what the model's own eyes see and, for models of the Atelier, what the inspector sees."""

from __future__ import annotations

import argparse
import json
import random
from typing import TYPE_CHECKING

from reverie.display import printable
from reverie.models.registry import entries, resolve
from reverie.painter import load
from reverie.png import open_picture
from reverie.refusals import check_looks, check_place

if TYPE_CHECKING:
    from PIL.Image import Image


def describe(arguments: argparse.Namespace) -> int:
    picture = open_picture(arguments.image).convert("RGB")
    check_place(arguments.device, arguments.dtype)
    check_looks(resolve(arguments.model))
    if arguments.question is not None and not arguments.question.strip():
        raise ValueError("the question is empty; ask something, or leave --question out.")
    painter = load(arguments.model, arguments.device, arguments.dtype)
    seen = {painter.name: printable(painter.describe(picture, arguments.question))}
    if painter.source.thinker == "atelier" and arguments.question is None:
        seen |= inspected(picture)
    if arguments.json:
        print(json.dumps(seen, ensure_ascii=False))
    else:
        for name, text in seen.items():
            print(f"{name}: {' '.join(text.split())}")
    return 0


def inspected(picture: Image) -> dict[str, str]:
    """What the inspector sees, by its name; nothing if its weights are not installed."""
    name = "atelier-inspector"
    folder = entries()[name].folder
    if folder is None or not folder.is_dir():
        return {}
    from reverie.atelier.inspector import Inspector
    from reverie.atelier.language import describe as say

    (sighting,) = Inspector.load(folder).look([picture])
    return {name: say(sighting.to_scene(), random.Random(0)) if sighting.objects else "nothing"}
