"""In-context episodes: a few pairs of word and picture share something unsaid; one more word asks for its picture.

The ten tasks are those of CoBSAT (Zeng et al. 2024, arXiv:2402.01293), over its own values in its own order, less
those that the Atelier cannot draw: four styles (origami, lego, graffiti, 3d), two actions (drink, angry) and two
textures (plastic, paper). Odd tasks show the detail and hide the object; even ones show the object and hide the
detail.

    episode(random.Random(0), task=1, shots=2)   # training: never a held-out colour of a kind
    benchmark(task=1, shots=2)                   # the fixed list of 1,000, after CoBSAT's own recipe
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from .language import held_out_colour
from .layout import arrange
from .scene import ACTIONS, BACKGROUNDS, STYLES, TEXTURES, Scene, Thing

OBJECTS = ("leaf", "hat", "cup", "chair", "car", "box", "book", "ball", "bag", "apple")
ANIMALS = ("zebra", "tiger", "sheep", "pig", "monkey", "lion", "dog", "cow", "cat", "bird")
# CoBSAT's ten values of each theme, in the order that its index lists refer to.
DETAILS = {
    "colour": ("yellow", "white", "red", "purple", "pink", "orange", "green", "brown", "blue", "black"),
    "background": ("beach", "desert", "glacier", "volcano", "park", "gym", "waterfall", "space", "cave", "seafloor"),
    "style": ("watercolor", "sketch", "pixel", "origami", "lego", "icon", "graffiti", "futuristic", "3d", "old"),
    "action": ("swim", "sleep", "sing", "run", "read", "fly", "eat", "drink", "cry", "angry"),
    "texture": ("wood", "wicker", "sequined", "plastic", "paper", "metal", "leather", "lace", "denim", "ceramic"),
}
THEMES = tuple(DETAILS)
_DRAWABLE = {"background": BACKGROUNDS, "style": STYLES, "action": ACTIONS, "texture": TEXTURES}
_SHOWN_AS = {"park": "amusement park"}  # CoBSAT's word for it wherever it is shown
SEED = 123  # of CoBSAT's index lists
RECORDS = 1000


@dataclass(frozen=True)
class Episode:
    """task: 1 to 10; examples: pairs of word and picture; query: the word to be drawn; answer: a right picture;
    theta: the value that is never said."""

    task: int
    examples: tuple[tuple[str, Scene], ...]
    query: str
    answer: Scene
    theta: str


def episode(rng: random.Random, task: int, shots: int) -> Episode:
    """Draw a training episode with so many examples; ValueError if the task is unknown or has too few values."""
    words, thetas = values(task)
    _check_shots(task, shots, most=len(words) - 1)
    usable = {theta: [word for word in words if _for_training(task, word, theta)] for theta in thetas}
    thetas = tuple(theta for theta in thetas if len(usable[theta]) > shots)
    if not thetas:
        raise ValueError(f"Task {task} has too few training pairs for {shots} shots: ask for fewer.")
    theta = rng.choice(thetas)
    return _episode(task, rng.sample(usable[theta], shots + 1), theta, rng)


def benchmark(task: int, shots: int, number: int = RECORDS) -> list[Episode]:
    """The first `number` fixed episodes of a task, one a record of `index_lists`, in its order.

    As in CoBSAT the words are the first of x_list and the hidden value is number `shots` + 1 of theta_list (from 0);
    values that cannot be drawn are passed over. ValueError if the task is unknown or has too few values.
    """
    words, thetas = values(task)
    _check_shots(task, shots, most=min(len(words) - 1, len(thetas) - 2))
    all_words, all_thetas = _all_values(task)
    episodes = []
    for place, record in enumerate(index_lists()[:number]):
        drawn = [all_words[i] for i in record["x_list"] if all_words[i] in words]
        hidden = [all_thetas[i] for i in record["theta_list"] if all_thetas[i] in thetas]
        rng = random.Random(f"cobsat {task} {shots} {place}")  # for the places of things only
        episodes.append(_episode(task, drawn[: shots + 1], hidden[shots + 1], rng))
    return episodes


def index_lists() -> list[dict[str, list[int]]]:
    """CoBSAT's 1,000 records: two lists of 0 to 9, shuffled on and on by Python's generator with seed 123."""
    rng = random.Random(SEED)
    x_list, theta_list = list(range(10)), list(range(10))
    records = []
    for _ in range(RECORDS):
        rng.shuffle(x_list)
        rng.shuffle(theta_list)
        records.append({"x_list": list(x_list), "theta_list": list(theta_list)})
    return records


def theme_of(task: int) -> str:
    """The theme of a task: 1 and 2 are about colour, and so on in the order of `DETAILS`."""
    if task not in range(1, 2 * len(THEMES) + 1):
        raise ValueError(f"There is no task {task!r} in CoBSAT: use a number from 1 to {2 * len(THEMES)}.")
    return THEMES[(task - 1) // 2]


def values(task: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The drawable values of a task, as CoBSAT names and orders them: those shown as words, those hidden."""
    drawable = _DRAWABLE.get(theme_of(task))
    shown, hidden = _all_values(task)
    if drawable is None:
        return shown, hidden
    kinds = OBJECTS + ANIMALS
    keep = [tuple(value for value in side if value in kinds or value in drawable) for side in (shown, hidden)]
    return keep[0], keep[1]


def _all_values(task: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    theme = theme_of(task)
    kinds = ANIMALS if theme in ("background", "action") else OBJECTS
    return (DETAILS[theme], kinds) if task % 2 else (kinds, DETAILS[theme])


def _check_shots(task: int, shots: int, most: int) -> None:
    if not 1 <= shots <= most:
        raise ValueError(f"Task {task} has values for 1 to {most} shots, but {shots} are asked for.")


def _for_training(task: int, word: str, theta: str) -> bool:
    if theme_of(task) != "colour":
        return True
    colour, kind = (word, theta) if task % 2 else (theta, word)
    return not held_out_colour(colour, kind)


def _episode(task: int, words: list[str], theta: str, rng: random.Random) -> Episode:
    pairs = [(_SHOWN_AS.get(word, word), shown(task, word, theta, rng)) for word in words]
    query, answer = pairs[-1]
    return Episode(task, tuple(pairs[:-1]), query, answer, theta)


def shown(task: int, word: str, theta: str, rng: random.Random) -> Scene:
    """One thing, with the detail that the word or the hidden value asks for."""
    theme = theme_of(task)
    detail, kind = (word, theta) if task % 2 else (theta, word)
    looks: dict[str, Any] = {theme: detail} if theme in ("colour", "action", "texture") else {}
    around: dict[str, Any] = {theme: detail} if theme in ("background", "style") else {}
    return Scene(arrange([Thing(kind, **looks)], rng), **around)
