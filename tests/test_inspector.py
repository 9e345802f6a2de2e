"""The inspector: decoding, targets, relations, learning, and the shipped weights."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

import reverie.atelier
from reverie.atelier.draw import box, draw
from reverie.atelier.inspector import (
    COLOUR_NAMES,
    FIELDS,
    KIND_NAMES,
    STATE_NAMES,
    Inspector,
    InspectorNet,
    InspectorSizes,
    Seen,
    Sighting,
    decode,
    find_peaks,
    relation_between,
)
from reverie.atelier.scene import BACKGROUNDS, STYLES, TEXTURES, Scene, Thing
from reverie.training.damage import damage, empty_picture, unfinished
from reverie.training.inspector import IGNORE, WORDS, InspectorConfig, InspectorTask, centre_map, targets
from reverie.training.inspector_report import asked_scenes, match, related_scenes, report, tally_scenes

TINY = InspectorSizes(width=32, deep=64, early=1, middle=2, late=1, hidden=96)
SHIPPED = Path(reverie.atelier.__path__[0]) / "weights" / "inspector"
GRID = 24


def test_tiny_network_learns_one_batch():
    torch.manual_seed(0)
    task = InspectorTask(InspectorConfig(batch=4, damaged=0, empty=0), TINY)
    batch, optimizer = task.batch(0), torch.optim.AdamW(task.model.parameters(), 3e-3)
    losses = []
    for _ in range(80):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
    assert row["kinds_right"] == 1
    sightings = Inspector(task.model, fast=False).look(batch["pixels"], threshold=0.2)
    assert [len(s.objects) for s in sightings] == batch["where"][:, 0].bincount(minlength=4).tolist()


def test_batch_depends_on_the_step_alone():
    task = InspectorTask(InspectorConfig(batch=4), TINY)
    first, again, other = task.batch(5), task.batch(5), task.batch(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pixels"], other["pixels"])


def perfect_outputs(scene: Scene) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Heat (1, 2, g, g), logits in the order of the peaks, and picture logits that say exactly the scene."""
    truth = targets([scene], [1.0], GRID)
    heat = centre_map(truth, torch.Size((1, 2, GRID, GRID)))
    order = [tuple(w) for w in truth["where"].tolist()]
    rows = [order.index(tuple(w)) for w in find_peaks(heat, 0.5).where.tolist() if tuple(w) in order]
    logits = {"place": truth["place"][rows]}
    for i, name in enumerate(WORDS):
        words = truth["words"][rows, i].clamp(min=0)
        logits[name] = 20.0 * torch.nn.functional.one_hot(words, FIELDS[name]).float()
    picture = torch.zeros(1, len(BACKGROUNDS) + len(STYLES))
    picture[0, truth["picture"][0, 0]] = picture[0, len(BACKGROUNDS) + truth["picture"][0, 1]] = 5
    return heat, logits, picture


def test_decoding_gives_the_scene_back():
    things = (
        Thing("box", "red", 0.5, 0.53, 0.78, "wood"),
        Thing("candle", "blue", 0.5, 0.55, 0.28, state="lit"),
        Thing("dog", "brown", 0.15, 0.15, 0.22, action="eat"),
    )
    heat, logits, picture = perfect_outputs(Scene(things, "beach", "icon"))
    (sighting,) = decode(find_peaks(heat, 0.5), logits, picture, GRID, 0.3)
    assert (sighting.background, sighting.style) == ("beach", "icon")
    scene = sighting.to_scene()
    assert scene.things[0].kind == "box"  # the container comes first, or it would hide what it holds
    for thing in things:
        (found,) = [t for t in scene.things if t.kind == thing.kind]
        assert (found.colour, found.texture, found.action, found.state) == (
            thing.colour, thing.texture, thing.action, thing.state
        )  # fmt: skip
        assert abs(found.x - thing.x) + abs(found.y - thing.y) + abs(found.scale - thing.scale) < 0.002


def test_usual_state_is_none_and_states_are_the_kinds_own():
    heat, logits, picture = perfect_outputs(Scene((Thing("clock", "white", state="12"),)))
    assert decode(find_peaks(heat, 0.5), logits, picture, GRID, 0.3)[0].objects[0].state is None
    logits["state"][0, STATE_NAMES.index("lit")] = 50  # no clock is lit
    logits["state"][0, STATE_NAMES.index("7")] = 30
    assert decode(find_peaks(heat, 0.5), logits, picture, GRID, 0.3)[0].objects[0].state == "7"


def test_threshold_and_doubles():
    heat = torch.zeros(1, 2, GRID, GRID)
    heat[0, 0, 5, 5], heat[0, 0, 5, 7], heat[0, 0, 15, 15] = 0.9, 0.8, 0.4
    heat[0, 0, 5, 6] = 0.1
    logits = {name: torch.zeros(3, n) for name, n in FIELDS.items()}
    logits["kind"][:, 3] = 30
    logits["place"][1, 0] = -1.2  # the second peak points at the first one's place
    peaks, picture = find_peaks(heat, 0.3), torch.zeros(1, len(BACKGROUNDS) + len(STYLES))
    assert len(peaks.where) == 3
    assert [seen.score for seen in decode(peaks, logits, picture, GRID, 0.3)[0].objects] == [0.9, 0.4]
    assert len(decode(peaks, logits, picture, GRID, 0.5)[0].objects) == 1


def test_detections_are_in_pixels_and_inside():
    seen = Seen("cat", "black", 0.1, 0.5, 0.5, score=0.75)
    boxes, colours = Sighting((seen,), "plain", "plain").to_detections(96)
    assert colours == {"cat": ["black"]}
    x0, y0, x1, y1 = box(seen)
    assert boxes["cat"] == [[max(0.0, x0) * 96, y0 * 96, x1 * 96, y1 * 96, 0.75]]
    assert boxes["cat"][0][0] == 0


def test_relations_of_drawn_arrangements():
    for scene, relation in related_scenes(600):
        assert relation_between(scene.things[1], scene.things[0]) == relation
    same = Thing("cat")
    assert relation_between(same, same) is None


def test_hidden_things_are_not_asked_for():
    scene = Scene((Thing("cup", "red", 0.27, 0.3, 0.34), Thing("clock", "blue", 0.73, 0.7, 0.34, state="3")))
    assert len(targets([scene], [0.5], GRID)["where"]) == 1
    part = targets([scene], [0.8], GRID)
    assert len(part["where"]) == 2
    assert part["words"][1, WORDS.index("kind")] == KIND_NAMES.index("clock")
    assert part["words"][1, WORDS.index("state")] == IGNORE
    assert part["words"][0, WORDS.index("texture")] == TEXTURES.index("plain")


def test_colours_are_asked_where_they_show():
    colour = WORDS.index("colour")
    flags = Scene((Thing("flag", "red", 0.3), Thing("flag", "red", 0.7, state="Japan")))
    assert targets([flags], [1.0], GRID)["words"][:, colour].tolist() == [COLOUR_NAMES.index("red"), IGNORE]
    sketch = Scene((Thing("cup", "red"),), style="sketch")
    assert targets([sketch], [1.0], GRID)["words"][0, colour] == IGNORE


def test_unfinished_rows_are_replaced():
    image = draw(Scene((Thing("cup", "red"),), "beach"))
    cut_image, cut = unfinished(image, random.Random(3))
    row = round(cut * image.height)
    assert cut_image.crop((0, 0, 96, row)).tobytes() == image.crop((0, 0, 96, row)).tobytes()
    assert cut_image.tobytes() != image.tobytes()


def test_damage_keeps_the_size_and_empty_pictures_have_no_things():
    image = draw(Scene((Thing("cup", "red"),)))
    for seed in range(12):
        harmed, cut = damage(image, random.Random(seed))
        assert (harmed.size, harmed.mode) == (image.size, "RGB")
        assert 0 < cut <= 1
        scene, picture = empty_picture(random.Random(seed), 96)
        assert scene.things == ()
        assert picture.size == (96, 96)


def test_match_and_tally():
    things = (Thing("cat", "red", 0.3, 0.5, 0.38), Thing("dog", "blue", 0.7, 0.5, 0.38))
    seen = (Seen("dog", "blue", 0.71, 0.5, 0.38, score=0.9), Seen("pig", "red", 0.3, 0.49, 0.37, score=0.8))
    assert match(things, seen) == [seen[1], seen[0]]
    assert match(things, seen[:1]) == [None, seen[0]]
    tally, wrong = tally_scenes([Scene(things)], [Sighting(seen, "plain", "plain")])
    assert tally["kind"] == [1, 2]
    assert tally["colour"] == [2, 2]
    assert tally["count"] == [1, 1]
    assert tally["whole scene"] == [0, 1]
    assert wrong["kind", "cat", "pig"] == 1


def test_save_and_load(tmp_path):
    torch.manual_seed(0)
    inspector = Inspector(InspectorNet(TINY))
    inspector.save(tmp_path)
    images = [draw(Scene((Thing("cup", "red"),))), Image.new("RGB", (200, 120))]
    loaded = Inspector.load(tmp_path)
    assert loaded.net.sizes == TINY
    assert len(loaded.look(images)) == 2
    tensor = torch.zeros(3, 3, 48, 48, dtype=torch.uint8)
    assert len(loaded.look(tensor, batch=2)) == 3
    with pytest.raises(ValueError, match="uint8"):
        loaded.look(tensor.float())
    with pytest.raises(ValueError, match="There is no"):
        Inspector.load(tmp_path / "nowhere")


def test_report_writes_both_files(tmp_path):
    torch.manual_seed(0)
    Inspector(InspectorNet(TINY)).save(tmp_path)
    result = report(tmp_path, n=6, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["accuracy"].keys() == result["accuracy"].keys()
    assert "| asked |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.skipif(not SHIPPED.exists(), reason="the package holds no inspector weights")
def test_shipped_inspector_sees_held_out_scenes():
    scenes = asked_scenes(60)
    tally, _ = tally_scenes(scenes, Inspector.load(SHIPPED).look([draw(scene) for scene in scenes]))
    right, asked = tally["kind"]
    assert right / asked >= 0.97
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 8 * 2**20
    blank = [Image.new("RGB", (96, 96), (grey,) * 3) for grey in (0, 128, 255)]
    assert not any(sighting.objects for sighting in Inspector.load(SHIPPED).look(blank))
