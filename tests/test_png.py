"""Pictures that carry their recipe, written whole or not at all."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reverie.png import open_picture, picture_hash, read_recipe, resized, save_png

RECIPE = {
    "prompt": "drei blaue Kühe 🐄 at night",
    "seed": 2**62 + 1,
    "plan": {"guidance": 4.5, "think": "before"},
    "note": None,
}


def picture(side: int = 12) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_the_recipe_and_the_pixels_come_back(tmp_path):
    path = save_png(picture(), tmp_path / "a.png", RECIPE)
    assert read_recipe(path) == RECIPE
    assert picture_hash(open_picture(path)) == picture_hash(picture())
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_long_recipe_is_kept(tmp_path):
    recipe = RECIPE | {"thought": "a wool animal. " * 5000}
    assert read_recipe(save_png(picture(), tmp_path / "a.png", recipe)) == recipe


def test_display_size_scales_the_longer_side(tmp_path):
    wide = picture().resize((20, 10))
    assert open_picture(save_png(wide, tmp_path / "a.png", RECIPE, size=100)).size == (100, 50)
    assert resized(wide, 20) is wide
    with pytest.raises(ValueError, match="size=0"):
        resized(wide, 0)


def test_files_have_the_usual_permissions(tmp_path):
    path = save_png(picture(), tmp_path / "a.png", RECIPE)
    (tmp_path / "b").write_text("")
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = save_png(picture(), tmp_path / "a.png", RECIPE)
    with pytest.raises(ValueError, match="size=-5"):
        save_png(picture(), path, RECIPE, size=-5)
    with pytest.raises(TypeError):
        save_png(picture(), path, {"plan": object()})
    assert os.listdir(tmp_path) == ["a.png"]
    assert read_recipe(path) == RECIPE


def test_the_hash_knows_shape_and_pixels():
    flat = Image.new("RGB", (6, 4))
    assert picture_hash(flat) != picture_hash(Image.new("RGB", (4, 6)))
    assert picture_hash(flat) == picture_hash(Image.new("RGBA", (6, 4), (0, 0, 0, 255)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no file"),
        (lambda path: path.write_text("no picture"), "cannot be read"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n broken"), "cannot be read"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: picture().save(path), "carries no recipe"),
        (lambda path: picture().save(path, pnginfo=_chunk("{half")), "damaged"),
        (lambda path: picture().save(path, pnginfo=_chunk("[1]")), "damaged"),
    ],
)
def test_what_carries_no_recipe_is_refused(tmp_path, make, message):
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        read_recipe(tmp_path / "a.png")


def test_a_truncated_file_is_refused(tmp_path):
    path = save_png(picture(64), tmp_path / "a.png", RECIPE)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match="cannot be read"):
        read_recipe(path)


def test_the_chunk_is_plain_text_under_our_name(tmp_path):
    with Image.open(save_png(picture(), tmp_path / "a.png", RECIPE)) as image:
        assert json.loads(image.info["reverie"]) == RECIPE


def _chunk(text: str) -> PngInfo:
    info = PngInfo()
    info.add_itxt("reverie", text)
    return info
