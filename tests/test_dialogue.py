"""What is asked while painting and how answers are read; schedules of regions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.dialogue import dialogues, fill, read_critique, read_official_critique
from reverie.schedule import bands, blocks, explicit, read_ratios

# --- Schedules.


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=24), st.sampled_from([(24, 24), (30, 4), (24, 1)]))
def test_bands_cover_the_canvas_in_whole_rows(ratios, canvas):
    rows, row = canvas
    ends = bands(ratios, rows * row, row)
    assert len(ends) == len(ratios)
    assert ends[-1] == rows * row
    assert all(end % row == 0 for end in ends)
    assert all(a < b for a, b in zip((0, *ends), ends, strict=False))


def test_uniform_bands_are_the_published_ones_where_rows_allow():
    for count in (1, 2, 3, 4, 6, 8, 12, 24):
        assert bands([1] * count, 576, 24) == blocks(count, 576) == tuple(range(576 // count, 577, 576 // count))
    assert blocks(3, 25) == (8, 16, 25)
    assert bands([1] * 5, 576, 24) == tuple(24 * row for row in (5, 10, 14, 19, 24))
    assert bands([2, 1, 1], 576, 24) == (288, 432, 576)
    with pytest.raises(ValueError, match="24 rows"):
        bands([1] * 25, 576, 24)


@given(st.text())
def test_any_answer_is_ratios_or_nothing(answer):
    for text in (answer, f"RATIOS: {answer}"):
        ratios = read_ratios(text, 12)
        assert ratios is None or (1 <= len(ratios) <= 12 and all(ratio > 0 for ratio in ratios))


@given(
    st.lists(st.integers(1, 100), min_size=2, max_size=12), st.sampled_from([":", ", ", " / ", "; ", "-", "% : "]),
    st.sampled_from(["RATIOS: {}", "{}", "**Ratios:** {} because", "I think.\nratio = [{}]", "RATIOS: ({})."]),
)  # fmt: skip
def test_ratios_are_read_in_the_forms_that_models_use(ratios, between, form):
    assert read_ratios(form.format(between.join(map(str, ratios))), 12) == tuple(ratios)
    assert read_ratios(form.format(between.join(map(str, [*ratios, 0]))), 13) is None
    assert read_ratios(form.format(between.join(map(str, ratios))), len(ratios) - 1) is None


def test_heights_are_read_from_the_option():
    assert explicit("2:1.5") == (2, 1.5)
    assert explicit("uniform") is explicit("adaptive") is None


# --- Critiques.


@pytest.mark.parametrize(
    ("answer", "score", "revision"),
    [
        ("SCORE: 83\nIMPROVED_DESCRIPTION: A red cat.", 83, "A red cat."),
        ("score: 83.5/100\nimproved description: A red cat.", 83.5, "A red cat."),
        ("**SCORE:** [83]\n**IMPROVED_DESCRIPTION:** [A red cat.]", 83, "A red cat."),
        ("IMPROVED_DESCRIPTION: A red\n\ncat.\nSCORE: 3", 3, "A red cat."),
        ("3 of 5 are good. Score = 250\nIMPROVED_DESCRIPTION: x", 100, "x"),
        ("SCORE: -4\nIMPROVED_DESCRIPTION: x", 0, "x"),
        ("SCORE: 83", 83, ""),
        ("Yes.", 100, ""),
        ("No. There is no cat.", 0, "the thought"),
    ],
)
def test_critiques_are_read(answer, score, revision):
    read = read_critique(answer, "the thought")
    assert (read.score, read.revision, read.understood) == (score, revision, True)


def test_a_bare_no_counts_only_where_it_was_asked_for():
    assert not read_critique("No issues.").understood
    assert read_critique("No issues.").score == 100


@given(st.text(alphabet=st.sampled_from("SCOREscore:_ \n12345-.*IMPROVED_DESCRIPTION")) | st.text())
def test_any_critique_can_be_read(answer):
    assert 0 <= read_critique(answer, "thought").score <= 100
    assert read_official_critique(answer).score >= 0
    if not re.search(r"\d", answer) and not re.match(r"\W*no", answer, re.IGNORECASE):
        assert read_critique(answer, "thought").score == 100


def test_wordings_have_all_that_is_asked_for():
    for words in dialogues().values():
        values = dict.fromkeys(
            ("prompt", "thought", "written", "previous", "section", "number", "regions", "most"), "x"
        )
        for text in (words.first, words.next, words.blind, words.critique, words.critique_last, words.divide):
            assert "{" not in fill(text, values)
        assert "{prompt}" in words.first
        assert "{thoughts}" in words.painting or "{prompt}" in words.painting
