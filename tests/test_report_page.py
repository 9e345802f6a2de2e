"""The report of a run in a real browser: it stands alone, its numbers are those of scores.json, its filters filter."""

from __future__ import annotations

import pytest
from benchmark_toys import Toy, data_of
from browser import page

from reverie.benchmarks.harness import evaluate
from reverie.benchmarks.page import chosen, histogram
from reverie.benchmarks.protocol import Benchmark, Judgement, Row, Sample

TASKS = ("sheep", "<b>boats</b>", "night & day")


class Eye:
    name = "eye"

    def look(self, images):
        return images


def little():
    """Scores from 0 to 1 by the number of the sample; texts that would break a page that does not escape them."""
    samples = [Sample(f"{n}", f'prompt "{n}" </main>', TASKS[n % 3], {}, f"{n}") for n in range(60)]
    return Benchmark(
        "little", "1", samples, 1, lambda sample, image: Judgement(int(sample.id) / 59, "why <i>not</i>", "a 'thing'"),
        lambda sample, index: f"{sample.id}.png", lambda sample: None, "strata",
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    scores = evaluate(little(), Toy(), tmp_path / "out", judge=Eye())
    return tmp_path / "out" / "report.html", scores


def test_the_page_in_a_browser(run, tmp_path):
    file, scores = run
    alone = tmp_path / "alone" / "report.html"
    alone.parent.mkdir()
    alone.write_bytes(file.read_bytes())
    with page() as view:
        view.goto(alone.as_uri())
        assert [url for url in view.asked if not url.startswith("data:")] == [alone.as_uri()]
        assert "little 1" in view.title()
        assert f"{scores['overall']['mean']:.3f}" in view.inner_text(".big")
        assert view.locator("#scores tbody tr").count() == len(scores["scores"])
        for name, entry in scores["scores"].items():
            line = view.locator("#scores tbody tr").filter(has=view.get_by_text(name, exact=True)).first.inner_text()
            assert f"{entry['mean']:.3f}" in line
            assert f"{entry['low']:.3f} to {entry['high']:.3f}" in line
        cards = view.locator("article:visible")
        everything = cards.count()
        assert everything == 60
        loaded = view.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert loaded, "every picture is in the page"
        view.select_option("#tag", TASKS[1])
        assert cards.count() == 20
        assert all(TASKS[1] in text for text in cards.locator("footer").all_inner_texts())
        for kind, first in (("worst", "0.02"), ("best", "0.98")):
            view.select_option("#kind", kind)
            assert cards.count() == 10
            assert cards.locator(".badge").first.inner_text() == first
        view.select_option("#kind", "")
        view.fill("#word", 'prompt "4"')
        assert cards.count() == 1
        assert "thought of" in cards.first.inner_text()
        view.fill("#word", "")
        view.locator("#scores button").nth(2).click()
        assert view.input_value("#tag") == TASKS[2]
        assert f"{cards.count()} of {everything}" in view.inner_text("#count")


def test_light_and_dark_and_narrow(run):
    file, _ = run
    colours = {}
    for scheme in ("light", "dark"):
        with page(width=390, height=800, scheme=scheme) as view:
            view.goto(file.as_uri())
            look = "e => { const s = getComputedStyle(e); return [s.backgroundColor, s.color] }"
            colours[scheme] = view.locator("body").evaluate(look)
            wide = view.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, "nothing sticks out on a telephone"
            view.click("#theme")
            colours[f"not {scheme}"] = view.locator("body").evaluate(look)
    assert colours["light"] == colours["not dark"] != colours["dark"] == colours["not light"]


def test_what_the_painter_was_given_is_shown(tmp_path):
    from reverie.vlms.remembering import Remembering

    class Tester:
        def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
            return ["3"] * len(conversations)

    judge = Remembering(Tester, "tester", tmp_path / "answers")
    data = data_of("cobsat-2", tmp_path / "data")
    evaluate("cobsat-2", Toy(), tmp_path / "out", data=data, limit=10, judge=judge)
    with page() as view:
        view.goto((tmp_path / "out" / "report.html").as_uri())
        assert view.locator("article").count() == 10
        assert view.locator("article .given img").count() == 20


# ---------------------------------------------------------------------------------------------- without a browser


def _row(number, tag, score):
    return Row(f"{number}", 0, tag, "", "", None, None, 0, "x.png", "", "scored", score, "", "", None, ())


def test_the_best_the_worst_and_some_others():
    rows = [_row(n, "ab"[n % 2], n / 999) for n in range(1000)]
    cases = chosen(rows)
    for tag, lowest, highest in (("a", "0", "998"), ("b", "1", "999")):
        kinds = {row.id: names for row, names in cases if row.tag == tag}
        assert "worst" in kinds[lowest]
        assert "best" in kinds[highest]
        others = [int(name) for name, names in kinds.items() if names == ("random",)]
        assert min(others) < 300 < 700 < max(others)
    assert len(cases) < 150
    assert chosen(rows) == cases
    assert chosen([]) == []


def test_histogram_counts_everything():
    drawn = histogram([0.0, 0.04, 0.5, 1.0, 1.0])
    assert [int(part.split(" images")[0]) for part in drawn.split("<title>")[1:]] == [2, 1, 2]
    assert histogram([]) == ""
