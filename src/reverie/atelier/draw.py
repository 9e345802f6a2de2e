"""Drawing a scene: background, things one after another, then the style. Deterministic; about 1 ms at 96 pixels."""

from __future__ import annotations

from PIL import Image

from .backgrounds import background
from .effects import act_behind, act_front, put_style, put_texture
from .kinds import KINDS
from .pen import Ink, Pen
from .scene import COLOURS, Scene, Thing

SIDE = 96


def draw(scene: Scene, side: int = SIDE) -> Image.Image:
    """The scene as an RGB picture of `side` x `side` pixels, anti-aliased by supersampling."""
    fine = 3 if side <= 128 else 2
    image = background(scene.background, side * fine).copy()
    for thing in scene.things:
        _put(image, thing)
    return put_style(image.reduce(fine), scene.style)


def box(thing: Thing) -> tuple[float, float, float, float]:
    """Bounding box (x0, y0, x1, y1) of a thing's body in fractions of the picture, props of actions left out."""
    kind = KINDS[thing.kind]
    w, h = kind.width * thing.scale / 2, kind.height * thing.scale / 2
    return thing.x - w, thing.y - h, thing.x + w, thing.y + h


def colour_of(thing: Thing) -> str:
    """The colour a thing is drawn in: its own, or its kind's natural one."""
    return thing.colour or KINDS[thing.kind].natural


def _put(image: Image.Image, thing: Thing) -> None:
    kind = KINDS[thing.kind]
    ink = Ink.of(COLOURS[colour_of(thing)])
    whole = image.width
    mask = Image.new("L", image.size, 0) if thing.texture != "plain" else None
    pen = Pen(image, thing.x * whole, thing.y * whole, thing.scale * whole, mask)
    pen.main = ink.main
    if thing.action:
        act_behind(pen, thing.action)
    kind.paint(pen, ink, thing.state)
    if mask is not None:
        half = thing.scale * whole / 2
        frame = (int(pen.cx - half), int(pen.cy - half), int(pen.cx + half) + 1, int(pen.cy + half) + 1)
        put_texture(image, mask, ink, thing.texture, frame)
    if thing.action:
        act_front(pen, thing.action)
