"""The studio's page in a real browser, over the real server and the shipped model."""

import io
import json
import shutil
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from reading import CONTRAST, nameless
from served import Served, serving
from tiny import tiny_folder

PAGES = ("generate", "edit", "context", "compare", "gallery", "reports", "nowhere")
RIDDLE = "the animal that gives us wool, beside what Newton saw fall"
SEARCH = {
    "prompt": "a red fish", "seed": 1, "choose": "prm", "candidates": 2, "judge_steps": 3, "judge": "atelier-inspector",
}  # fmt: skip
LONG = 180_000  # milliseconds that a run may take on a busy machine


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("the browser tests need Chromium, and there is none on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=flags)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def studio(browser, tmp_path_factory):
    """A running server, with a queue so short that it can be filled, and reports to read."""
    folder = tmp_path_factory.mktemp("studio")
    reports = write_reports(folder / "reports")
    with serving(folder, "atelier-janus", "--max-queue", "4", "--reports", str(reports)) as served:
        yield served


class Plain:
    """A painter of nothing, for an evaluation that takes no time."""

    name = "plain"

    def paint(self, prompts, seeds, plan):
        from PIL import Image

        from reverie.benchmarks.protocol import Painted

        return [Painted(Image.new("RGB", (96, 96), "#88aadd")) for _ in prompts]


def write_reports(folder: Path) -> Path:
    """An evaluation of two pictures, and a training run of three steps with a sheet of samples."""
    from PIL import Image

    from reverie.benchmarks.harness import evaluate

    evaluate("atelier-wise", Plain(), folder / "wise", limit=2)
    (folder / "train").mkdir()
    rows = [{"step": step, "loss": 2.0 / step, "minutes": step} for step in (1, 2, 3)]
    (folder / "train" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (192, 96), "#88aadd").save(folder / "train" / "samples-000003.png")
    return folder


@pytest.fixture
def page(browser, studio):
    """A fresh browser at the studio's address; nothing may go wrong in it, or be asked of anybody else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    opened, asked, wrong = context.new_page(), [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.set_default_timeout(10_000)
    yield opened
    context.close()
    assert not wrong
    elsewhere = {urlsplit(url).netloc for url in asked} - {urlsplit(studio.address).netloc, ""}
    assert not elsewhere, f"asked {elsewhere}"


@cache
def finished(studio: Served, **request: object) -> str:
    """Runs something to its end, once, and returns its id."""
    run = studio.run(**request)
    assert studio.wait(run, LONG / 1000)["state"] == "done"
    return run


def visit(page, studio: Served, *way: str) -> None:
    page.goto(f"{studio.address}/#/{'/'.join(way)}")
    page.locator("h1").wait_for()


def state(page, word: str) -> None:
    page.locator(f".watched .pulse.{word}").wait_for(timeout=LONG)


def told(page) -> None:
    """Waits until a finished run is there with all its events."""
    page.locator(".caption", has_text="Done in").wait_for()


def shown(page, place: str) -> None:
    """Waits until a picture is really there: 96 pixels wide, each drawn as a whole number of the screen's."""
    page.wait_for_function(
        "place => { const i = document.querySelector(place); return i && i.complete && i.naturalWidth === 96 "
        "&& i.clientWidth % 96 === 0 && i.clientWidth > 96 }",
        arg=place,
        timeout=LONG,
    )


def test_generate_shows_the_thought_the_picture_and_the_same_without_thinking(page, studio):
    visit(page, studio, "generate")
    page.get_by_role("button", name=RIDDLE).click()
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Paint").click()
    page.locator(".thought-text", has_text="sheep").wait_for(timeout=LONG)
    assert page.get_by_role("progressbar").is_visible()
    state(page, "done")
    assert page.locator(".rewritten").inner_text().endswith("“a sheep and an apple”")
    shown(page, ".canvases figure:nth-child(1) img")
    shown(page, ".canvases figure:nth-child(2) img")
    first, second = (page.locator(f".canvases figure:nth-child({i}) img").get_attribute("src") for i in (1, 2))
    assert first != second
    page.get_by_role("link", name="The whole story").click()
    replay(page)


def replay(page) -> None:
    """The run that was just watched, told again from its trace."""
    told(page)
    slider = page.get_by_role("slider")
    shown(page, ".canvases figure:nth-child(2) img")
    slider.press("Home")
    assert page.locator(".caption").inner_text().endswith("Begins")
    assert page.locator(".canvases figure:nth-child(1) img").count() == 0
    slider.press("ArrowRight")
    assert "Thinks" in slider.get_attribute("aria-valuetext")
    words = page.locator(".thought-text").inner_text()
    page.get_by_role("button", name="One event on").click()
    assert page.locator(".thought-text").inner_text() != words, "the thought grows"
    page.get_by_role("button", name="Play").click()
    page.locator(".canvases figure:nth-child(1) img").wait_for()  # it has come as far as the painting by itself
    page.get_by_role("button", name="Pause").click()
    slider.press("End")
    recipe = page.get_by_role("tabpanel")
    assert "--preset t2g --seed 7" in recipe.inner_text()
    page.get_by_role("tab", name="Command line").press("ArrowRight")
    assert "reverie.load('atelier-janus')" in recipe.inner_text()


def test_candidates_are_a_tree_that_arrow_keys_walk(page, studio):
    visit(page, studio, "run", finished(studio, **SEARCH))
    told(page)
    nodes = page.locator(".tree [data-node]")
    page.locator(".leaf image").wait_for()
    assert nodes.count() == 6, "two candidates, three looks"
    assert page.locator(".edge.kept").count() == 4, "a way from the root to the leaf over the best of each look"
    nodes.nth(0).focus()
    page.keyboard.press("ArrowDown")
    about = page.locator(".tree-about p")
    assert about.inner_text().startswith("Candidate 2, step 48: score")
    page.keyboard.press("ArrowRight")
    assert about.inner_text().startswith("Candidate 2, step 96: score")


def test_regions_are_thought_about_and_judged(page, studio):
    visit(page, studio, "run", finished(studio, prompt="a red fish below a boat", preset="twig", seed=7))
    told(page)
    assert page.locator(".moment.thought").count() >= 3
    assert page.locator(".moment.critique").count() >= 3
    slider = page.get_by_role("slider")
    slider.press("Home")
    slider.press("ArrowRight")
    assert page.locator(".region").count() == 3
    assert page.locator(".region.now b").inner_text() == "1"


def test_cancel_works_at_once_by_keyboard(page, studio):
    visit(page, studio, "generate")
    page.get_by_label("Think while painting").check()
    page.get_by_label("Pictures").fill("4")
    page.get_by_label("beside it").uncheck()
    page.get_by_label("What shall be seen?").fill("three blue cats")
    page.get_by_label("What shall be seen?").press("Enter")
    page.get_by_role("button", name="Cancel").press("Enter")
    began = time.monotonic()
    state(page, "cancelled")
    assert time.monotonic() - began < 1
    run = page.get_by_role("link", name="The whole story").get_attribute("href").split("/")[-1]
    assert studio.wait(run)["state"] == "cancelled"


def test_an_error_is_told_kindly_and_keeps_what_was_typed(page, studio):
    visit(page, studio, "generate")
    page.get_by_label("What shall be seen?").fill("a unicorn")
    page.get_by_role("radio", name="Choose", exact=True).check()
    page.get_by_label("Judge", exact=True).select_option("atelier-inspector")
    page.get_by_role("button", name="Paint").click()
    assert "I do not know the word 'unicorn'" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("What shall be seen?").input_value() == "a unicorn"
    visit(page, studio, "run", "no-such-run")
    assert "no run" in page.get_by_role("alert").inner_text()


def fill(studio: Served, **request: object) -> list[str]:
    """Asks for runs until the studio takes no more; their ids."""
    runs = []
    for _ in range(99):
        status, answer = studio.ask("POST", "/api/runs", request)
        if status == 429:
            return runs
        runs.append(answer["id"])
    raise AssertionError("the queue has no end")


def test_a_busy_studio_is_waited_for(page, studio):
    visit(page, studio, "generate")
    runs = fill(studio, prompt="three blue cats", preset="twig", n=2)
    page.get_by_label("As it stands").check()
    page.get_by_label("What shall be seen?").fill("a red fish")
    page.get_by_role("button", name="Paint").click()
    page.locator(".status-words", has_text="The studio is busy. Trying again in").wait_for()
    for run in runs:
        studio.ask("POST", f"/api/runs/{run}/cancel")
    state(page, "done")
    shown(page, ".canvases img")


def test_a_studio_with_a_key_asks_for_it(browser, tmp_path):
    with serving(tmp_path, tiny_folder(tmp_path / "model"), "--key", "open sesame", ready=False) as served:
        page = browser.new_page()
        page.goto(served.address)
        page.get_by_label("Key").fill("open barley")
        page.get_by_role("button", name="Come in").click()
        assert "wrong" in page.get_by_role("alert").inner_text()
        page.get_by_label("Key").fill("open sesame")
        page.get_by_label("Key").press("Enter")
        page.get_by_label("What shall be seen?").wait_for()
        page.close()


def test_compare_paints_one_prompt_under_several_plans(page, studio):
    visit(page, studio, "compare")
    page.get_by_label("What shall be seen?").fill("what a caterpillar becomes")
    page.get_by_label("Think while painting").uncheck()
    page.get_by_label("Seed").fill("5")
    page.get_by_role("button", name="Compare").click()
    page.locator(".column .pulse.done").nth(1).wait_for(timeout=LONG)
    shown(page, ".column:nth-child(1) img")
    shown(page, ".column:nth-child(2) img")
    assert page.locator(".column h2").all_inner_texts() == ["As it stands", "Think first"]
    page.locator(".column:nth-child(2)").get_by_role("link", name="The whole story").click()
    page.get_by_role("slider").wait_for()
    page.locator(".canvases figure").nth(1).wait_for(timeout=LONG)  # asked for apart
    assert page.locator(".canvases figure").count() == 2


def test_edit_takes_a_picture_and_shows_it_before_and_after(page, studio, tmp_path):
    from PIL import Image

    visit(page, studio, "edit")
    assert page.get_by_role("button", name="Edit").is_disabled()
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    page.get_by_label("The picture").set_input_files(tmp_path / "broken.png")
    assert "cannot be read as a picture" in page.get_by_role("alert").inner_text()
    Image.new("RGB", (96, 96), "#88aadd").save(tmp_path / "sky.png")
    page.get_by_label("The picture").set_input_files(tmp_path / "sky.png")
    page.locator(".dropper small", has_text="96 × 96").wait_for()
    page.get_by_label("What shall become of it?").fill("a red fish in the middle")
    page.get_by_label("As it stands").check()
    with page.expect_request(lambda request: request.url.endswith("/api/runs")) as sent:
        page.get_by_role("button", name="Edit").click()
    asked = json.loads(sent.value.post_data)
    assert (asked["kind"], asked["prompt"]) == ("edit", "a red fish in the middle")
    upload = studio.ask("GET", f"/api/uploads/{asked['picture']}.png")[1]
    assert Image.open(io.BytesIO(upload)).getpixel((0, 0)) == (0x88, 0xAA, 0xDD)
    state(page, "done")
    shown(page, ".canvases figure:nth-child(1) img")
    shown(page, ".canvases figure:nth-child(2) img")
    captions = page.locator(".canvases figcaption").all_inner_texts()
    assert [caption.split()[0] for caption in captions] == ["Before", "After"]


def test_parts_of_a_context_are_put_in_order_by_keyboard(page, studio, tmp_path):
    from PIL import Image

    Image.new("RGB", (96, 96), "#88aadd").save(tmp_path / "sky.png")
    visit(page, studio, "context")
    page.get_by_label("Picture", exact=True).first.set_input_files(tmp_path / "sky.png")
    page.locator(".dropper.full").wait_for()
    page.get_by_role("textbox", name="Words").first.fill("the sky")
    page.get_by_role("button", name="Part 1 of 4, picture: move").press("ArrowDown")
    page.get_by_role("button", name="Part 2 of 4, picture: move").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Part 2 of 4, picture: move"
    page.get_by_role("button", name="Remove part 4").click()
    page.get_by_label("And now?").fill("a red fish")
    with page.expect_request(lambda request: request.url.endswith("/api/runs")) as sent:
        page.get_by_role("button", name="Paint", exact=True).click()
    context = json.loads(sent.value.post_data)["context"]
    assert context[0] == {"text": "the sky"}
    assert list(context[1]) == ["image"]
    state(page, "done")
    shown(page, ".canvases img")


def test_the_gallery_finds_and_deletes(page, studio):
    run = studio.run(prompt="a purple kite over a hill")
    studio.ask("POST", f"/api/runs/{run}/cancel")
    visit(page, studio, "gallery")
    card = page.locator(".card", has_text="a purple kite over a hill")
    card.wait_for()
    page.get_by_label("Search in prompts").fill("nothing like this")
    page.get_by_text("Nothing here matches.").wait_for()
    page.get_by_label("Search in prompts").fill("kite purple")
    card.get_by_role("link").wait_for()
    assert page.locator(".card").count() == 1
    page.get_by_role("button", name="Delete: a purple kite over a hill").click()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Delete: a purple kite over a hill").click()
    page.get_by_role("button", name="Delete it").click()
    page.get_by_text("Nothing here matches.").wait_for()
    assert studio.ask("GET", f"/api/runs/{run}")[0] == 404


def test_reports_are_tables_with_intervals_pictures_and_curves(page, studio):
    visit(page, studio, "reports")
    page.get_by_role("link", name="wise").click()
    page.get_by_role("heading", name="atelier-wise").wait_for()
    overall = page.get_by_role("row", name="overall")
    assert "0.000 to 0." in overall.inner_text()
    shown(page, ".judged img")
    page.get_by_label("Show").select_option("right")
    assert page.locator(".judged").count() == 0, "a painter of nothing is never right"
    visit(page, studio, "reports", "0", "train")
    assert page.get_by_role("img", name="loss: 2 at step 1, 0.6667 at step 3").count() == 1
    page.wait_for_function("() => document.querySelector('.sheets img')?.naturalWidth === 192")


def test_the_way_by_keyboard(page, studio):
    visit(page, studio, "generate")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the page"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.get_by_label("Think first").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Think, keep the words").is_checked()
    outline = "getComputedStyle(document.querySelector('input:focus-visible + span')).outlineStyle"
    assert page.evaluate(outline) == "solid", "what has the focus can be seen"
    theme = page.get_by_role("button", name="Colours")
    theme.press("Enter")
    theme.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark", "the choice is kept"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_page_on_a_phone_can_be_read_and_named(browser, studio, colours):
    """360 pixels wide: nothing sticks out, contrast is that of WCAG AA, everything has a name, one h1, unique ids."""
    run = finished(studio, **SEARCH)
    context = browser.new_context(viewport={"width": 360, "height": 760}, color_scheme=colours)
    page = context.new_page()
    for way in (*[(name,) for name in PAGES], ("run", run)):
        visit(page, studio, *way)
        page.wait_for_load_state("networkidle")
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{way} is wider than the phone"
        assert page.evaluate(CONTRAST) == [], f"{way}, {colours}"
        assert nameless(page) == [], way
        assert page.locator("h1").count() == 1
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
        assert all(after <= before + 1 for before, after in pairwise(levels)), f"{way}: {levels}"
        assert page.locator("main, nav").count() == 2
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids)), f"{way}: an id stands twice"
    context.close()
