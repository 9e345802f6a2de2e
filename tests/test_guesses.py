"""Codes that are guessed ahead: fewer steps, and nothing else is different, to the last bit."""

import functools

import pytest
import torch
from canvas_promise import PROMPTS, TYPES, images, start
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus
from test_vlm_janus import TALKS

from reverie.canvas import Conditions, pick
from reverie.generators.janus import JanusPainter
from reverie.models.attention import additive, bias_alone, each_alone, fused
from reverie.vlms.janus import JanusEyes
from reverie.vlms.janus_guesses import Followers


class Counting(JanusPainter):
    steps_taken = 0

    def _fed_rows(self, *inputs, **keywords):
        self.steps_taken += 1
        return super()._fed_rows(*inputs, **keywords)


@functools.cache
def painters(dtype: torch.dtype, temperature: float) -> tuple[Counting, Counting]:
    """One that guesses; and one that does not, because its picker is somebody's own."""
    given = {"rows": 16, "chunk": 16, "temperature": temperature}
    own = functools.partial(pick)
    return tuple(Counting(*toy_janus(dtype), picker=picker, **given) for picker in (pick, own))


def written(canvas, image: int):
    """Codes, and the keys and values of all tokens of an image that were fed."""
    cache = canvas.cache
    rows = slice(image * cache.ways, (image + 1) * cache.ways)
    fed = len(cache.prompts[image]) + max(canvas.step - 1, 0)
    return canvas.tokens[image], cache.kv.keys[:, rows, :, :fed], cache.kv.values[:, rows, :, :fed]


def same(one, other) -> bool:
    pairs = ((written(one, i), written(other, i)) for i in range(len(one)))
    return all(torch.equal(a, b) for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    images=images,
    stops=st.lists(st.integers(0, 16), max_size=3),
    dtype=st.sampled_from(TYPES),
    temperature=st.sampled_from((0.0, 0.1, 1.0)),
    guidance=st.sampled_from((None, 1.0, 2.5)),
)
def test_guessed_pictures_are_those_painted_code_by_code(images, stops, dtype, temperature, guidance):
    """Alone and several, of several prompts, in one stroke or in pieces, also behind a new prompt."""
    found = []
    for painter in painters(dtype, temperature):
        canvas = start(painter, [prompt for prompt, _ in images], [seed for _, seed in images], guidance)
        for stop in sorted(stops):
            canvas = painter.advance(canvas, stop)
            canvas = painter.recondition(canvas, Conditions([f"{p}s" for p in canvas.conditions.prompts], guidance))
        found.append(painter.advance(canvas))
    assert same(*found)
    assert found[0].work == found[1].work


@settings(max_examples=40, deadline=None)
@given(
    images=st.lists(
        st.tuples(st.sampled_from(PROMPTS), st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=6
    ),
    temperature=st.sampled_from((0.0, 0.1)),
)
def test_pictures_with_ways_of_their_own_guess_beside_each_other(images, temperature):
    found = []
    for painter in painters(torch.float32, temperature):
        begun = [painter.advance(start(painter, [p], [i]), min(a, b)) for i, (p, a, b) in enumerate(images)]
        found.append(painter.advance_together(begun, [max(a, b) for _, a, b in images]))
    for one, other in zip(*found, strict=True):
        assert (one.step, one.work) == (other.step, other.work)
        assert same(one, other) if one.cache else torch.equal(one.tokens, other.tokens)


def test_a_picture_takes_fewer_steps_than_codes():
    taken = []
    for painter in painters(torch.float32, 0.0):
        painter.steps_taken = 0
        painter.advance(start(painter, PROMPTS[:1], [0]))
        taken.append(painter.steps_taken)
    assert taken[1] == 15
    assert taken[0] <= 12


class Told(Followers):
    """Guesses by an answer that is known, up to every so many-th token, which is guessed wrong."""

    def __init__(self, rows: list[list[int]], wrong: int):
        super().__init__()
        self.rows, self.wrong, self.right = rows, wrong, 0

    def guesses(self, ids: list[int], most: int) -> list[int]:
        pairs = (row[i + 2 :] for row in self.rows for i in range(len(row)) if row[i : i + 2] == ids[-2:])
        found = next(pairs, [])[:most]
        return [token ^ 1 if (i + 1) % self.wrong == 0 else token for i, token in enumerate(found)]


@functools.cache
def answers(dtype: torch.dtype, temperature: float) -> list[list[int]]:
    """Without a guess: nothing is remembered."""
    eyes = JanusEyes(*toy_janus(dtype), rows=16, chunk=16)
    eyes.followers = Followers(0)
    return eyes.write_ids(TALKS, 20, temperature, range(len(TALKS)))


@settings(max_examples=30, deadline=None)
@given(
    asked=st.lists(st.sampled_from(range(len(TALKS))), min_size=1, max_size=8),
    dtype=st.sampled_from(TYPES),
    temperature=st.sampled_from((0.0, 1.0)),
    wrong=st.integers(1, 5),
)
def test_answers_do_not_depend_on_guesses(asked, dtype, temperature, wrong):
    """Right ones, wrong ones, and those that a model makes of what it has read."""
    expected = answers(dtype, temperature)
    for followers in (Told(expected, wrong), Followers(), Followers(30)):
        eyes = JanusEyes(*toy_janus(dtype), rows=16, chunk=16)
        eyes.followers = followers
        assert eyes.write_ids([TALKS[i] for i in asked], 20, temperature, asked) == [expected[i] for i in asked]


def test_what_followed_is_guessed_and_the_oldest_is_forgotten():
    followers = Followers(4)
    followers.read([1, 2, 3, 1, 2, 4, 5])
    assert followers.guesses([2, 4], 9) == [5]
    assert followers.guesses([3, 1], 9) == [2, 4, 5]
    assert followers.guesses([3, 1], 2) == [2, 4]
    assert followers.guesses([9, 9], 9) == []
    followers.read([6, 7, 8])
    assert followers.guesses([2, 3], 9) == [], "the oldest of five pairs"


@pytest.mark.parametrize("dtype", TYPES)
def test_attention_of_queries_that_came_together_is_that_of_each_alone(dtype):
    draw = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(3, heads, n, 16, generator=draw).to(dtype) for heads, n in ((4, 5), (2, 40), (2, 40))
    )
    seen = additive(torch.arange(40) <= torch.tensor([[20, 21, 22, 23, 24]] * 3)[:, None, :, None], dtype)
    found = each_alone(query, keys, values, bias_alone(seen, 4, 2))
    for token in range(5):
        at = slice(token, token + 1)
        assert torch.equal(found[:, at], fused(query[:, :, at], keys, values, seen[:, :, at]))
