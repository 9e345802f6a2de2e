"""Reading aligned vectors of in-context episodes: pictures on disk, the reader of vectors, the table."""

import json
import random

import pytest
import torch
from PIL import Image
from t5_toy import t5_words, tiny_t5
from test_vlm_training import SIZES

from reverie.atelier.episodes import benchmark
from reverie.atelier.language import held_out_colour
from reverie.atelier.picture_book import main as draw_book
from reverie.atelier.picture_book import page, write_book
from reverie.data.build_features import read_items
from reverie.models.aligner import Aligner, AlignerConfig, save_aligner
from reverie.training import align_report
from reverie.training.align import Words
from reverie.training.align_clip import read_captions
from reverie.training.align_report import Answered, Judges, aligned, answer_all, encoded, rows_of
from reverie.training.episode_book import entry, write_episodes
from reverie.training.episode_book import main as draw_episodes
from reverie.training.text_reader import TextReader, learn_to_read, read_scene
from reverie.training.vlm_build import build_processor, build_tokenizer, build_vlm, save_vlm
from reverie.training.vlm_facts import GROUPS, facts
from reverie.training.vlm_report import question
from reverie.vlms.states import FeatureStates
from reverie.vlms.transformers import TransformersVLM


@pytest.fixture(scope="module")
def vlm() -> TransformersVLM:
    torch.manual_seed(0)
    processor = build_processor(SIZES, build_tokenizer(SIZES))
    return TransformersVLM(build_vlm(SIZES, processor.tokenizer), processor)


def test_a_picture_book_goes_on_and_repeats(tmp_path, capsys):
    draw_book(["--count", "4", "--out", str(tmp_path)])
    path = tmp_path / "captions.jsonl"
    assert capsys.readouterr().out.strip() == str(path)
    first = sorted((tmp_path / "pictures").iterdir())
    (first[1]).unlink()
    stamp = first[0].stat().st_mtime_ns
    before = path.read_text()
    write_book(tmp_path, 4)
    assert path.read_text() == before
    assert first[0].stat().st_mtime_ns == stamp
    assert first[1].is_file()
    assert [caption for _, caption in read_captions(path)] == [page(n)[1].lower() for n in range(4)]
    assert len(read_items(path)) == 4
    with pytest.raises(ValueError, match="at least one"):
        write_book(tmp_path, 0)


def test_a_book_of_episodes_asks_what_the_report_asks_and_tells_no_answer(tmp_path, capsys):
    draw_episodes(["--count", "5", "--out", str(tmp_path)])
    path = tmp_path / "episodes.jsonl"
    assert capsys.readouterr().out.strip() == str(path)
    for number, item in enumerate(read_items(path)):
        one = entry(number)
        (asked,) = question(one)
        assert item.request == asked.text
        for file, picture in zip(item.paths, asked.images, strict=True):
            with Image.open(file) as kept:
                assert kept.tobytes() == picture.tobytes()
    listed = {(e.query, e.answer) for task in range(1, 11) for shots in (2, 4) for e in benchmark(task, shots, 20)}
    assert not any((entry(number).query, entry(number).answer) in listed for number in range(300))
    before = path.read_text()
    assert write_episodes(tmp_path, 5).read_text() == before
    with pytest.raises(ValueError, match="at least one"):
        write_episodes(tmp_path, 0)


def test_no_picture_of_a_book_is_held_out():
    for number in range(300):
        things = page(number, seed=3)[0].things
        assert not any(thing.colour and held_out_colour(thing.colour, thing.kind) for thing in things)


def test_the_reader_learns_encoder_vectors_and_reads_through_padding():
    """A toy T5 whose encoder writes each text's words: the reader gets below chance on it, and padding is not read."""
    t5, words = tiny_t5(), t5_words()
    reader = learn_to_read(t5, words, steps=60, batch=16, noise=0.0)
    fresh = TextReader(t5.config.d_model)
    episodes = benchmark(1, 2, 12)
    from reverie.atelier.language import canonical, demand_of

    captions = [canonical(demand_of(one.answer)) for one in episodes]
    vectors, mask = encoded(t5, Words(words, 64), captions)
    wanted = torch.tensor([facts(one.answer) for one in episodes])[:, : len(GROUPS["kind"])]

    def loss(of: TextReader) -> float:
        return torch.nn.functional.cross_entropy(of(vectors, mask)["kind"], wanted).item()

    assert loss(reader) < loss(fresh) - 0.5
    wider = torch.cat((vectors, torch.full_like(vectors[:, :3], 9.0)), 1)
    told = reader(wider, torch.nn.functional.pad(mask, (0, 3)))
    for name, logits in reader(vectors, mask).items():
        torch.testing.assert_close(told[name], logits, atol=1e-5, rtol=1e-4)


def test_a_scene_is_read_by_its_likeliest_names():
    episodes = benchmark(4, 2, 3)  # a word for the animal, a hidden background

    class Knows(TextReader):
        def forward(self, vectors, mask):
            logits = torch.tensor([facts(one.answer) for one in episodes])
            return dict(zip(GROUPS, logits.split([len(names) for names in GROUPS.values()], 1), strict=True))

    blank = torch.zeros(3, 1, 8)
    assert read_scene(Knows(8), blank, blank[..., 0], episodes) == [(True, True)] * 3
    others = [
        next(e for e in benchmark(4, 2, 200) if e.theta != one.theta and e.query == one.query) for one in episodes
    ]
    assert read_scene(Knows(8), blank, blank[..., 0], others) == [(True, False)] * 3


def test_features_of_answers_and_of_questions_reach_the_aligner(vlm):
    found = answer_all(vlm, 1, 1, batch=4, limit=3)
    assert [one.episode.task for one in found] == list(range(1, 11))
    aligner = Aligner(AlignerConfig(vlm.width, 32)).initialise()
    vectors, mask = aligned(aligner, found)
    assert mask.sum(1).tolist() == [len(one.features) for one in found]
    torch.testing.assert_close(vectors[3, : int(mask[3].sum())], aligner(found[3].features.float()).detach())
    _, asked = aligned(aligner, found, "input")
    assert asked.sum(1).tolist() == [len(one.asked) for one in found]
    assert asked.sum() > mask.sum()


def test_the_table_has_every_row_and_the_oracle_is_right_where_its_readers_are():
    """With a decoder that says nothing of use, shares are 0, and the VLM's own text is judged by itself."""
    episodes = [one for task in range(1, 11) for one in benchmark(task, 2, 1)]
    from reverie.atelier.language import canonical, demand_of

    right = [Answered(e, canonical(demand_of(e.answer)), torch.randn(3, 8), torch.randn(5, 8)) for e in episodes]
    t5, words = tiny_t5(), t5_words()
    judges = Judges(t5, Words(words, 64), TextReader(t5.config.d_model))
    aligner = Aligner(AlignerConfig(8, t5.config.d_model)).initialise(t5.encoder.final_layer_norm.weight)
    rows = dict(rows_of(judges, right, {"full": (aligner, "generated"), "input": (aligner, "input")}))
    assert list(rows) == ["VLM text", "oracle", "relay", "relay, so far", "full", "input"]
    assert rows["VLM text"]["text"]["both"] == 1
    assert rows["oracle"]["reader"] == rows["relay"]["reader"]  # the same captions
    assert rows["full"]["scale"] == pytest.approx(1, abs=0.1)
    assert rows["full"]["decoder"]["both"] == 0


def test_the_report_as_a_user_makes_it(vlm, tmp_path, capsys):
    t5 = tiny_t5()
    t5.save_pretrained(tmp_path / "t5")
    t5_words().save_pretrained(tmp_path / "t5")
    save_vlm(vlm.model, vlm.processor, tmp_path / "vlm")
    aligner = Aligner(AlignerConfig(vlm.width, t5.config.d_model)).initialise()
    save_aligner(aligner, tmp_path / "a.safetensors")
    given = ["--vlm", str(tmp_path / "vlm"), "--t5", str(tmp_path / "t5"), "-n", "1", "--shots", "1", "--steps", "2"]
    given += ["--aligner", f"full={tmp_path / 'a.safetensors'}", "--aligner", f"in={tmp_path / 'a.safetensors'}:input"]
    align_report.main([*given, "--out", str(tmp_path / "out")])
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(result["1-shot"]) == {"VLM text", "oracle", "relay", "relay, so far", "full", "in"}
    assert "1-shot full" in capsys.readouterr().out
    own = answer_all(vlm, 1, 1, batch=4, limit=3, own=True)
    listed = [one for task in range(1, 11) for one in benchmark(task, 1, 1)]
    assert [one.episode.task for one in own] == list(range(1, 11))
    assert all(mine.episode.answer != theirs.answer for mine, theirs in zip(own, listed, strict=True))
    states = FeatureStates((-1, -2), read=True)
    save_aligner(Aligner(AlignerConfig(4 * vlm.width, t5.config.d_model, states=states)), tmp_path / "c.safetensors")
    given[-1] = f"c={tmp_path / 'c.safetensors'}"  # the question's features cannot be had with those that have read
    align_report.main([*given, "--bare", "--out", str(tmp_path / "states")])
    assert set(json.loads((tmp_path / "states" / "report.json").read_text())["1-shot"]) == {"full", "c"}
    bad = Aligner(AlignerConfig(7, t5.config.d_model)).initialise()
    save_aligner(bad, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="7 wide"):
        align_report.main([*given, "--aligner", f"b={tmp_path / 'b.safetensors'}", "--out", str(tmp_path / "out")])


def test_facts_share_among_several_things():
    rng = random.Random(0)
    from reverie.atelier.scene import Scene, Thing

    told = facts(Scene((Thing("cat", "red"), Thing("dog")), "beach"))
    by_name = dict(zip([f"{g}/{n}" for g, names in GROUPS.items() for n in names], told, strict=True))
    assert {name: value for name, value in by_name.items() if value} == {
        "kind/cat": 0.5, "kind/dog": 0.5, "colour/none": 0.5, "colour/red": 0.5, "texture/plain": 1, "action/none": 1,
        "background/beach": 1, "style/plain": 1,
    }  # fmt: skip
    assert len(facts(page(rng.randrange(9))[0])) == len(told)
