"""Makes the README's picture with the shipped model: riddles, painted as they stand and after thinking.

python docs/make_hero.py [--model atelier-janus] [--seed 1] [--out docs/images/hero.png]
"""

from __future__ import annotations

import argparse
import textwrap

from PIL import Image, ImageDraw, ImageFont

import reverie

PROMPTS = (
    "the animal that gives us wool, beside what Newton saw fall",
    "what ice becomes in the sun",
    "three blue cats",
    "what a caterpillar becomes",
)
CELL, SHOWN, MARGIN, TEXT = 250, 216, 17, 92


def write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, fill: str, width: int) -> None:
    font = ImageFont.load_default(size)
    for number, line in enumerate(textwrap.wrap(text, width)[:4]):
        draw.text((at[0], at[1] + number * (size + 4)), line, font=font, fill=fill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="atelier-janus")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="docs/images/hero.png")
    given = parser.parse_args()
    painter = reverie.load(given.model)
    rows = (("as it stands", "never"), ("after thinking", "before"))
    page = Image.new("RGB", (CELL * len(PROMPTS) + MARGIN, TEXT + (SHOWN + 78) * 2 + MARGIN), "#fbfaf7")
    draw = ImageDraw.Draw(page)
    for column, prompt in enumerate(PROMPTS):
        left = column * CELL + MARGIN
        write(draw, (left, 18), f"“{prompt}”", 16, "#20242c", 26)
        for row, (label, think) in enumerate(rows):
            top = TEXT + row * (SHOWN + 78)
            result = painter.generate(prompt, think=think, seed=given.seed)
            page.paste(result.image.resize((SHOWN, SHOWN), Image.Resampling.LANCZOS), (left, top))
            said = f"thinks: {result.rewritten}" if result.rewritten else label
            write(draw, (left, top + SHOWN + 8), said, 14, "#5a6270", 32)
    page.save(given.out)


if __name__ == "__main__":
    main()
