"""The table out of pools: its choices are those of choose.py, and a judge that is asked in batches says the same."""

import math
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus
from PIL import Image
from test_vlm_training import SIZES, vlm  # noqa: F401

from reverie.canvas import Conditions, Work
from reverie.choose import STRATEGIES, Search, Task, look_steps
from reverie.events import Preview
from reverie.generators.janus import JanusPainter
from reverie.judges import Answer, View
from reverie.judges.manner import Manner
from reverie.judges.moved import views_of
from reverie.judges.rules import GREEDY
from reverie.judges.vlm import VLMJudge, Wording
from reverie.training.judge import Example
from reverie.training.qwen_judge import QuickJudge, QwenStudent
from reverie.training.verify_table import best_of, first, looking_back, oracle, prune
from reverie.vlms import Message

LOOKS, N = 4, 5
MODEL, WORDS = toy_janus()


@dataclass
class Scripted:
    """Answers from a pool's numbers; a picture is known by the candidate that it is of, in the order of painting."""

    numbers: dict[str, np.ndarray]
    name: str = "scripted"
    work: Work = field(default_factory=Work)
    asked: int = 0
    rows: dict[bytes, int] = field(default_factory=dict)

    def check(self, prompt: str) -> None: ...

    def ask(self, question: str, views: list[View]) -> list[Answer]:
        self.asked += len(views)
        found = []
        for view in views:
            row = self.rows[view.picture.tobytes()]
            numbers = self.numbers[f"j/{question}"][0, row]
            yes = float(numbers if question == "orm" else numbers[round(view.painted * LOOKS) - 1])
            found.append(Answer(yes, 1 - yes, "yes" if yes >= 0.5 else "no"))
        return found


def kept(strategy: str, numbers: dict[str, np.ndarray], first_look: int) -> tuple[int, int]:
    """Which candidate choose.py keeps, and how many questions it asked."""
    painter, judge = JanusPainter(MODEL, WORDS, guidance=1.0), Scripted(numbers)
    looks = look_steps(painter.steps, LOOKS)
    canvas = painter.start(Conditions(("a cat",)), (7,)).fork(N)
    for look in looks:
        canvas = painter.advance(canvas, to=look)
        judge.rows |= {Image.fromarray(p).tobytes(): row for row, p in enumerate(painter.preview(canvas))}
    assert len(judge.rows) == N * LOOKS, "every preview is different"
    search = Search(painter, judge, GREEDY, N, looks, first_look, batch=64)
    task = Task(Conditions(("a cat",)), (7,), ("a cat",), (0,))
    program = STRATEGIES[strategy](search, task, lambda done, shown: Preview(0, 1))
    while True:
        try:
            next(program)
        except StopIteration as end:
            return end.value[0][0].candidate, judge.asked


tenths = st.integers(0, 10).map(lambda tenth: tenth / 10)


@settings(max_examples=25, deadline=None)
@given(st.lists(tenths, min_size=N * (2 * LOOKS + 1), max_size=N * (2 * LOOKS + 1)), st.booleans(), st.integers(1, 3))
def test_choices_and_questions_are_those_of_choose(drawn: list[float], dark: bool, look: int):
    values = np.array(drawn).reshape(1, N, 2 * LOOKS + 1)
    clarity = values[:, :, :LOOKS] * (0.4 if dark else 1.0)  # in the dark nothing is ever clear
    numbers = {"right": np.zeros((1, N)), "j/orm": values[:, :, -1], "j/clarity": clarity}
    numbers["j/potential"] = values[:, :, LOOKS : 2 * LOOKS]
    for strategy, choice in (("parm", prune(numbers, "j", first_look=look)), ("orm", best_of(numbers, "j"))):
        assert (choice.kept[0], choice.asked[0]) == kept(strategy, numbers, look)


def test_what_a_choice_costs_in_paintings():
    """Two looks. One path is stopped at the first, one at the second, one goes through."""
    numbers = {"right": np.array([[0, 1, 0.0]]), "j/orm": np.array([[0.9, 0.1, 0.8]])}
    numbers["j/clarity"] = np.array([[[1, 1], [0, 1], [1, 1.0]]])
    numbers["j/potential"] = np.array([[[0.2, 1], [1, 0.3], [0.7, 0.7]]])
    choice = prune(numbers, "j")
    assert (choice.kept[0], choice.painted[0]) == (2, 0.5 + 1 + 1)
    assert choice.asked[0] == (1 + 2 + 1) + 3, "clarity, potential; a lone survivor is not scored"
    numbers["j/potential"] = np.zeros((1, 3, 2)) + np.array([[[0.2], [0.1], [0.4]]])
    choice = prune(numbers, "j")
    assert (choice.kept[0], choice.painted[0]) == (2, 0.5 + 1 + 0.5 + 0.5), "the best of the rejected is resumed"
    assert (best_of(numbers, "j").kept[0], oracle(numbers).kept[0], first(numbers).kept[0]) == (0, 1, 0)


def test_who_is_refused_is_chosen_anew_and_the_best_is_kept():
    orm = np.array(
        [[0.2, 0.9, 0.1, 0.8, 0.7], [0.3, 0.4, 0.1, 0.2, 0.45], [0.1, 0.2, 0.6, 0.3, 0.99], [0.2, 0.4, 0.1, 0.3, 0.2]]
    )
    numbers = {"right": np.zeros((4, 5)), "j/orm": orm}
    found = looking_back(lambda n: best_of(n, "j", 3), "j", 2)(numbers)
    assert found.kept.tolist() == [1, 4, 2, 1]
    assert found.painted.tolist() == [2, 5, 4, 5]
    assert found.asked.tolist() == [6, 12, 12, 12], "nobody is asked about one that is alone"


@pytest.fixture
def student(vlm) -> QwenStudent:  # noqa: F811
    found = QwenStudent(vlm)
    found.model.eval()
    return found


def views(count: int) -> list[View]:
    rng = np.random.default_rng(0)
    names = ["a red cat", "two blue dogs beside a very green tree"]
    pixels = [rng.integers(0, 255, (96, 96, 3), np.uint8) for _ in range(count)]
    return [View(names[i % 2], Image.fromarray(p)) for i, p in enumerate(pixels)]


def test_a_judge_in_batches_says_what_it_says_one_by_one(student):
    shown, wording = views(5), Wording.of("instruct")
    quick, slow = QuickJudge(student, wording, "quick"), VLMJudge(student.vlm, wording)
    for question in ("orm", "clarity", "potential", "prm"):
        fast = quick.ask(question, shown)
        plain = slow.ask(question, shown)
        for one, other in zip(fast, plain, strict=True):
            assert one.yes / (one.yes + one.no) == pytest.approx(other.yes / (other.yes + other.no), abs=1e-4)
    assert quick.ask("orm", []) == []


def test_a_judge_looks_at_finished_pictures_from_all_places_and_says_the_mean(student):
    shown, wording = views(3), Wording.of("instruct")
    manner = Manner(moves=2)
    once, quick = VLMJudge(student.vlm, wording), QuickJudge(student, wording, "quick", manner=manner)
    slow = VLMJudge(student.vlm, wording, manner=manner)
    each = [once.ask("orm", list(seen)) for seen in zip(*(views_of(view, 2) for view in shown), strict=True)]
    odds = [np.mean([math.log(one[row].yes / one[row].no) for one in each]) for row in range(3)]
    for judge in (quick, slow):
        told = [math.log(one.yes / one.no) for one in judge.ask("orm", shown)]
        assert told == pytest.approx(odds, abs=1e-3)
        plain = [one.yes for one in judge.ask("potential", shown)]
        assert plain == pytest.approx([one.yes for one in once.ask("potential", shown)], abs=1e-4), "unfinished: once"
    picture = np.asarray(views_of(shown[0], 1)[1].picture)
    assert (picture[2:, 2:] == np.asarray(shown[0].picture)[:-2, :-2]).all()
    assert views_of(shown[0], 0) == [shown[0]]


def test_a_lenient_judge_gives_up_only_what_is_surely_wrong(student):
    shown, wording, manner = views(4), Wording.of("instruct"), Manner(lenient=1.5)
    strict = VLMJudge(student.vlm, wording)
    quick, slow = QuickJudge(student, wording, "quick", manner=manner), VLMJudge(student.vlm, wording, manner=manner)
    plain = strict.ask("potential", shown)
    for judge in (quick, slow):
        for one, other in zip(plain, judge.ask("potential", shown), strict=True):
            gained = math.log(other.yes / other.no) - math.log(one.yes / one.no)
            assert gained == pytest.approx(1.5, abs=1e-3)
            assert other.yes + other.no == pytest.approx(one.yes + one.no, rel=1e-3)
        for question in ("orm", "clarity"):
            same = [one.yes for one in judge.ask(question, shown)]
            assert same == pytest.approx([one.yes for one in strict.ask(question, shown)], rel=1e-3)
    official = VLMJudge(student.vlm, wording, official=True, manner=manner)
    assert official.ask("potential", shown) == VLMJudge(student.vlm, wording, official=True).ask("potential", shown)


def test_a_strict_judge_refuses_more_finished_pictures_and_ranks_them_alike(student):
    shown, wording = views(4), Wording.of("instruct")
    plain = VLMJudge(student.vlm, wording)
    odds = sorted(math.log(one.yes / one.no) for one in plain.ask("orm", shown))
    manner = Manner(strict=max(0.5, odds[-1] + 0.5))
    for judge in (QuickJudge(student, wording, "quick", manner=manner), VLMJudge(student.vlm, wording, manner=manner)):
        for one, other in zip(plain.ask("orm", shown), judge.ask("orm", shown), strict=True):
            lost = math.log(one.yes / one.no) - math.log(other.yes / other.no)
            assert lost == pytest.approx(manner.strict, abs=1e-3)
        assert not any(one.aligned for one in judge.reflect(shown))
        for question in ("potential", "clarity"):
            same = [one.yes for one in judge.ask(question, shown)]
            assert same == pytest.approx([one.yes for one in plain.ask(question, shown)], rel=1e-3)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"moves": 9}, "here: moves is 9; it is 0 to 4."),
        ({"moves": True}, "here: moves is True"),
        ({"lenient": -1}, "here: lenient is -1; it is a number of nats"),
        ({"lenient": "much"}, "here: lenient is 'much'"),
        ({"strict": -2}, "here: strict is -2; it is a number of nats"),
        ({"clear_from": 1.5}, "here: clear_from is 1.5; it is a share"),
        ({"reasons": "no"}, "here: reasons is 'no'; it is true or false."),
    ],
)
def test_a_manner_that_cannot_be_is_refused_in_one_sentence(said, sentence):
    with pytest.raises(ValueError, match="^" + sentence):
        Manner.of(said, "here")
    assert Manner.of({"judge": "atelier", "adapter": {}}, "here") == Manner()


def test_the_loss_is_that_of_the_answer_as_it_is_asked(student):
    """-log P(yes) of the first token, read by transformers' own forward pass; the end token behind it counts too."""
    one = views(1)[0]
    talk = (Message("user", f"Does this picture show {one.prompt}?", (one.picture,)),)
    rows = student.rows([Example(talk, "yes")])
    answer = student.words.encode("yes<|im_end|>", add_special_tokens=False)
    assert rows["carries"].sum() == len(answer)
    inputs = student.vlm.inputs([list(talk)])
    ids = torch.cat((inputs["input_ids"], torch.tensor([answer])), 1)
    kinds = {"mm_token_type_ids": torch.cat((inputs["mm_token_type_ids"], torch.zeros(1, len(answer)).int()), 1)}
    kinds = kinds if "mm_token_type_ids" in inputs else {}
    whole = student.model(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"],
        image_grid_thw=inputs["image_grid_thw"], **kinds,
    ).logits[0].log_softmax(-1)  # fmt: skip
    told = whole[-len(answer) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    torch.testing.assert_close(student.loss(rows), -told.mean(), atol=1e-4, rtol=0)


def test_it_learns_to_tell_pictures_apart_and_padding_does_not_matter(student):
    light, dark = (Image.new("RGB", (96, 96), (grey,) * 3) for grey in (220, 30))
    examples = [
        Example((Message("user", text, (picture,)),), answer)
        for text in ("Is it light?", "Does this picture, or what there is of it, look light?")
        for picture, answer in ((light, "yes"), (dark, "no"))
    ]
    alone = torch.stack([student.loss(student.rows([one])) for one in examples])
    counts = torch.tensor([float(student.rows([one])["carries"].sum()) for one in examples])
    together = student.loss(student.rows(examples))
    torch.testing.assert_close(together, (alone * counts).sum() / counts.sum(), atol=1e-5, rtol=0)
    optimizer = torch.optim.Adam(student.model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        student.loss(student.rows(examples)).backward()
        optimizer.step()
    assert student.loss(student.rows(examples)) < 0.1


def test_a_pool_goes_through_a_file_and_becomes_rows(tmp_path):
    """With a judge that always knows, ORM and PARM reach the oracle, and PARM paints less for it."""
    from reverie.training.verify_pool import save
    from reverie.training.verify_table import Pool, differences, draw, removed, rows

    rng = np.random.default_rng(1)
    prompts = 553 // 50 + 1
    right = rng.integers(0, 2, (prompts, 6)).astype(float)
    pool = {"right": right, "j/orm": right * 0.5 + 0.25, "j/clarity": np.ones((prompts, 6, 3))}
    pool["j/potential"] = right[..., None] * np.ones(3)
    save(pool, {"every": 50, "flops": {"painting": 10.0, "question": 1.0}}, tmp_path / "pool.npz")
    made = {(row.name, row.n): row for row in rows(Pool(tmp_path / "pool.npz"), ["j"], [3, 6])}
    table = Pool(tmp_path / "pool.npz")
    better = {(row.name, row.n): by for row, by in differences(table, [*made.values()], [*made.values()], "one")}
    assert better["ORM j", 6].mean == pytest.approx(made["ORM j", 6].overall.mean - made["one", 1].overall.mean)
    assert better["ORM j", 6].low > 0
    with pytest.raises(ValueError, match="no row 'two'"):
        differences(table, [*made.values()], [*made.values()], "two")
    base = made["one", 1]
    assert base.overall.mean == pytest.approx(np.mean([np.mean(list(base.tasks.values()))]), abs=1e-3)
    for n in (3, 6):
        assert made["ORM j", n].overall.mean == made["PARM j", n].overall.mean == made["oracle", n].overall.mean
        assert made["ORM j", n].cost == pytest.approx(n + 0.1 * n)
        assert made["PARM j", n].cost < n
    assert 0 < removed(made["oracle", 3], base) < removed(made["oracle", 6], base) <= 1
    told = {"runs/pool.npz": [row.to_json() for row in made.values()]}
    for against in ("n", "cost"):
        draw(told, tmp_path / "curves.svg", against)
        shown = ElementTree.parse(tmp_path / "curves.svg").getroot()
        names = [text.text for text in shown.iter("{http://www.w3.org/2000/svg}text")]
        assert {"ORM j", "PARM j", "oracle"} <= set(names)
        assert len(list(shown.iter("{http://www.w3.org/2000/svg}polyline"))) == 2 * 3


def test_parts_of_a_pool_come_back_in_the_order_of_the_prompts(tmp_path):
    from reverie.training.verify_pool import save
    from reverie.training.verify_table import Pool

    right = np.arange(12 * 2).reshape(12, 2) % 2
    for part in range(3):
        save({"right": right[part::3]}, {"every": 50, "part": part, "parts": 3}, tmp_path / f"{part}.npz")
    pool = Pool(*(tmp_path / f"{part}.npz" for part in (2, 0, 1)))
    assert np.array_equal(pool.numbers["right"], right)
    with pytest.raises(ValueError, match="all of them"):
        Pool(tmp_path / "0.npz", tmp_path / "2.npz")


def test_judges_that_are_added_later_say_what_they_would_have_said_at_once(student, tmp_path):
    """On the pictures of all looks that were kept; no look is asked about before a judge may say clear."""
    from reverie.atelier.inspector import Inspector
    from reverie.benchmarks.atelier_geneval import samples
    from reverie.training.recipes import shipped
    from reverie.training.verify_pool import add, fill, save

    judge = QuickJudge(student, Wording.of("atelier"), "j", manner=Manner(clear_from=0.5))
    painter, chosen, kept = JanusPainter(MODEL, WORDS, guidance=1.0), samples()[::300], []
    inspector = Inspector.load(shipped("atelier-inspector"))
    settings = {"looks": LOOKS, "batch": 3, "seed": 0, "device": "cpu", "kept": kept}
    pool = fill(painter, {"j": judge}, inspector, chosen, 2, **settings)
    assert pool["j/clarity"].shape == (2, 2, LOOKS)
    assert (pool["j/clarity"][:, :, :1] == 0).all()
    assert (pool["j/clarity"][:, :, 1:] > 0).all()
    save(pool, {"every": 300, "looks": LOOKS}, tmp_path / "pool.npz")
    pictures = np.concatenate(kept)
    assert pictures.shape[:2] == (4, LOOKS - 1)
    np.save(tmp_path / "pictures.npy", pictures)
    add(tmp_path / "pool.npz", tmp_path / "pictures.npy", {"k": judge}, chosen, "cpu")
    with np.load(tmp_path / "pool.npz") as file:
        for question in ("orm", "clarity", "potential"):
            np.testing.assert_allclose(file[f"k/{question}"], file[f"j/{question}"], atol=1e-3)
    np.save(tmp_path / "pictures.npy", pictures[:3])
    with pytest.raises(ValueError, match="holds 3 images"):
        add(tmp_path / "pool.npz", tmp_path / "pictures.npy", {"k": judge}, chosen, "cpu")
