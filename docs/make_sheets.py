"""Draws the contact sheets of docs/atelier.md: every kind of thing, and scenes made from the prompts under them.

    python docs/make_sheets.py [FOLDER]

Needs no model: everything here is drawn by the Atelier itself, the same on every machine.
"""

from __future__ import annotations

import random
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reverie.atelier.draw import draw
from reverie.atelier.kinds import KINDS
from reverie.atelier.language import parse
from reverie.atelier.sample import compose
from reverie.atelier.scene import Scene, Thing

TILE = 112
LABEL = 32
GAP = 6
INK, PAPER = (40, 40, 48), (255, 255, 255)

PROMPTS = (
    "a red fish", "three blue cats at night", "a sheep left of an apple", "five hearts",
    "a green car and a purple house", "a yellow bird above a tree", "a cat inside a box", "a mushroom on a book",
    "a clock at 4 o'clock", "a ripe banana", "a rotten banana", "a tree in winter", "a tree in autumn", "a lit candle",
    "a crescent moon", "a melted ice cube",
    "a wooden chair", "a wicker bag", "a sequined hat", "a metal car", "a leather book", "a lace umbrella",
    "a denim box", "a ceramic cup",
    "a swimming dog", "a sleeping lion", "a singing pig", "a running zebra", "a reading monkey", "a flying cow",
    "an eating rabbit", "a crying tiger",
    "a ball on the beach", "a rocket in space", "a penguin on a glacier", "a fish on the seafloor",
    "a cactus in the desert", "two bees in a meadow", "a star in a cave", "a house near a volcano",
    "a dog in watercolor", "a boat as a sketch", "a castle as pixel art", "a rocket as an icon",
    "a clock in a futuristic style", "a train as an old photo", "a dice showing 6", "a flag of Japan",
)  # fmt: skip


def sheet(pictures: Sequence[tuple[str, Scene]], columns: int) -> Image.Image:
    """The scenes row by row, each with its words below."""
    rows = -(-len(pictures) // columns)
    wide, high, font = TILE + GAP, TILE + LABEL, ImageFont.load_default(11)
    page = Image.new("RGB", (columns * wide + GAP, rows * high + GAP), PAPER)
    pen = ImageDraw.Draw(page)
    for number, (words, scene) in enumerate(pictures):
        x, y = GAP + number % columns * wide, GAP + number // columns * high
        page.paste(draw(scene, TILE), (x, y))
        for line, text in enumerate(textwrap.wrap(words, 20)[:2]):
            pen.text((x + TILE / 2, y + TILE + 2 + 12 * line), text, INK, font, anchor="ma")
    return page


def kinds() -> Image.Image:
    """Every kind in its natural colour and usual look."""
    return sheet([(name, Scene((Thing(name, scale=0.86, y=0.5),))) for name in KINDS], 10)


def scenes() -> Image.Image:
    """The Atelier's own pictures of `PROMPTS`."""
    made = [(prompt, compose(parse(prompt), random.Random(prompt))) for prompt in PROMPTS]
    return sheet(made, 8)


def main(folder: str = "docs/images") -> None:
    for name, page in {"kinds": kinds(), "scenes": scenes()}.items():
        path = Path(folder) / f"{name}.png"
        page.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
