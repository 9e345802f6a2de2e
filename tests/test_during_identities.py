"""Identities of thinking while painting, each beside the slow and plain way of the same thing (acceptance list of the
fact sheet, where no other test has them)."""

import random

import numpy as np
import pytest
import torch
from janus_toy import toy_janus
from PIL import Image
from test_during import Critic, finished, reasoned

from reverie.canvas import Conditions, pick
from reverie.data.stories import DrawnStories
from reverie.data.teachers import AtelierTeacher
from reverie.dialogue import Story, dialogue
from reverie.generators.janus import JanusPainter
from reverie.generators.next_token import guide
from reverie.reason import Plan, make_plan
from reverie.thinkers import enriched
from reverie.training.stories import StoryTask, StoryTraining
from reverie.vlms import Message
from reverie.vlms.janus import JanusEyes, prepare

MODEL, WORDS = toy_janus()


def uncached(prompt: str, codes: torch.Tensor, weight: float) -> torch.Tensor:
    """Guided logits of the code behind `codes`, by one whole forward for each row."""
    ids = WORDS.painting_ids(prompt)
    rows = []
    for row in (ids, WORDS.blank_ids(ids)):
        embeds = torch.cat([MODEL.embed_text(torch.tensor(row)), MODEL.embed_codes(codes)])
        rows.append(MODEL.code_logits(MODEL.hidden(embeds[None])[0, -1]).float())
    return guide(rows[0], rows[1], weight)


def test_logits_are_those_of_whole_sequences_after_every_new_text_and_every_redo():
    """Item 3: whatever was cached, rewound or kept, to 1e-5."""
    seen = []

    def noting(logits, uniforms, temperature):
        seen.append(logits[0].clone())
        return pick(logits, uniforms, temperature)

    painter = JanusPainter(MODEL, WORDS, guidance=3.0, rows=16, chunk=16, picker=noting)
    canvas = painter.start(Conditions(("a cat. one",)), [5])
    walk = [("a cat. one", 0, 6), ("a cat. one. two", 6, 11), ("a cat. one. other", 6, 11), ("a cat. new", 11, 16)]
    with torch.no_grad():
        for text, start, end in walk:
            if canvas.step > start:
                canvas = painter.rewind(canvas, start)
            canvas = painter.recondition(canvas, Conditions((text,)))
            seen.clear()
            canvas = painter.advance(canvas, end)
            for place, logits in enumerate(seen, start):
                want = uncached(text, canvas.tokens[0, :place], 3.0)
                torch.testing.assert_close(logits, want, atol=2e-5, rtol=1e-5)


def test_the_blank_twin_keeps_its_ends_and_sees_the_same_codes():
    """Item 4: equal length, begin and begin-of-image alone, one drawn code for both rows."""
    ids = WORDS.painting_ids("a red cat")
    blank = WORDS.blank_ids(ids)
    assert len(blank) == len(ids)
    assert (blank[0], blank[-1]) == (ids[0], ids[-1]) == (WORDS.bos, WORDS.image_start)
    assert set(blank[1:-1]) == {WORDS.pad}
    painter = JanusPainter(MODEL, WORDS, guidance=4.0)
    a, b = (painter._embed_prompt(row, 1) for row in (ids, blank))
    assert torch.equal(painter._embed_prompt(ids, 2), torch.cat([a, b]))


def test_guidance_and_temperature_do_what_they_say_and_nothing_more():
    """Item 5: w = 0, 1 and 5 on numbers by hand, temperature 0, and no hidden top-k."""
    conditional, blank = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 3.0]])
    assert guide(conditional, blank, 1.0).tolist() == conditional.tolist()
    assert guide(conditional, blank, 0.0).tolist() == blank.tolist()
    assert guide(conditional, blank, 5.0).tolist() == [[3.0, -2.0]]
    logits = torch.linspace(0, -0.5, 200)[None]
    assert int(pick(logits, torch.tensor([0.99999]), 0.0)) == 0
    drawn = {int(pick(logits, torch.tensor([u]))) for u in torch.linspace(0, 0.9999, 600)}
    assert max(drawn) > 150  # the default of some libraries stops at rank 50


def test_texts_hold_every_thought_once_in_order_and_the_prompt_only_where_it_belongs():
    """Item 7: thoughts alone for Thinking-while-Generating; prompt, then thought, for T2I-R1."""
    story = Story(dialogue("instruct"), "a cat and a dog", 3)
    texts = []
    for thought in ("first sky", "second cat", "third dog"):
        texts.append(story.painting(thought, again=False))
        story.keep(thought, again=False)
    assert texts == ["first sky", "first sky second cat", "first sky second cat third dog"]
    assert not any("a cat and a dog" in text for text in texts)
    assert enriched("instruct", "  a grey cat\nbeside a dog ", "a cat and a dog.").prompt == (
        "a cat and a dog. a grey cat beside a dog"
    )


def test_previews_show_fill_codes_for_all_that_is_unfinished_also_after_a_redo():
    """Items 8 and 9: no stale codes of a rejected region; previews come again to the byte; the last has no fill."""
    painter = JanusPainter(MODEL, WORDS, guidance=1.0)
    whole = painter.advance(painter.start(Conditions(("a cat",)), [3]))
    back = painter.rewind(whole, 8)
    codes = torch.cat([whole.tokens[0, :8], torch.full((8,), painter.fill)])
    wanted = painter.preview(painter.rewind(whole, 16))[0]
    assert np.array_equal(painter.preview(whole)[0], wanted)
    shown = painter._bytes(MODEL.decode_codes(codes[None]))[0]
    assert np.array_equal(painter.preview(back)[0], shown)
    assert np.array_equal(painter.preview(back)[0], painter.preview(back)[0])
    # What a PNG would keep is what the eyes read.
    again = prepare(Image.fromarray(shown), WORDS.rules)
    task = StoryTask(MODEL, WORDS, drawn(), StoryTraining(), 0)
    found = task.canvases(whole.tokens.long(), torch.tensor([8]))[0]
    assert (found - again).abs().max() <= 2 / 255 + 1e-6


def drawn(regions=(3,)) -> DrawnStories:
    grid = MODEL.config.grid
    return DrawnStories(AtelierTeacher(None, grid**2, grid, regions, 0.0, 32), grid**2)


def test_nothing_is_remembered_from_one_picture_to_the_next_but_what_was_asked_for():
    """Item 16: with or without remembered features the answers are the same, and the store does not grow."""
    eyes, other = JanusEyes(MODEL, WORDS, remember=2), JanusEyes(MODEL, WORDS, remember=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        picture = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        asked = [[Message("user", text, (picture,))] for text in ("What?", "And now?", "What?")]
        assert eyes.write_batch(asked, 6) == [other.write(one, 6) for one in asked]
        assert len(eyes._seen) <= 2
        assert not other._seen
    assert eyes.work.vision_encodes == 5 < other.work.vision_encodes


def test_runs_touch_the_disk_only_when_they_are_asked_to(tmp_path, monkeypatch):
    """Item 16: the published script writes and reads a PNG for every look."""
    monkeypatch.chdir(tmp_path)
    plan = make_plan("twig", thought_tokens=8)
    events = reasoned(JanusPainter(MODEL, WORDS), Critic(), plan)
    assert finished(events)
    assert not list(tmp_path.iterdir())


def test_nine_rows_of_a_story_and_the_mixture_that_was_asked_for():
    """Items 17 and 18: think, generate and reflect of each of three regions come, as often as the mixture says."""
    stories = drawn()
    task = StoryTask(MODEL, WORDS, stories, StoryTraining(think=4, generate=6, reflect=2, blank=0.0), 1)
    spans, lengths = set(), {"think": 0, "generate": 0, "reflect": 0}
    for step in range(12):
        batch = task.batch(step)
        for kind in lengths:
            lengths[kind] += len(batch[kind]["ids"])
        spans |= {tuple(span) for span in batch["generate"]["span"].tolist()}
    assert lengths == {"think": 48, "generate": 72, "reflect": 24}
    assert spans == {(0, 4), (4, 12), (12, 16)}
    blanked = StoryTask(MODEL, WORDS, stories, StoryTraining(think=0, generate=8, blank=0.5), 1)
    rows = [row for step in range(12) for row in blanked.batch(step)["generate"]["ids"]]
    share = sum(bool((row == WORDS.pad).sum() > 10 and WORDS.bos == row[0] and row[1] == WORDS.pad) for row in rows)
    assert 0.3 < share / len(rows) < 0.7
    whole = StoryTask(MODEL, WORDS, stories, StoryTraining(generate=6, whole=True), 1)
    assert all(start == 0 for start, _ in whole.batch(0)["generate"]["span"].tolist())


def test_stories_are_drawn_from_their_number_alone():
    first, second = (drawn((1, 3)).take(random.Random(4)) for _ in range(2))
    assert first.told == second.told
    assert torch.equal(first.shown, second.shown)
    assert torch.equal(first.shown, first.judged)  # wrong=0: the judged picture is the picture
    assert first.shown.shape == (3, 32, 32)


@pytest.mark.parametrize("weight", [1.0, 2.5])
def test_codes_are_the_nearest_in_angle(weight):
    """Item 20: rows of the codebook of any length, by cosine."""
    model, _ = toy_janus()
    with torch.no_grad():
        book = model.vqmodel.quantize.embedding.weight
        book[::2] *= weight
        latents = torch.randn(2, book.shape[1], 4, 4, generator=torch.Generator().manual_seed(0))
        found = model.quantise(latents)
        flat = latents.flatten(2).transpose(1, 2)
        cosine = torch.nn.functional.cosine_similarity(flat[:, :, None], book[None, None], dim=-1)
    assert torch.equal(found, cosine.argmax(-1))


def test_every_run_says_how_it_was_made():
    """Item 30: seed, regions, threshold, rounds, weight, temperature and version are in the recipe."""
    import reverie

    about = {"versions": {"reverie": reverie.__version__}}
    plan = Plan(think="during", regions=2, reflect=2, threshold=70, guidance=2.0, temperature=0.5)
    events = reasoned(JanusPainter(MODEL, WORDS), Critic(), plan, seeds=[41], about=about)
    recipe = finished(events)[0].recipe
    told = recipe["plan"]
    assert (recipe["seed"], told["regions"], told["reflect"], told["threshold"]) == (41, 2, 2, 70)
    assert (told["guidance"], told["temperature"], recipe["versions"]["reverie"]) == (2.0, 0.5, reverie.__version__)
    again = finished(reasoned(JanusPainter(MODEL, WORDS), Critic(), plan, seeds=[41], about=about))[0]
    assert again.picture.tobytes() == finished(events)[0].picture.tobytes()
