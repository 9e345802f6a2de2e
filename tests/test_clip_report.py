"""What ThinkDiff-CLIP keeps of each input: the questions, what counts as found, and the report from folder to file."""

import json

import pytest
import torch

pytest.importorskip("diffusers", reason="needs reverie[diffusion]")

import diffusion_toy as toys
from transformers import CLIPVisionConfig, CLIPVisionModel

from reverie.atelier.draw import draw
from reverie.atelier.inspector import Inspector, InspectorNet, Seen, Sighting
from reverie.atelier.language_parse import parse
from reverie.atelier.scene import Scene, Thing
from reverie.models.aligner import Aligner, AlignerConfig, save_aligner
from reverie.training.clip_report import asked, main


def test_each_way_asks_for_what_its_inputs_show():
    ways = asked(20)
    assert {name: len(some) for name, some in ways.items()} == dict.fromkeys(ways, 20)
    both = ways["two pictures and words"][0]
    wanted = parse(both.words)
    assert len(both.pictures) == len(wanted.include) == 2
    assert both.text
    assert not ways["two pictures"][0].text
    kinds = [(clause.kind, clause.colour) for clause in wanted.include]
    things = [Seen(kind, colour, x, 0.5, 0.3) for (kind, colour), x in zip(kinds, (0.25, 0.75), strict=True)]
    picture = draw(Scene((Thing("cat"),)))
    found = both.check(picture, Sighting(tuple(things), wanted.background, "plain"))
    assert all(found.values())
    assert set(found) == {"object 1", "colour 1", "object 2", "colour 2", "place", "all"}
    half = both.check(picture, Sighting((things[0],), wanted.background, "plain"))
    assert half == found | {"object 2": False, "colour 2": False, "all": False}
    elsewhere = both.check(picture, Sighting(tuple(things), "plain", "plain"))
    assert elsewhere == found | {"place": False, "all": False}


def test_the_report_goes_from_folders_to_a_file(tmp_path, capsys):
    toys.flux().save_pretrained(tmp_path / "flux")
    index = json.loads((tmp_path / "flux/model_index.json").read_text())
    index["_reverie"] = {"steps": 1, "guidance": 1.0, "height": 32, "width": 32, "limit": 12}
    (tmp_path / "flux/model_index.json").write_text(json.dumps(index))
    torch.manual_seed(0)
    Inspector(InspectorNet()).save(tmp_path / "inspector")
    small = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32, patch_size=8
    )
    CLIPVisionModel(small).save_pretrained(tmp_path / "tower")
    width = json.loads((tmp_path / "flux/transformer/config.json").read_text())["joint_attention_dim"]
    save_aligner(Aligner(AlignerConfig(8, width)).initialise(torch.full((width,), 0.1)), tmp_path / "a.safetensors")
    main(
        ["--tower", str(tmp_path / "tower"), "--aligner", f"mine={tmp_path / 'a.safetensors'}",
         "--pipeline", str(tmp_path / "flux"), "--inspector", str(tmp_path / "inspector"), "-n", "2",
         "--out", str(tmp_path / "out")]
    )  # fmt: skip
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert set(report["two pictures"]) == {"words", "mine"}
    assert report["two pictures"]["mine"]["n"] == 2
    assert 0 <= report["one picture"]["mine"]["all"]["share"] <= 1
    assert "two pictures and words mine" in capsys.readouterr().out
