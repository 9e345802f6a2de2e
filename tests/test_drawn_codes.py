"""Drawn pictures as codes that are used several times, and an image tokenizer that checkpoints share with a Janus."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus
from showo_toy import toy_words

from reverie.data import prompts
from reverie.models.janus_checkpoint import save_janus
from reverie.models.llamagen_checkpoint import load_llamagen, save_llamagen
from reverie.models.rows import at_once, in_fixed_parts, usual_rows
from reverie.models.showo_checkpoint import load_showo, save_showo
from reverie.training.drawn_codes import DrawnCodes
from reverie.training.llamagen import LlamagenSizes, build_llamagen
from reverie.training.showo import ShowoSizes, fresh_showo
from reverie.training.tokenizer import TokenizerConfig
from reverie.training.words import train_words

VQ = TokenizerConfig(side=32, codes=48, base=32, multipliers=(1, 1), latent=32, patch=4, res_blocks=2)


def means(pixels: torch.Tensor) -> torch.Tensor:
    """An `encode` by which every picture is known again: (N, 3, H, W) to (N, 12)."""
    return (torch.nn.functional.avg_pool2d(pixels, 16) * 1000).round().flatten(1).long()


def test_a_picture_is_encoded_once_and_found_again_whatever_came_before():
    drawn, late = (DrawnCodes(3, rows=6, share=0.34, riddles=0.1, side=32, window=8) for _ in range(2))
    assert drawn.fresh == 2
    seen = []
    for step in range(9):
        captions, rows = drawn.batch(step, random.Random(step))
        numbers = rows["numbers"].tolist()
        assert numbers[:2] == [2 * step, 2 * step + 1]
        assert all(2 * step + 2 - 8 <= number < 2 * step + 2 for number in numbers)
        assert len(captions) == 6
        expected = means(drawn.pictures(numbers).float() / 127.5 - 1)
        assert torch.equal(drawn.codes(rows, means), expected)
        seen += numbers
    assert len(set(seen)) < len(seen), "pictures were used more than once"
    # A run that goes on at step 8 has none of the earlier codes and draws them again.
    captions_late, rows_late = late.batch(8, random.Random(8))
    assert captions_late == captions
    assert torch.equal(late.codes(rows_late, means), expected)


def test_the_wording_changes_and_the_picture_does_not():
    drawn = DrawnCodes(0, rows=2, share=1.0, riddles=0.0, side=32)
    said = {drawn.caption(5, random.Random(trial)) for trial in range(30)}
    assert len(said) > 1
    assert torch.equal(drawn.pictures([5]), drawn.pictures([4, 5])[1:])


@pytest.mark.parametrize("share", [0.0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        DrawnCodes(0, 4, share, 0.0, 32)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9))
def test_parts_are_always_full_and_nothing_is_lost(count: int, size: int):
    met = []
    rows = torch.arange(count * 2.0).view(count, 2)
    parts = in_fixed_parts(lambda part: met.append(len(part)) or part + 1, size, rows)  # type: ignore[func-returns-value]
    assert torch.equal(torch.cat(parts), rows + 1)
    assert set(met) == {size}


def test_small_networks_get_more_rows_on_accelerators_only():
    assert usual_rows(torch.empty(4, 192), 64, 1024) == 64
    assert usual_rows(torch.empty(4, 192, device="meta"), 64, 1024) == 16 * 1024
    assert usual_rows(torch.empty(4, 2048, device="meta"), 64, 1024) == 2 * 1024
    assert usual_rows(torch.empty(4, 8192, device="meta"), 64, 1024) == 1024
    assert (at_once(torch.device("cpu")), at_once(torch.device("meta"))) == (1, 64)


@pytest.fixture(scope="module")
def janus(tmp_path_factory):
    model, words = toy_janus()
    folder = tmp_path_factory.mktemp("janus") / "janus"
    save_janus(model.to(torch.bfloat16).float(), words, folder)
    return model, folder


def test_a_shared_tokenizer_is_not_saved_again(janus, tmp_path):
    model, folder = janus
    sizes = ShowoSizes(width=32, layers=1, heads=2, ffn=64, longest=40, steps=2)
    showo, words = fresh_showo(sizes, VQ, model.vqmodel, str(folder), toy_words())
    save_showo(showo, words, tmp_path / "showo")
    sizes = LlamagenSizes(width=32, layers=1, heads=2, ffn=64, text_width=16)
    llamagen, captions = build_llamagen(sizes, VQ, model.vqmodel, str(folder), train_words(["a red cat"] * 9, 300))
    with pytest.raises(ValueError, match="lacks"):
        build_llamagen(sizes, VQ, model.vqmodel, words=toy_words())
    save_llamagen(llamagen, captions, tmp_path / "llamagen")
    codes = torch.arange(16).view(1, 16)
    for name, painter, load in (("showo", showo, load_showo), ("llamagen", llamagen, load_llamagen)):
        header = (tmp_path / name / "model.safetensors").read_bytes()
        tensors = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
        assert not any("decoder" in key for key in tensors)
        again, _ = load(tmp_path / name)
        decode = (lambda m: m.pictures.decode) if name == "showo" else (lambda m: m.decode_codes)
        assert torch.equal(decode(again)(codes), decode(painter)(codes))
    with torch.no_grad():
        next(showo.vq_model.parameters()).add_(1)
    with pytest.raises(ValueError, match="no longer that of"):
        save_showo(showo, words, tmp_path / "other")
    config = json.loads((tmp_path / "showo" / "config.json").read_text())
    config["reverie"]["pictures"] = str(tmp_path / "showo")
    (tmp_path / "showo" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="which is no Janus"):
        load_showo(tmp_path / "showo")


def test_prompts_of_the_six_tasks_ask_nothing_that_is_held_out():
    from reverie.atelier.language_parse import parse
    from reverie.atelier.sample import allowed

    found = prompts.read("atelier-geneval:120", seed=4).prompts
    assert len({prompt.text for prompt in found}) == 120
    shapes = set()
    for prompt in found:
        clauses = parse(prompt.text).include
        shapes.add((len(clauses), clauses[0].count > 1, clauses[-1].colour is None, clauses[-1].position is None))
        assert allowed(clauses)
    assert len(shapes) == 6
    found = prompts.read("atelier-geneval:counting+colors+colors:30", seed=4).prompts
    clauses = [parse(prompt.text).include for prompt in found]
    assert [len(one) for one in clauses] == [1] * 30
    assert [one[0].count > 1 for one in clauses] == [True, False, False] * 10
    assert [one[0].colour is None for one in clauses] == [True, False, False] * 10
    with pytest.raises(ValueError, match="there is no task 'colours'; use single_object"):
        prompts.read("atelier-geneval:colours:30")
