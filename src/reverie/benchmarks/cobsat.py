"""CoBSAT (Zeng et al. 2024, arXiv:2402.01293; UW-Madison-Lee-Lab/CoBSAT at a787be51): in-context image generation.

A few pairs of a word and an image share a hidden attribute or object; given one more word, the model draws the
combination. Ten tasks, 1,000 prompts each for any number of shots; the lists are made anew from their seed, so no
prompt file is needed. Demonstration images are the data set's (Hugging Face yzeng58/CoBSAT, MIT by its card).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .outcome import Outcome, of_prompts, of_strata
from .prompt_files import Source
from .protocol import Sample

VALUES = {
    "color": "yellow white red purple pink orange green brown blue black",
    "object": "leaf hat cup chair car box book ball bag apple",
    "animal": "zebra tiger sheep pig monkey lion dog cow cat bird",
    "style": "watercolor sketch pixel origami lego icon graffiti futuristic 3d old",
    "action": "swim sleep sing run read fly eat drink cry angry",
    "background": "beach desert glacier volcano park gym waterfall space cave seafloor",
    "texture": "wood wicker sequined plastic paper metal leather lace denim ceramic",
}
OPTIONS = {theme: tuple(words.split()) for theme, words in VALUES.items()}
SHOWN = {"3d": "wireframe", "park": "amusement park"}
"""How a word is written where a model or a judge reads it."""
_DETAILS = {"color": "object", "background": "animal", "style": "object", "action": "animal", "texture": "object"}
TASKS = {
    number: (detail, thing) if number % 2 else (thing, detail)
    for place, (detail, thing) in enumerate(_DETAILS.items())
    for number in (2 * place + 1, 2 * place + 2)
}
"""Task to what is shown (x) and what is hidden (theta)."""
NAMES = {number: f"{TASKS[number - (number - 1) % 2][0]}-{'I' if number % 2 else 'II'}" for number in TASKS}
JUDGE = "LLaVA-1.5-13B"
SHOTS = (2, 4, 6, 8)
TYPES = ("default", "instruct", "cot", "caption", "exact", "misleading")
LISTS = {"default": 0, "ft_test": 5}
"""Index lists by name, and the lowest index that they hold."""
SOURCE = Source(
    "CoBSAT", "https://huggingface.co/datasets/yzeng58/CoBSAT", "MIT for the images, by the card", "yzeng58/CoBSAT"
)


@cache
def index_lists(name: str = "default", number: int = 1000) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """The pairs (x_list, theta_list) that serve all tasks: two lists shuffled in turn, on and on, from seed 123."""
    if name not in LISTS:
        raise ValueError(f"CoBSAT has the index lists {', '.join(LISTS)}, not {name!r}.")
    rng = random.Random(123)
    x, theta = list(range(LISTS[name], 10)), list(range(LISTS[name], 10))
    found = []
    for _ in range(number):
        rng.shuffle(x)
        rng.shuffle(theta)
        found.append((tuple(x), tuple(theta)))
    return tuple(found)


@dataclass(frozen=True)
class Episode:
    """One prompt: `texts` are read in turn, each but the last followed by its demonstration image."""

    task: int
    shots: int
    index: int
    texts: tuple[str, ...]
    words: tuple[str, ...]
    theta: str
    images: tuple[str, ...]
    """Paths of the demonstration images in the data set."""

    @property
    def detail(self) -> int:
        """The right option, 1 to 10, of the question about colour, background, style, action or texture."""
        return self._option(0)

    @property
    def thing(self) -> int:
        """The right option, 1 to 10, of the question about the object or animal."""
        return self._option(1)

    def _option(self, place: int) -> int:
        theme = sorted_themes(self.task)[place]
        return OPTIONS[theme].index(self.words[-1] if theme == TASKS[self.task][0] else self.theta) + 1

    @property
    def stem(self) -> str:
        """Name of the output file without its suffix."""
        return "_".join([str(self.index), self.theta, *(SHOWN.get(word, word) for word in self.words)])


def sorted_themes(task: int) -> tuple[str, str]:
    """The theme of the detail and that of the object or animal, whichever of them is shown."""
    pair = TASKS[task]
    return pair if pair[1] in ("object", "animal") else pair[::-1]


def episode(task: int, shots: int, index: int, prompt_type: str = "default", lists: str = "default") -> Episode:
    """Episode `index` of a task. ValueError for a task, a type or a number of shots that there is not."""
    if task not in TASKS:
        raise ValueError(f"CoBSAT has the tasks 1 to 10, not {task}.")
    if prompt_type not in TYPES:
        raise ValueError(f"CoBSAT has the prompt types {', '.join(TYPES)}, not {prompt_type!r}.")
    numbers = index_lists(lists)
    if not 0 <= index < len(numbers):
        raise ValueError(f"CoBSAT has the prompts 0 to {len(numbers) - 1}, not {index}.")
    x_list, theta_list = numbers[index]
    if not 1 <= shots <= len(x_list) - 2:
        raise ValueError(f"CoBSAT's list {lists} allows 1 to {len(x_list) - 2} shots, not {shots}.")
    x_theme, theta_theme = TASKS[task]
    words = tuple(OPTIONS[x_theme][place] for place in x_list[: shots + 1])
    theta = OPTIONS[theta_theme][theta_list[shots + 1]]
    hints = {"exact": [theta] * (shots + 1), "misleading": [OPTIONS[theta_theme][i] for i in theta_list[: shots + 1]]}
    parts = zip(words, hints.get(prompt_type, [""] * len(words)), strict=True)
    texts = tuple(f"{SHOWN.get(word, word)} {hint}".strip() + ": " for word, hint in parts)
    images = tuple(demo_image(task, x, theta_list[shots + 1]) for x in x_list[:shots])
    return Episode(task, shots, index, texts, words, theta, images)


def demo_image(task: int, x: int, theta: int) -> str:
    """Path of a demonstration image in the data set, of the indices of the shown and the hidden value."""
    value = {TASKS[task][0]: OPTIONS[TASKS[task][0]][x], TASKS[task][1]: OPTIONS[TASKS[task][1]][theta]}
    detail, thing = sorted_themes(task)
    return f"datasets/{detail}_{value[thing]}/{value[detail]}_{value[thing]}.jpg"


def samples(task: int, shots: int, prompt_type: str = "default", number: int = 1000) -> tuple[Sample, ...]:
    """The prompts of a task as samples; `record` holds what an episode is made of."""
    found = []
    for index in range(number):
        one = episode(task, shots, index, prompt_type)
        record = {"task": task, "shots": shots, "type": prompt_type, "index": index, "images": list(one.images)}
        # with few shots, prompts come again: those are no independent tries
        cluster = repr((one.texts, one.theta))
        found.append(Sample(f"{task}-{shots}-{index}", "".join(one.texts), NAMES[task], record, cluster))
    return tuple(found)


def file(episode: Episode, prompt_type: str = "default") -> str:
    """Where an output lies below results/exps/<model>_image/."""
    return f"shot_{episode.shots}/{prompt_type}/task_{episode.task}/{episode.stem}.jpg"


# --------------------------------------------------------------------------------------------------- scoring

NUMBER = re.compile(r"(?<![\w.,])\d+(?:\.\d+)?(?!\w)")


def parse(answer: str, official: bool = False) -> int:
    """The option that a judge names, 1 to 10, or -1.

    official: as in the official code, all digits are put together, so "1 or 2" is 12, hence none, and "1.0" is 10;
    digits that are no decimal ones ("²"), on which that code stops, count as none. Otherwise the one number that the
    answer names.
    """
    if official:
        digits = "".join(letter for letter in answer if letter.isdigit())
        value = int(digits) if digits.isdecimal() else -1
        return value if 1 <= value <= 10 else -1
    numbers = {float(word) for word in NUMBER.findall(answer)}
    return int(numbers.pop()) if len(numbers) == 1 and numbers <= set(range(1, 11)) else -1


@dataclass(frozen=True)
class Check:
    """What one image got right. textual: the given word was honoured; visual: the hidden value was inferred."""

    detail: bool
    thing: bool
    textual: bool
    visual: bool

    @property
    def correct(self) -> bool:
        return self.detail and self.thing


def check(episode: Episode, detail: int, thing: int) -> Check:
    """Of the options (1 to 10, -1 for none) that a judge names for an episode's image; -1 and -1 if it is missing."""
    right = detail == episode.detail, thing == episode.thing
    shown_is_detail = TASKS[episode.task][0] == sorted_themes(episode.task)[0]
    textual, visual = right if shown_is_detail else right[::-1]
    return Check(*right, textual, visual)


@dataclass(frozen=True)
class ClipCheck:
    detail: bool
    thing: bool
    similarities: tuple[float, float, float]
    """With the detail, the object, and both, each at least 0."""

    @property
    def correct(self) -> bool:
        return self.detail and self.thing


def clip_check(similarity: Sequence[float], detail: int, thing: int) -> ClipCheck:
    """The variant without judge: cosines times CLIP's logit scale with the detail, the object, both, the ten objects
    and the ten details; the right ones (1 to 10) must be the likeliest. Clamped at 0; of equals the first counts."""
    values = np.maximum(np.asarray(similarity, np.float32), 0)
    if values.shape != (23,):
        raise ValueError(f"CoBSAT's CLIP variant needs 23 similarities; got {values.size}.")
    things, details = values[3:13], values[13:]
    named = float(values[0]), float(values[1]), float(values[2])
    return ClipCheck(int(details.argmax()) + 1 == detail, int(things.argmax()) + 1 == thing, named)


def outcome(checks: Mapping[int, Mapping[str, Sequence[Check]]], official: bool = False) -> Outcome:
    """Mean over tasks and by task (correct; textual and visual too), from task to cluster to the checks of its images.
    All of one number of shots."""
    correct = {task: {key: [float(c.correct) for c in row] for key, row in g.items()} for task, g in checks.items()}
    scores = {"overall": of_strata(correct)}
    for task, group in checks.items():
        scores[NAMES[task]] = of_prompts(correct[task])
        for what in ("textual", "visual"):
            values = {key: [float(getattr(c, what)) for c in row] for key, row in group.items()}
            scores[f"{NAMES[task]} {what}"] = of_prompts(values)
    notes = [f"task {task} is missing: the overall score is not CoBSAT's" for task in TASKS if task not in checks]
    if official:
        notes.append("bug repeated: all digits of an answer are put together")
    return Outcome("cobsat", scores, tuple(notes), official)
