"""What changes the look of a thing or of a whole picture: textures, actions and styles."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from .pen import RGB, Ink, Pen

# --- textures: two masks in the frame of the thing, where its main colour turns dark and where it turns light ---


@lru_cache(maxsize=256)
def texture(name: str, side: int) -> tuple[Image.Image, Image.Image]:
    """(dark, light) masks, "L", side x side pixels, of the pattern `name`."""
    masks = []
    for draw_pattern in _TEXTURES[name]:
        image = Image.new("L", (side, side), 0)
        draw_pattern(ImageDraw.Draw(image), side)
        masks.append(image)
    return masks[0], masks[1]


def _rows(n: int, share: float, phase: float = 0.0) -> Callable[[ImageDraw.ImageDraw, int], None]:
    def paint(draw: ImageDraw.ImageDraw, s: int) -> None:
        for i in range(n):
            y = (i + phase) * s / n
            draw.rectangle((0, y, s, y + s / n * share), fill=255)

    return paint


def _diagonals(n: int, share: float, phase: float = 0.0) -> Callable[[ImageDraw.ImageDraw, int], None]:
    def paint(draw: ImageDraw.ImageDraw, s: int) -> None:
        for i in range(-n, n):
            x = (i + phase) * s / n
            w = s / n * share
            draw.polygon([(x, s), (x + w, s), (x + w + s, 0), (x + s, 0)], fill=255)

    return paint


def _dots(n: int, r: float, stagger: bool) -> Callable[[ImageDraw.ImageDraw, int], None]:
    def paint(draw: ImageDraw.ImageDraw, s: int) -> None:
        step = s / n
        for i in range(n + 1):
            for j in range(n + 1):
                x, y = (j + (0.5 if stagger and i % 2 else 0.0)) * step, (i + 0.5) * step
                draw.ellipse((x - r * step, y - r * step, x + r * step, y + r * step), fill=255)

    return paint


def _weave(odd: int) -> Callable[[ImageDraw.ImageDraw, int], None]:
    def paint(draw: ImageDraw.ImageDraw, s: int) -> None:
        step = s / 8
        for i in range(8):
            for j in range(8):
                if (i + j) % 2 == odd:
                    draw.rectangle((j * step, i * step, (j + 1) * step, (i + 0.72) * step), fill=255)

    return paint


def _quilt(draw: ImageDraw.ImageDraw, s: int) -> None:
    width = max(1, s // 28)
    for i in range(-4, 9):
        x = i * s / 4
        draw.line([(x, 0), (x + s, s)], fill=255, width=width)
        draw.line([(x, 0), (x - s, s)], fill=255, width=width)


def _shine(x0: float, x1: float) -> Callable[[ImageDraw.ImageDraw, int], None]:
    def paint(draw: ImageDraw.ImageDraw, s: int) -> None:
        draw.polygon([(x0 * s, 0), (x1 * s, 0), ((x1 - 0.35) * s, s), ((x0 - 0.35) * s, s)], fill=255)

    return paint


def _grain(draw: ImageDraw.ImageDraw, s: int) -> None:
    width = max(1, s // 22)
    for i in range(7):
        x = (i + 0.5) * s / 7
        bend = s / 16 * (1 if i % 2 else -1)
        draw.line([(x, 0), (x + bend, s * 0.35), (x - bend, s * 0.7), (x, s)], fill=255, width=width, joint="curve")
    draw.ellipse((s * 0.56, s * 0.5, s * 0.68, s * 0.66), fill=255)


def _gloss(draw: ImageDraw.ImageDraw, s: int) -> None:
    draw.ellipse((s * 0.16, s * 0.12, s * 0.52, s * 0.4), fill=255)
    draw.ellipse((s * 0.64, s * 0.5, s * 0.76, s * 0.6), fill=255)


_TEXTURES: dict[str, tuple[Callable[[ImageDraw.ImageDraw, int], None], Callable[[ImageDraw.ImageDraw, int], None]]] = {
    "wood": (_grain, _rows(1, 0.0)),
    "wicker": (_weave(0), _weave(1)),
    "sequined": (_dots(7, 0.16, False), _dots(7, 0.40, True)),
    "metal": (_shine(0.95, 1.15), _shine(0.45, 0.80)),
    "leather": (_quilt, _dots(4, 0.12, False)),
    "lace": (_dots(6, 0.14, False), _dots(6, 0.42, False)),
    "denim": (_diagonals(9, 0.35), _diagonals(9, 0.25, 0.5)),
    "ceramic": (_rows(5, 0.22, 0.4), _gloss),
}


def put_texture(image: Image.Image, mask: Image.Image, ink: Ink, name: str, box: tuple[int, int, int, int]) -> None:
    """Lay a texture over the masked pixels of `image` inside `box` (left, top, right, bottom; pixels)."""
    left, top, right, bottom = box
    dark, light = texture(name, max(right - left, bottom - top))
    area = mask.crop(box)
    for pattern, colour in ((light, ink.light), (dark, ink.dark)):
        image.paste(colour, box, ImageChops.multiply(area, pattern.crop((0, 0, right - left, bottom - top))))


# --- actions: props around a thing, in its own frame; `behind` is drawn before the thing, `front` after it ---

_WATER: RGB = (70, 160, 226)
_FOAM: RGB = (224, 242, 252)
_INKY: RGB = (44, 44, 56)


def act_behind(pen: Pen, action: str) -> None:
    """What an action shows behind the one who acts."""
    if action == "fly":
        for side in (-1, 1):
            wing = [(0.3, 0.1), (0.9, -0.75), (1.3, -0.8), (1.25, -0.4), (1.15, -0.1), (0.95, 0.15), (0.6, 0.35)]
            pen.blob([(side * x * 1.04, y * 1.06) for x, y in wing], (120, 126, 138))
            pen.blob([(side * x, y) for x, y in wing], (250, 250, 250))
            for y in (-0.5, -0.2, 0.05):
                pen.line([(side * 0.75, y + 0.1), (side * 1.12, y)], 0.05, (170, 178, 190))
    elif action == "run":
        for y, x in ((-0.35, -1.3), (0.05, -1.42), (0.45, -1.3)):
            pen.line([(x, y), (-0.85, y)], 0.08, _INKY)
        for x, r in ((-1.15, 0.16), (-0.9, 0.2)):
            pen.circle(x, 0.92, r, (196, 186, 172))


def act_front(pen: Pen, action: str) -> None:
    """What an action shows in front of the one who acts."""
    _FRONT.get(action, lambda pen: None)(pen)


def _swim(pen: Pen) -> None:
    crest = [
        (-1.3, 0.5),
        (-0.98, 0.36),
        (-0.65, 0.5),
        (-0.33, 0.36),
        (0, 0.5),
        (0.33, 0.36),
        (0.65, 0.5),
        (0.98, 0.36),
        (1.3, 0.5),
    ]
    pen.polygon([*[(x, y - 0.08) for x, y in crest], (1.3, 1.12), (-1.3, 1.12)], _FOAM)
    pen.polygon([*crest, (1.3, 1.12), (-1.3, 1.12)], _WATER)
    pen.line([(-0.8, 0.82), (-0.3, 0.82)], 0.06, _FOAM)
    pen.line([(0.25, 0.9), (0.75, 0.9)], 0.06, _FOAM)


def _sleep(pen: Pen) -> None:
    for x, y, s in ((0.72, -0.62, 0.22), (1.12, -1.08, 0.30)):
        zed = [(x - s, y - s), (x + s, y - s), (x - s, y + s), (x + s, y + s)]
        pen.line(zed, 0.2, (255, 255, 255))
        pen.line(zed, 0.11, (60, 80, 170))


def _sing(pen: Pen) -> None:
    for x, y in ((-1.12, -0.55), (1.0, -0.75)):
        for width, ink, grow in ((0.2, (255, 255, 255), 0.05), (0.09, _INKY, 0.0)):
            pen.line([(x + 0.14, y + 0.3), (x + 0.14, y - 0.3), (x + 0.36, y - 0.16)], width, ink)
            pen.ellipse(x, y + 0.32, 0.17 + grow, 0.13 + grow, ink)


def _read(pen: Pen) -> None:
    pen.polygon([(-0.85, 0.34), (0, 0.5), (0.85, 0.34), (0.85, 1.02), (0, 1.16), (-0.85, 1.02)], (128, 40, 44))
    pen.polygon([(-0.74, 0.42), (-0.04, 0.56), (-0.04, 1.04), (-0.74, 0.9)], (252, 248, 236))
    pen.polygon([(0.74, 0.42), (0.04, 0.56), (0.04, 1.04), (0.74, 0.9)], (252, 248, 236))
    for y in (0.58, 0.74):
        pen.line([(-0.6, y), (-0.16, y + 0.08)], 0.05, (150, 146, 140))
        pen.line([(0.6, y), (0.16, y + 0.08)], 0.05, (150, 146, 140))


def _eat(pen: Pen) -> None:
    for x, c in ((-0.26, (232, 150, 60)), (0.26, (232, 150, 60)), (0.0, (240, 190, 80))):
        pen.circle(x, 0.58, 0.22, c)
    pen.pie(0, 0.6, 0.74, 0.56, 0, 180, (90, 96, 112))
    pen.pie(0, 0.6, 0.66, 0.46, 0, 180, (226, 84, 78))


def _cry(pen: Pen) -> None:
    for x in (-0.46, 0.46):
        pen.polygon([(x, -0.12), (x + 0.15, 0.36), (x - 0.15, 0.36)], _WATER)
        pen.circle(x, 0.4, 0.17, _WATER)
        pen.circle(x - 0.04, 0.4, 0.06, _FOAM)
    pen.ellipse(0, 1.0, 0.95, 0.16, _WATER)


_FRONT: dict[str, Callable[[Pen], None]] = {
    "swim": _swim, "sleep": _sleep, "sing": _sing, "read": _read, "eat": _eat, "cry": _cry,
}  # fmt: skip


# --- styles: what happens to the finished picture ---


def put_style(image: Image.Image, style: str) -> Image.Image:
    """The picture in another style; its size stays."""
    return _STYLES[style](image)


def _watercolor(image: Image.Image) -> Image.Image:
    side = image.width
    soft = image.filter(ImageFilter.ModeFilter(max(3, side // 32 | 1))).filter(ImageFilter.GaussianBlur(side / 110))
    paper = Image.new("RGB", image.size, (252, 248, 238))
    wet = Image.blend(ImageEnhance.Color(soft).enhance(1.35), paper, 0.15)
    edges = ImageOps.invert(soft.convert("L").filter(ImageFilter.FIND_EDGES)).point(lambda v: 255 - (255 - v) // 2)
    return ImageChops.multiply(wet, Image.merge("RGB", (edges,) * 3))


def _sketch(image: Image.Image) -> Image.Image:
    grey = image.convert("L")
    blur = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(image.width / 48))
    dodge = ImageChops.add(grey, blur, scale=1.0, offset=0)  # colour-dodge by addition: paper white where flat
    lines = dodge.point(lambda v: max(0, 255 - (255 - v) * 4))
    return ImageOps.colorize(lines, (50, 50, 58), (250, 248, 242))


def _pixel(image: Image.Image) -> Image.Image:
    cells = image.resize((32, 32), Image.Resampling.BOX)
    return ImageOps.posterize(cells, 4).resize(image.size, Image.Resampling.NEAREST)


def _icon(image: Image.Image) -> Image.Image:
    side = image.width
    hole = Image.new("L", image.size, 0)
    ImageDraw.Draw(hole).rounded_rectangle((side * 0.06, side * 0.06, side * 0.94, side * 0.94), side * 0.2, fill=255)
    vivid = ImageEnhance.Color(image).enhance(1.2)
    return Image.composite(vivid, Image.new("RGB", image.size, (70, 80, 110)), hole)


def _futuristic(image: Image.Image) -> Image.Image:
    edges = image.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(3))
    glow = ImageOps.colorize(edges.point(lambda v: min(255, v * 3)), (0, 0, 0), (60, 240, 255))
    dark = ImageChops.multiply(image, Image.new("RGB", image.size, (110, 90, 190)))
    return ImageChops.add(dark, glow)


def _old(image: Image.Image) -> Image.Image:
    sepia = ImageOps.colorize(ImageOps.autocontrast(image.convert("L"), cutoff=1), (48, 32, 20), (244, 226, 190))
    faded = Image.blend(image, sepia, 0.75)
    side = image.width
    draw = ImageDraw.Draw(faded)
    for x in (0.22, 0.71):
        draw.line([(x * side, 0), (x * side, side)], fill=(252, 244, 224), width=max(1, side // 96))
    draw.rectangle((0, 0, side - 1, side - 1), outline=(252, 246, 230), width=max(1, side // 24))
    return faded


_STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda image: image,
    "watercolor": _watercolor,
    "sketch": _sketch,
    "pixel": _pixel,
    "icon": _icon,
    "futuristic": _futuristic,
    "old": _old,
}
