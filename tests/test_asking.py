"""What is not written because it would change nothing, and what is written before it is asked for."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from test_during import PROMPTS, Critic, finished, of, painter, reasoned
from test_vlm_janus import TALKS, eyes

from reverie.dialogue import OfficialStory, Story, dialogue
from reverie.events import Revised
from reverie.reason import make_plan

PIECES = st.sampled_from(
    [*"9.5-\n ", "95", "100", "SCORE:", "score", "User: ", "Assistant: ", "IMPROVED_DESCRIPTION:", "a cat", "\n\n"]
)


@given(st.lists(PIECES, max_size=9), st.lists(PIECES, max_size=9), st.sampled_from((50, 90, 100)))
def test_what_is_settled_stays_so_however_a_critique_goes_on(before, after, threshold):
    text, whole = "".join(before), "".join([*before, *after])
    for story in (Story(dialogue("instruct"), "a cat", 3), OfficialStory(dialogue("official"), "a cat", 3)):
        if story.settled(text) >= threshold:
            assert story.settled(whole) == story.settled(text)
            read = story.read(whole, "a cat")
            assert read.score >= threshold
            # The published reading calls it 100 where no description follows.
            assert read.score in (story.settled(text), 100.0)


class BriefCritic(Critic):
    """The same answers, ended where they are enough."""

    written: int = 0

    def write_until(self, conversations, max_new_tokens, enough):
        found = []
        for whole, test in zip(self.write_batch(conversations), enough, strict=True):
            ends = range(len(whole)) if test else ()
            found.append(whole[: next((end for end in ends if test(whole[:end])), len(whole))])
            self.written += len(found[-1])
        return found


def painted(critic, **fields):
    events = reasoned(painter(), critic, make_plan("twig", **fields), PROMPTS, range(4))
    rows = {image: (event.recipe["regions"], event.recipe["thought"]) for image, event in finished(events).items()}
    return rows, [event.picture for event in finished(events).values()], events


def test_pictures_are_the_same_and_take_fewer_and_shorter_answers():
    for fields in ({}, {"official": True}, {"threshold": 60, "keep": "best", "reflect": 2}, {"threshold": 0}):
        usual, brief = Critic(), BriefCritic()
        whole, short = painted(usual, **fields), painted(brief, **fields)
        assert short[:2] == whole[:2]
        # Where some critiques reject, what was written ahead of them is not used.
        assert bool(of(Revised, short[2])) == (fields != {"threshold": 0})
    assert (usual.batches, brief.batches) == ([4] * 6, [4, 8, 8, 4])
    assert brief.written < sum(
        len(answer) for event in finished(whole[2]).values() for answer in event.recipe["answers"]
    )


def test_thoughts_are_not_written_ahead_of_critics_who_reject():
    usual, brief = Critic(best=10), BriefCritic(best=10)
    assert painted(brief)[:2] == painted(usual)[:2]
    ahead = len(brief.asked) - len(usual.asked)
    assert ahead == len(PROMPTS), "once, for every picture of the batch"


def test_answers_of_a_janus_end_where_they_are_enough():
    whole = eyes().write_batch(TALKS, 24)
    tests = [None, lambda text: len(text) >= 3, lambda text: "\0" in text, lambda text: True]
    brief = eyes().write_until(TALKS, 24, tests)
    assert brief[0] == whole[0]
    assert brief[2] == whole[2]
    assert whole[1].startswith(brief[1])
    assert 3 <= len(brief[1]) < len(whole[1])
    assert len(brief[3]) <= len(brief[1])


def test_attention_in_bfloat16_is_that_of_float32():
    from reverie.models.attention import additive, fused, widened

    draw = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(5, heads, n, 16, generator=draw) for heads, n in ((4, 1), (2, 40), (2, 40)))
    seen = torch.rand(5, 1, 1, 40, generator=draw) < 0.7
    parts = [part.bfloat16() for part in (query, keys, values)]
    exact = fused(*(part.float() for part in parts), additive(seen, torch.float32))
    found = widened(*parts, additive(seen, torch.bfloat16)).transpose(1, 2).flatten(2)
    assert torch.equal(found, exact.bfloat16())
    for row in range(5):
        alone = widened(*(part[row : row + 1] for part in parts), additive(seen[row : row + 1], torch.bfloat16))
        assert torch.equal(alone.transpose(1, 2).flatten(2), found[row : row + 1])
