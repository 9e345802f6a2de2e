"""Damaged images: which codes change, what is said of the copies, the folder that judges learn from, the command."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_verifier_data import ASKED, MODEL, WORDS, Toy

from reverie.cli import main
from reverie.data.build_verifier import Build, build
from reverie.data.damaged import CELLS, PATCHES, damaged
from reverie.data.looks import Looks
from reverie.data.paths import PathBuild, Paths, codes_of
from reverie.data.verifier import VerifierData
from reverie.judges import View
from reverie.judges.load import judge_by_name
from reverie.judges.vlm import Wording
from reverie.models.showo_checkpoint import save_showo


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_copies_differ_from_their_image_by_patches_of_others(seed, count, copies):
    rng = random.Random(seed)
    codes = torch.arange(count)[:, None] * 100 + torch.randint(
        0, 5, (count, 16), generator=torch.Generator().manual_seed(seed)
    )
    prompts = [rng.choice("ab") for _ in range(count)]
    found = damaged(codes, prompts, copies, rng).view(count, copies + 1, 16)
    assert (found[:, 0] == codes).all()
    for row in range(count):
        for copy in found[row, 1:]:
            other = copy[copy // 100 != row]
            assert len(other) <= PATCHES[1] * CELLS[1]
            assert len(other) > 0 or count == 1
            assert all(code in codes[code // 100] for code in other)


def test_a_folder_of_damaged_images_is_one_of_looks(tmp_path):
    judge = judge_by_name("atelier-inspector", "cpu")
    config = VerifierData(copies=2)
    wanted = Build("damaged", PathBuild(per_prompt=3, batch=5), Wording.of("atelier"), config)
    stats = build(wanted, Toy(), judge, ASKED, tmp_path / "out", tmp_path / "paths")
    assert stats is not None
    assert stats["images"] == 36
    found, paths = Looks(tmp_path / "out").rows, Paths(tmp_path / "paths")
    assert len(found) == 36
    assert not any(look.moments for look in found)
    generator, shard = Toy().generator(None), paths.shard(0)
    codes = codes_of(generator, shard.canvas())
    whole = np.stack(generator.decoded(codes)).transpose(0, 3, 1, 2)
    shown = generator.preview(shard.canvas())
    for row in range(5):
        np.testing.assert_array_equal(found[3 * row].pictures[0], whole[row])
        assert np.abs(whole[row].transpose(1, 2, 0).astype(int) - shown[row]).max() <= 1
    from PIL import Image

    for look in found[:6]:
        picture = Image.fromarray(np.array(look.pictures[0]).transpose(1, 2, 0))
        said = judge.ask("orm", [View(look.own.text, picture)])[0]
        assert said.reason == (look.reason or None)
    with pytest.raises(ValueError, match="no squares"):
        damaged(torch.zeros(2, 12, dtype=torch.long), ["a", "b"], 1, random.Random(0))
    with pytest.raises(ValueError, match="copies"):
        VerifierData(copies=0)


def test_the_command_damages_what_was_painted(tmp_path, capsys):
    save_showo(MODEL, WORDS, tmp_path / "toy")
    (tmp_path / "asked.txt").write_text("a red cat\na fish\n")
    given = ["--model", str(tmp_path / "toy"), "--prompts", str(tmp_path / "asked.txt"), "--per-prompt", "2"]
    given += ["--out", str(tmp_path / "out"), "--copies", "1", "--batch", "3"]
    assert main(["data", "build", "damaged", *given, "--quiet"]) == 0
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["images"] == 8
    assert len(Looks(tmp_path / "out")) == 8
