"""Vectors that a pipeline paints and the inspector judges: rows keep their vectors, the main object counts."""

import pytest
import torch

pytest.importorskip("diffusers", reason="needs reverie[diffusion]")

from dataclasses import fields

import diffusion_toy as toys
import numpy as np

from reverie.atelier.draw import draw
from reverie.atelier.episodes import benchmark
from reverie.atelier.inspector import Inspector, InspectorNet, Seen, Sighting
from reverie.atelier.scene import Scene, Thing
from reverie.training import drawn_report
from reverie.training.drawn_report import Drawing


def shown_right(scene, one):
    """Of a drawn scene whose things are seen as they are."""
    objects = tuple(
        Seen(**{field.name: getattr(thing, field.name) for field in fields(thing)}) for thing in scene.things
    )
    return drawn_report.shown_right(one, draw(scene), Sighting(objects, scene.background, scene.style))


def test_the_main_object_is_judged():
    one = next(e for e in benchmark(1, 2) if (e.theta, e.query) == ("car", "purple"))
    car, hat = Thing("car", "purple", scale=0.5), Thing("hat", "red", scale=0.3)
    assert shown_right(Scene((car,)), one) == (True, True)
    assert shown_right(Scene((hat, car)), one) == (True, True)
    assert shown_right(Scene((Thing("car", "red", scale=0.5),)), one) == (True, False)
    assert shown_right(Scene((Thing("hat", "purple", scale=0.6), car)), one) == (False, True)
    assert shown_right(Scene(), one) == (False, False)
    one = next(e for e in benchmark(4, 2) if e.theta == "beach")
    kind = one.answer.things[0].kind
    assert shown_right(Scene((Thing(kind),), "beach"), one) == (True, True)
    assert shown_right(Scene((Thing(kind),), "cave"), one) == (True, False)


def test_every_row_is_painted_from_its_own_vectors_without_padding(tmp_path):
    toys.flux().save_pretrained(tmp_path / "flux")
    torch.manual_seed(0)
    Inspector(InspectorNet()).save(tmp_path / "inspector")
    drawing = Drawing(tmp_path / "flux", tmp_path / "inspector", together=2)
    drawing.painter.steps, drawing.painter.height, drawing.painter.width = 2, 32, 32
    width = drawing.painter.pipeline.transformer.config.joint_attention_dim
    vectors = torch.randn(3, 4, width, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    pictures = [np.asarray(picture) for picture in drawing.paint(vectors, mask)]
    other = vectors.clone()
    other[1, 2:] = 7  # behind the end of its row
    other[2] += 1
    again = [np.asarray(picture) for picture in drawing.paint(other, mask)]
    assert np.array_equal(pictures[0], again[0])
    assert np.array_equal(pictures[1], again[1])
    assert not np.array_equal(pictures[2], again[2])
    assert len(drawing(vectors, mask, benchmark(1, 2, 3))) == 3
    with pytest.raises(ValueError, match="no diffusion pipeline"):
        Drawing(tmp_path, tmp_path / "inspector")


def test_what_the_autoencoder_leaves_is_what_it_decodes(tmp_path):
    toys.flux().save_pretrained(tmp_path / "flux")
    torch.manual_seed(0)
    Inspector(InspectorNet()).save(tmp_path / "inspector")
    drawing = Drawing(tmp_path / "flux", tmp_path / "inspector")
    picture = draw(Scene((Thing("cat"),)), 32)
    vae = drawing.painter.pipeline.vae
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0]
    left = np.asarray(drawing.left([picture])[0], int)
    shown = ((expected.clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(left - shown).max() <= 1


def test_several_processes_judge_as_one_does(tmp_path):
    toys.flux().save_pretrained(tmp_path / "flux")
    torch.manual_seed(0)
    Inspector(InspectorNet()).save(tmp_path / "inspector")
    one, two = (Drawing(tmp_path / "flux", tmp_path / "inspector", workers=workers) for workers in (0, 2))
    episodes = [episode for task in (1, 9) for episode in drawn_report.training(task, 2)]
    pictures = [draw(episode.answer) for episode in episodes]
    try:
        assert one.judge(pictures, episodes) == two.judge(pictures, episodes)
    finally:
        two.lookers.shutdown()
    assert [e.answer for e in drawn_report.training(9, 2)] == [e.answer for e in episodes[2:]]
