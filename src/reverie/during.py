"""Thinking while painting: a thought before each region of the canvas, a critique after it, perhaps the region again.

Thinking-while-Generating (arXiv 2511.16671), over any generator and any VLM. `Painting.program` is the published
procedure for ONE picture, as it would be told: it yields what it wants (an answer, some painting) and is sent it.
`paint` runs the programs of a whole batch side by side: whatever they want from the model that writes is written
together, then whatever they want painted is painted together, wherever each of them stands. So a picture that is
redone holds nobody up, and every picture is what it would be alone (docs/during.md).

The ablations are the same program with other parts: all thoughts before one painting (`think=before` with several
regions), or no thought, and critiques of the whole picture (`think=after`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from reverie.asking import Ask, Foresight, Weigh, weighed, written
from reverie.canvas import Conditions, Work, copy_seed
from reverie.canvas import Generator as GeneratorOfImages
from reverie.dialogue import OFFICIAL, Critique, OfficialStory, Story, dialogue, read_critique
from reverie.events import Event, Finished, Preview, Revised, Scheduled, Thought, Verdict
from reverie.judges import View
from reverie.png import picture_hash
from reverie.schedule import MOST_REGIONS, bands, blocks, explicit, read_ratios
from reverie.thinkers import Thinker
from reverie.vlms import IMAGE, Brief, Message
from reverie.wall import Paint, Shown, Wall

if TYPE_CHECKING:
    from reverie.judges import Judge
    from reverie.reason import Order, Plan, Watch


# --- What a program wants.


@dataclass(frozen=True)
class Restore:
    """The picture as it was shown then."""

    shown: Shown


class Look(NamedTuple):
    """The picture as it is now."""


Wish = Ask | Weigh | Paint | Restore | Look
Program = Generator[Event | Wish, Any, None]


@dataclass
class Attempt:
    """A region as it was painted once. No score if nobody judged it."""

    thought: str
    text: str
    shown: Shown
    score: float | None = None


@dataclass
class Painting:
    """One picture on its way."""

    image: int
    prompt: str
    seed: int
    plan: Plan
    steps: int
    row: int
    story: Story
    check: Callable[[str], None]
    """Raises ValueError for a text that cannot be painted."""
    text: str = ""
    """What the canvas is painted from at present."""
    shown: Shown | None = None
    record: list[dict[str, Any]] = field(default_factory=list)
    """What happened to each region, for the recipe."""
    answers: list[str] = field(default_factory=list)
    """All that the model wrote, in order: enough to repeat the run without asking it."""
    notes: list[str] = field(default_factory=list)

    def program(self) -> Program:
        """The published loop (section 3 of the paper): think, paint, judge, region by region."""
        ends = yield from self._schedule()
        self.story.regions = len(ends)
        start = 0
        for number, end in enumerate(ends, 1):
            thought, text = self.prompt, self.prompt
            if self.plan.think != "after":
                thought, text = yield from self._think(number)
            if self.plan.think == "before" and number < len(ends):
                self.story.keep(thought, False)
                continue
            yield from self._region(thought, text, start, end, number == len(ends))
            start = end

    # When.

    def _schedule(self) -> Generator[Event | Wish, Any, tuple[int, ...]]:
        """The step at which each region ends."""
        plan, rows = self.plan, self.steps // self.row
        if plan.think == "after":
            return (self.steps,)
        if plan.official:
            return blocks(self.story.regions, self.steps)
        ratios: Sequence[float] = explicit(plan.schedule) or (1,) * self.story.regions
        if plan.schedule != "adaptive":
            return bands(ratios, self.steps, self.row)
        most = min(rows, MOST_REGIONS)
        answer = yield Ask(Message("user", plainly(self.story.divide(most))))
        proposed = read_ratios(answer, most)
        note = None if proposed else "no usable ratios were proposed, so all regions are equally high"
        self.notes += [note] if note else []
        ends = bands(proposed or (1,) * min(self.story.regions, rows), self.steps, self.row)
        yield Scheduled(self.image, ends, answer, note)
        return ends

    # What.

    def _think(self, number: int) -> Generator[Event | Wish, Any, tuple[str, str]]:
        """The thought about region `number`, from the prompt, the thoughts before, and the picture so far; and the
        text to paint from."""
        blank = number == 1 or self.plan.think == "before"
        if blank and self.story.words.look_first and self.shown is None:
            self.shown = yield Look()
        answer = yield self._asking(self.story, number)
        thought, note = self.story.heard(answer), None
        if not thought and not self.plan.official:
            thought, note = self.prompt, "the model wrote nothing, so the prompt stands in for the thought"
        thought, text, cut = self._paintable(thought, again=False)
        note = cut or note
        self.notes += [note] if note else []
        yield Thought(self.image, whole=thought, prompt=text, note=note, region=number)
        return thought, text

    def _asking(self, story: Story, number: int) -> Ask:
        """For the thought about region `number`, beside the picture as it was last shown."""
        pictures = (self.shown.picture,) if self.shown else ()
        asked = plainly(story.think(number, bool(pictures)))
        return Ask(Message("user", asked, pictures, story.words.special), number, aloud=True)

    def _paintable(self, thought: str, again: bool) -> tuple[str, str, str | None]:
        """As much of a thought as there is room for, the text to paint from, and what to say if that is not all."""

        def told(count: int) -> str:
            part = " ".join(words[:count])
            return part if self.plan.think == "after" else self.story.painting(part, again)

        def fits(count: int) -> bool:
            try:
                self.check(told(count))
            except ValueError:
                return False
            return True

        words = thought.split(" ")
        if fits(len(words)):
            return thought, told(len(words)), None
        count = bisect_left(range(1, len(words)), True, key=lambda count: not fits(count))
        if count == 0:
            return thought, self.text or self.prompt, "there is no room for this thought, so the text before is kept"
        return " ".join(words[:count]), told(count), f"only the first {count} words of the thought have room"

    # How.

    def _region(self, thought: str, text: str, start: int, end: int, last: bool) -> Program:
        """Paints steps start..end, and again while the critique rejects them and rounds are left."""
        number, rounds, attempts = len(self.record) + 1, self.plan.reflect, list[Attempt]()
        while True:
            self.shown = yield Paint(text, start, end, copy_seed(self.seed, number, len(attempts)))
            self.text = text
            attempts.append(Attempt(thought, text, self.shown))
            # The last redo is kept as it is, unless the best is to be kept: then its score must be known.
            redone = len(attempts) - 1
            if redone == rounds and not (self.plan.keep == "best" and redone):
                break
            revision = yield from self._judge(attempts[-1], redone > 0, last)
            if not revision or redone == rounds:
                break
            thought, text, note = self._paintable(revision, again=True)
            self.notes += [note] if note else []
            yield Revised(self.image, start, text, note or f"scored {attempts[-1].score:g} of 100", region=number)
        kept = yield from self._kept(attempts)
        facts = [{"thought": one.thought, "score": one.score} for one in attempts]
        self.record.append({"end": end, "attempts": facts, "kept": kept})
        self.story.keep(attempts[kept].thought, kept > 0)

    def _judge(self, attempt: Attempt, again: bool, last: bool) -> Generator[Event | Wish, Any, str]:
        """Scores an attempt; the thought to paint it from instead, or nothing if it is accepted."""
        answer, critique = yield from self._critique(attempt, again, last)
        attempt.score = critique.score
        accepted = critique.score >= self.plan.threshold or not critique.revision
        reason = answer if critique.understood else f"(no score could be read, so it is accepted) {answer}"
        self.notes += [] if critique.understood else [f"no score in the critique of region {len(self.record) + 1}"]
        scores = {"score": critique.score}
        region, who = len(self.record) + 1, self.plan.judge or "critique"
        yield Verdict(self.image, who, scores, reason=reason, region=region, accepted=accepted)
        return "" if accepted else critique.revision

    def _critique(
        self, attempt: Attempt, again: bool, last: bool
    ) -> Generator[Event | Wish, Any, tuple[str, Critique]]:
        """What is said of an attempt, and how it is understood. A judge gives a score alone, so the thought stays."""
        picture = attempt.shown.picture
        if self.plan.judge is not None:
            view = View(self.prompt, picture, attempt.shown.canvas.step / self.steps)
            answer = yield Weigh(view, "orm" if last else "potential")
            return answer, replace(read_critique(answer), revision=attempt.thought)
        asked = plainly(self.story.judge(attempt.thought, last))
        ahead = None
        if self.plan.think == "during" and not last:
            accepted = replace(self.story, thoughts=[*self.story.thoughts])
            accepted.keep(attempt.thought, again)
            ahead = self._asking(accepted, len(self.record) + 2)

        def enough(text: str) -> bool:
            return self.story.settled(text) >= self.plan.threshold

        message = Message("user", asked, (picture,), self.story.words.special)
        answer = yield Ask(message, ahead=ahead, enough=enough)
        # What accepts may have been written up to its score alone.
        brief = enough(answer)
        return answer, Critique(self.story.settled(answer), "") if brief else self.story.read(answer, attempt.thought)

    def _kept(self, attempts: list[Attempt]) -> Generator[Event | Wish, Any, int]:
        """Which attempt stays: the latest, or with keep=best the one with the best score (of equals the latest)."""
        latest = len(attempts) - 1
        if self.plan.keep != "best" or latest == 0:
            return latest
        best = max(range(len(attempts)), key=lambda i: (attempts[i].score or 0.0, i))
        if best != latest:
            self.shown = yield Restore(attempts[best].shown)
            self.text = attempts[best].text
            region = len(self.record) + 1
            yield Revised(
                self.image, self.shown.canvas.step, self.text, "an earlier attempt scored better", region=region
            )
        return best

    def recipe(self) -> dict[str, Any]:
        """What the picture has to remember beyond its plan and seed."""
        kept = [region["attempts"][region["kept"]]["thought"] for region in self.record]
        thought = "\n".join([*self.story.thoughts[: -len(kept)], *kept])
        facts = {"thought": thought, "rewritten": self.text, "regions": self.record, "answers": self.answers}
        return facts | ({"note": "; ".join(dict.fromkeys(self.notes))} if self.notes else {})


def plainly(text: str) -> str:
    """Text in which nothing marks the place of a picture."""
    return text.replace(IMAGE, f"{IMAGE[0]} {IMAGE[1:]}")


# --- A batch of them.


def paint(
    generator: GeneratorOfImages,
    thinker: Thinker,
    plan: Plan,
    typed: Sequence[str],
    order: Order,
    recipes: Sequence[Mapping[str, Any]],
    images: range,
    watch: Watch,
    known: Mapping[int, Sequence[str]],
    judge: Judge | None = None,
) -> Generator[Event, None, tuple[Work, Work]]:
    """One batch, as `reason.run` wants it: its events; its work and that of plain sampling in the end.

    typed: the prompts of all images of the run; known: answers that are already there, by image; judge: of regions, if
    the plan names one.
    """
    paintings = {
        image: painting_of(generator, thinker, plan, typed[image], order.seeds[image], image) for image in images
    }
    wall = Wall(generator, paintings, order.guidance)
    programs = {image: painting.program() for image, painting in paintings.items()}
    unheard = {image: list(known.get(image, ())) for image in images}
    foresight = Foresight(isinstance(thinker.vlm, Brief))
    wishes: dict[int, Wish] = {}
    for image in images:
        yield from go_on(programs[image], None, image, wishes)
    while wishes:
        answered: dict[int, Any] = {
            image: unheard[image].pop(0)
            for image, wish in wishes.items()
            if isinstance(wish, Ask | Weigh) and unheard[image]
        }
        asked = {i: wish for i, wish in wishes.items() if isinstance(wish, Ask) and i not in answered}
        answered |= foresight.heard(asked)
        if asked and not answered:
            answered = yield from written(thinker, plan, asked, foresight)
        answered |= weighed(judge, {i: w for i, w in wishes.items() if isinstance(w, Weigh) and i not in answered})
        for image, answer in answered.items():
            paintings[image].answers.append(answer)
        at_once = {image: wish for image, wish in wishes.items() if isinstance(wish, Look | Restore)}
        for image, wish in at_once.items():
            if isinstance(wish, Restore):
                wall.canvases[image] = wish.shown.canvas
            answered[image] = wish.shown if isinstance(wish, Restore) else wall.look(image)
        if not answered:
            shown = wall.paint({image: wish for image, wish in wishes.items() if isinstance(wish, Paint)})
            yield progress(wall, shown, watch, len(order.seeds))
            answered |= shown
        for image, value in answered.items():
            del wishes[image]
            yield from go_on(programs[image], value, image, wishes)
    for image, painting in paintings.items():
        assert painting.shown is not None
        picture = painting.shown.picture
        facts = {"seed": painting.seed, "picture": picture_hash(picture), "size": list(picture.size)}
        yield Finished(image, picture, painting.seed, {**recipes[image], **painting.recipe(), **facts})
    return wall.work, generator.plain_work(Conditions(tuple(typed[image] for image in images), order.guidance))


def painting_of(
    generator: GeneratorOfImages, thinker: Thinker, plan: Plan, prompt: str, seed: int, image: int
) -> Painting:
    words = dialogue(OFFICIAL if plan.official else _wording(generator, thinker))
    assert plan.regions is not None  # a plan settles it
    story = (OfficialStory if plan.official else Story)(words, prompt, plan.regions)
    row = getattr(generator, "row", 1)
    return Painting(image, prompt, seed, plan, generator.steps, row, story, thinker.check)


def _wording(generator: GeneratorOfImages, thinker: Thinker) -> str:
    """A chat model is asked about stages where steps are no rows of the picture."""
    known = thinker.dialogue or thinker.wording
    return "stages" if known == "instruct" and not hasattr(generator, "row") else known


def go_on(program: Program, value: Any, image: int, wishes: dict[int, Wish]) -> Generator[Event, None, None]:
    """Runs a program up to its next wish, which is noted, or to its end."""
    try:
        told = program.send(value)
        while isinstance(told, Event):
            yield told
            told = program.send(None)
        wishes[image] = told
    except StopIteration:
        return


def progress(wall: Wall, shown: Mapping[int, Shown], watch: Watch, count: int) -> Preview:
    """How far the batch is, on average, and what was just painted."""
    done = sum(canvas.step for canvas in wall.canvases.values()) // len(wall.canvases)
    pictures = tuple(shown[i].picture if i in shown else None for i in range(count)) if watch.previews else ()
    return Preview(watch.before + done, watch.steps, pictures)
