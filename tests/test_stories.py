"""Stories: what teachers write, what a Janus learns from them, and roll-outs that think while they paint."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from janus_toy import toy_janus
from tiny import tiny_folder

from reverie.atelier.kinds import KINDS
from reverie.atelier.language_parse import HELD_OUT_HEADS, parse
from reverie.canvas import Conditions, Work
from reverie.cli import main
from reverie.data.prompts import Prompt
from reverie.data.shards import ShardedBuild
from reverie.data.stories import Stories, build_stories
from reverie.data.teachers import AtelierTeacher, VlmTeacher
from reverie.dialogue import dialogue
from reverie.generators.janus import JanusPainter
from reverie.judges.mixed import FunctionJudge
from reverie.training import recipes
from reverie.training.janus_policy import JanusPolicy
from reverie.training.rollout import Path as Branch
from reverie.training.stories import StoryTask, StoryTraining
from reverie.training.story_tree import StoryWriter
from reverie.training.tree import Credit
from reverie.vlms.janus import JanusEyes

MODEL, WORDS = toy_janus()
ABOUT = {"wording": "atelier"}


def painter() -> JanusPainter:
    return JanusPainter(MODEL, WORDS, guidance=1.0)


def atelier(**settings) -> AtelierTeacher:
    """Pictures of 32 x 32 pixels, as the toy has them: 4 x 4 codes."""
    generator = painter()
    return AtelierTeacher(MODEL.encode_image, generator.steps, generator.row, side=32, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("stories")
    build_stories(atelier(regions=2), place, ShardedBuild(12, shard=5), ABOUT)
    return place


def test_a_story_has_a_thought_and_a_critique_for_each_region(folder):
    stories = Stories(folder)
    assert len(stories) == 12
    assert stories.codes.shape == stories.judged.shape == (12, 16)
    changed = (stories.codes != stories.judged).any(1)
    assert 0 < int(changed.sum()) < 12
    for told, wrong in zip(stories.told, changed.tolist(), strict=True):
        assert told.ends == (8, 16)
        assert all(told.thoughts)
        first, last = told.critiques
        assert first.answer.split(".")[0] in ("Yes", "No")
        assert (first.answer == "Yes.") == (first.score == 100)
        assert last.answer.startswith("SCORE: ")
        assert last.revised == told.thoughts[-1]
        if not wrong:
            assert first.score == last.score == 100
        # What is read at inference is what was meant.
        story = told.story("atelier", 1)
        read = story.read(last.answer, told.thoughts[-1])
        assert (read.score >= 90) == (last.score >= 90)


def test_a_build_goes_on_and_parts_make_the_whole(folder, tmp_path):
    assert build_stories(atelier(regions=2), tmp_path, ShardedBuild(12, 5, part=1, parts=2), ABOUT) is None
    done = (tmp_path / "stories-000001.jsonl").stat().st_mtime_ns
    counts = build_stories(atelier(regions=2), tmp_path, ShardedBuild(12, 5), ABOUT)
    assert counts is not None
    assert (counts["prompts"], counts["stories"], counts["regions"]) == (12, 12, 24)
    assert (tmp_path / "stories-000001.jsonl").stat().st_mtime_ns == done
    for path in folder.glob("stories-*.jsonl"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="holds count 12, not 13"):
        build_stories(atelier(regions=2), tmp_path, ShardedBuild(13, 5), ABOUT)


class Scripted:
    """A VLM that counts its answers and finds the second region wanting."""

    def __init__(self):
        self.asked = []

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        self.asked += [talk[0] for talk in conversations]
        return [self.answer(talk[0]) for talk in conversations]

    def answer(self, message) -> str:
        if "SCORE" not in message.text:
            return f"thought {len(message.text)}"
        return "SCORE: 40\nIMPROVED_DESCRIPTION: better" if "after part 2" in message.text else "SCORE: 95"


def test_a_vlm_teaches_with_any_painter_and_a_judge_filters(tmp_path):
    vlm, prompts = Scripted(), [Prompt("a red cat"), Prompt("two dogs"), Prompt("a fish")]
    judge = FunctionJudge(lambda asked, pictures: [float(prompt != "two dogs") for prompt in asked])
    teacher = VlmTeacher(vlm, painter(), prompts, regions=3, judge=judge)
    build_stories(teacher, tmp_path, ShardedBuild(3, 2), {"wording": "instruct"})
    stories = Stories(tmp_path)
    assert [told.prompt for told in stories.told] == ["a red cat", "a fish"]
    told = stories.told[0]
    assert len(told.thoughts) == 3
    assert [critique.score for critique in told.critiques] == [95, 40, 95]
    assert told.critiques[1].revised == "better"
    assert told.critiques[0].revised == told.thoughts[0]
    critics = [message for message in vlm.asked if "SCORE" in message.text]
    assert len(critics) == 2 * 3  # not of the picture that did not pass
    # A critic sees the canvas of its region: the same as a preview after so many steps.
    generator = painter()
    known = stories.told[0].story("instruct", 2)
    text = known.painting(told.thoughts[2], again=False)
    from reverie.benchmarks.protocol import image_seed

    canvas = generator.start(Conditions((text,)), [image_seed(0, "a red cat", 0)])
    half = generator.advance(canvas, told.ends[0])
    shown = critics[0].images[0]
    assert shown.tobytes() == generator.preview(half)[0].tobytes()
    assert torch.equal(generator.advance(half).tokens[0], stories.codes[0])


# --- supervised


def test_rows_carry_loss_on_their_own_part_alone(folder):
    task = StoryTask(MODEL, WORDS, Stories(folder), StoryTraining(think=3, generate=4, reflect=2, blank=0.0), seed=1)
    batch, again = task.batch(2), task.batch(2)
    assert all(torch.equal(batch[kind][name], again[kind][name]) for kind in batch for name in batch[kind])
    spans = batch["generate"]["span"].tolist()
    assert {tuple(span) for span in spans} <= {(0, 8), (8, 16)}
    # The loss of a region is the mean of the policy's own negative log-probabilities of those codes.
    one = {name: rows[:1] for name, rows in batch["generate"].items()}
    one["ids"] = one["ids"][:, : int(one["length"][0])]
    (start, end), codes = spans[0], one["codes"][0]
    policy = JanusPolicy(painter(), JanusEyes(MODEL, WORDS))
    from reverie.training.janus_policy import Shown
    from reverie.training.tree import Segment

    ids = tuple(one["ids"][0].tolist())
    blank = torch.ones(end - start, dtype=torch.bool)
    segment = Segment("janus", "image", codes[start:end], blank, torch.zeros(end - start), Shown(ids, codes[:start]))
    with torch.no_grad():
        expected = -policy.log_prob([segment]).log_prob.mean()
        torch.testing.assert_close(task._region_loss(one), expected, atol=1e-4, rtol=0)
    loss, log = task.loss(batch)
    loss.backward()
    assert set(log) == {"think", "generate", "reflect"}
    for name, parameter in MODEL.named_parameters():
        assert (parameter.grad is not None) == name.startswith("language_model"), name
    MODEL.zero_grad()


def test_rows_in_parts_have_the_loss_and_the_gradient_of_all_at_once(folder):
    found = []
    for parts in (1, 3):
        mix = StoryTraining(think=5, generate=6, reflect=2, plain=3, whole=True, parts=parts)
        task = StoryTask(MODEL, WORDS, Stories(folder), mix, seed=4)
        loss, log = task.loss(task.batch(7))
        loss.backward()
        found.append((loss, log, [p.grad for p in MODEL.language_model.parameters()]))
        MODEL.zero_grad(set_to_none=True)
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-5)


def test_prompts_behind_unheard_words_ask_for_the_same_things_and_keep_the_benchmarks_words_out():
    plain, odd = atelier(exercises=1.0), atelier(exercises=1.0, unheard=1.0)
    for number in range(40):
        (told, _, _), (other, _, _) = plain.draw(number), odd.draw(number)
        assert not any(other.prompt.startswith(f"{head} ") for head in HELD_OUT_HEADS)
        kinds = [clause.kind for clause in parse(told.prompt).include]
        assert all(re.search(rf"\b{KINDS[kind].plural}\b|\b{kind}\b", other.prompt) for kind in kinds)
        assert other.prompt != told.prompt


def test_canvases_look_as_they_do_while_painting(folder):
    stories = Stories(folder)
    task = StoryTask(MODEL, WORDS, stories, StoryTraining(), seed=1)
    generator = painter()
    canvas = replace(generator.start(Conditions(("",)), [0]), tokens=stories.codes[:1].clone(), step=16)
    seen = generator.preview(generator.rewind(canvas, 8))[0]
    from PIL import Image

    from reverie.vlms.janus import prepare

    found = task.canvases(stories.codes[:1], torch.tensor([8]))[0]
    torch.testing.assert_close(found, prepare(Image.fromarray(seen), WORDS.rules), atol=2 / 127, rtol=0)


def test_a_janus_learns_to_paint_a_region_from_its_thought(tmp_path):
    """Two thoughts, two kinds of bands: afterwards the likeliest codes of a region follow its own thought."""
    codes = torch.zeros(8, 16, dtype=torch.long)
    told = []
    from reverie.data.stories import Critique, Told

    for index in range(8):
        words = ["red" if index >> bit & 1 else "blue" for bit in range(2)]
        codes[index, :8], codes[index, 8:] = (7 if word == "red" else 3 for word in words)
        rated = tuple(Critique(100.0, word, "Yes.") for word in words)
        told.append(Told(str(index), "bands", (8, 16), tuple(words), rated))
    stories = Stories.__new__(Stories)
    stories.folder, stories.about, stories.told = tmp_path, ABOUT, told
    stories.codes = stories.judged = codes
    model, words = toy_janus()
    task = StoryTask(model, words, stories, StoryTraining(think=0, generate=8, blank=0.0, all=True), seed=0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(150):
        optimizer.zero_grad()
        loss, _ = task.loss(task.batch(step))
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    generator = JanusPainter(model.eval(), words, guidance=1.0, temperature=0.0)
    found = {}
    for second in ("red", "blue"):
        canvas = generator.advance(generator.start(Conditions(("bands. red",)), [0]), 8)
        canvas = generator.recondition(canvas, Conditions((f"bands. red. {second}",)))
        found[second] = generator.advance(canvas).tokens[0].tolist()
    assert found["red"] == [7] * 16
    assert found["blue"] == [7] * 8 + [3] * 8


@pytest.mark.parametrize("lora", [{}, {"rank": 2}, {"rank": 2, "folded": True}])
def test_the_recipe_trains_and_the_result_thinks_while_it_paints(folder, tmp_path, lora):
    import reverie

    place = tiny_folder(tmp_path / "janus")
    recipe = tmp_path / "sft.yaml"
    loop = {"steps": 2, "precision": "no", "log_every": 1}
    recipe.write_text(
        json.dumps({"task": "stories", "out": str(tmp_path / "out"), "model": str(place), "data": str(folder),
                    "mix": {"think": 2, "generate": 2, "reflect": 1}, "lora": lora, "loop": loop})
    )  # fmt: skip
    out = recipes.run(recipe)
    result = reverie.load(out / "checkpoint", device="cpu").generate(
        "a red cat", think="during", regions=2, seed=1, thought_tokens=4
    )
    assert len(result.recipes[0]["regions"]) == 2
    with pytest.raises(ValueError, match="holds no stories"):
        recipes.run(recipe, [f"data={tmp_path}", f"out={tmp_path / 'no'}"])


# --- reinforced


def test_a_roll_out_is_what_inference_would_do():
    """Greedy thoughts and codes: the tree's writer and the painter's own loop tell the same story."""
    import reverie.reason
    from reverie.thinkers import Thinker

    generator = JanusPainter(MODEL, WORDS, guidance=1.0, temperature=0.0)
    eyes = JanusEyes(MODEL, WORDS)
    policy = JanusPolicy(generator, eyes, limit=6, temperature=0.0, guidance=1.0)
    written = StoryWriter(policy, "atelier", regions=2)([Branch("a red cat", 5), Branch("two dogs", 6)])
    plan = reverie.reason.make_plan(think="during", regions=2, thought_tokens=6, reflect=0)
    thinker = Thinker(eyes, "atelier", lambda text: None, Work())
    events = list(reverie.reason.run(generator, thinker, plan, ["a red cat", "two dogs"], [1, 2], previews=False))
    finished = sorted((e for e in events if e.name == "finished"), key=lambda e: e.image)
    for segments, event in zip(written, finished, strict=True):
        assert [segment.modality for segment in segments] == ["text", "image", "text", "image"]
        thoughts = [" ".join(WORDS.decode(s.actions.tolist()).split()) for s in segments if s.modality == "text"]
        told = [region["attempts"][0]["thought"] for region in event.recipe["regions"]]
        assert [t or event.recipe["prompt"] for t in thoughts] == told
        codes = torch.cat([s.actions for s in segments if s.modality == "image"])
        shown = generator.preview(
            replace(generator.start(Conditions(("",)), [0]), tokens=codes[None], step=len(codes))
        )[0]
        assert shown.tobytes() == event.picture.tobytes()


def test_rejected_regions_are_marked_and_painted_again():
    policy = JanusPolicy(painter(), JanusEyes(MODEL, WORDS), limit=4, guidance=1.0)
    writer = StoryWriter(policy, "atelier", regions=2, rounds=1, threshold=1000.0, critique_tokens=4)
    assert dialogue("atelier").yes_or_no

    class Harsh(StoryWriter):
        def _judged(self, walks, last):
            for walk in walks:  # whatever the toy says, nothing pleases
                found = super()._judged([walk], last)
                if not found:
                    walk.written[-2].rejected = True
            return list(walks)

    (segments,) = Harsh(**vars(writer))([Branch("a red cat", 5)])
    kinds = [(segment.modality, segment.rejected) for segment in segments]
    once = [("text", False), ("image", True), ("text", False), ("image", False)]
    assert kinds == once * 2
    assert not Credit({"r": 1.0}, rejected=False).teaches(segments[1])
    kept = policy.codes(Branch("a red cat", 5, tuple(segments)))
    assert len(kept) == 16
    assert torch.equal(kept[:8], segments[3].actions)
    scored = policy.log_prob([segments[3], segments[7]]).log_prob
    torch.testing.assert_close(scored[1][:8], segments[7].log_prob, atol=1e-4, rtol=0)


# --- the command


def test_the_command_builds_stories_and_refuses_what_makes_no_sense(tmp_path, capsys):
    place = tiny_folder(tmp_path / "janus")
    argv = ["data", "build", "thoughts", "--model", str(place), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*argv, "--prompts", "atelier:4", "--regions", "2", "--batch", "3"]) == 0
    assert "stories: 4" in capsys.readouterr().out
    for more, said in (
        (["--prompts", "words.txt"], "give --prompts atelier:N"),
        (["--prompts", "atelier:4", "--judge", "nobody"], "nobody"),
        (["--prompts", "atelier:4", "--regions", "9"], "4 rows"),
    ):
        assert main([*argv[:-1], str(tmp_path / "other"), *more]) == 2
        message = capsys.readouterr().err
        assert said in message
        assert message.count("\n") == 1
