"""`reverie replay IMAGE`: paints a picture again from the recipe inside it and says whether it came out the same.

What is compared is the picture at its native size: the recipe holds its hash, however large it was written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.commands.generate import loading
from reverie.commands.outputs import picture_files
from reverie.display import Display
from reverie.events import Finished
from reverie.fitting import Fitting
from reverie.inputs import Inputs
from reverie.judges.load import check_judge
from reverie.models.registry import Source, cached, fingerprint, resolve
from reverie.painter import load
from reverie.png import open_picture, picture_hash, read_recipe, resized, save_png
from reverie.reason import PYTHON, Plan
from reverie.refusals import LARGEST_SEED, check_inputs, check_place
from reverie.relay import Told
from reverie.thinkers import Answer

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Recipe:
    """The checked contents of a recipe; `stored` is all of it."""

    model: str
    seed: int
    plan: Plan
    prompt: str
    answer: Answer | None
    answers: tuple[str, ...]
    """All that was answered while painting, in order."""
    inputs: Inputs
    told: Told | None
    """What the pictures were put into words as."""
    stored: Mapping[str, Any]

    def chosen(self) -> Recipe:
        """The recipe of the chosen candidate alone, which is the same picture without a judge; ValueError if what
        became of the picture is not in one candidate's seed."""
        rounds = self.stored.get("rounds")
        if not isinstance(rounds, list) or not rounds or not isinstance(rounds[0], dict):
            raise ValueError("nothing was chosen for this picture; leave --from-choice out.")
        seed = rounds[0].get("seed")
        if self.plan.choose == "prm" or self.stored.get("round") != 0 or not isinstance(seed, int):
            raise ValueError(
                "this picture was chosen step by step or painted again after a look back, so it cannot be repeated "
                "without its judge; leave --from-choice out."
            )
        plan = replace(self.plan, choose="first", candidates=1, reflect=0, judge=None)
        return replace(self, plan=plan, seed=seed)

    @classmethod
    def of(cls, stored: Mapping[str, Any], path: str, pictures: Sequence[str] = ()) -> Recipe:
        """ValueError for a recipe that lacks what is needed or holds something else there. pictures: files in which to
        look for those that this one was painted from."""
        for name, kind in (("model", str), ("seed", int), ("plan", dict), ("prompt", str)):
            if not isinstance(stored.get(name), kind) or isinstance(stored.get(name), bool):
                raise ValueError(f"the recipe in {path} is damaged: it has no proper {name!r}.")
        if not 0 <= stored["seed"] <= LARGEST_SEED:
            raise ValueError(f"the recipe in {path} is damaged: the seed {stored['seed']} is out of range.")
        thought, rewritten = stored.get("thought"), stored.get("rewritten")
        known = isinstance(thought, str) and isinstance(rewritten, str)
        answer = Answer(str(thought), str(rewritten), stored.get("note")) if known else None
        answers = stored.get("answers", [])
        if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
            raise ValueError(f"the recipe in {path} is damaged: its answers are no texts.")
        plan = Plan.from_json(stored["plan"])
        inputs = Inputs.from_json(stored.get("inputs", {}), pictures)
        told = Told.from_json(stored["told"]) if "told" in stored else None
        return cls(
            stored["model"], stored["seed"], plan, stored["prompt"], answer, tuple(answers), inputs, told, stored
        )


def replay(arguments: argparse.Namespace) -> int:
    """Returns 0 if the picture is identical, 1 if it differs; prints the verdict, then the new file's name."""
    recipe = Recipe.of(read_recipe(arguments.image), arguments.image, arguments.picture or ())
    if arguments.from_thought and recipe.answer is None and recipe.told is None:
        raise ValueError(f"{arguments.image} was painted without a thought; leave --from-thought out.")
    recipe = recipe.chosen() if arguments.from_choice else recipe
    _check_people(recipe.plan, arguments.from_thought)
    check_judge(recipe.plan, None if recipe.told else recipe.prompt)
    check_place(arguments.device)
    model, source = _source(recipe, arguments.model)
    check_inputs(source, recipe.plan, recipe.inputs)
    (file,) = picture_files(arguments.out, f"{Path(arguments.image).stem}-replay", 1)
    if source.folder is not None and fingerprint(source.folder, source.adapters) != recipe.stored.get("fingerprint"):
        print(f"reverie: {source.name} has other weights than those that painted this picture.", file=sys.stderr)
    fitting = Fitting.of(recipe.stored.get("fitting") or {})
    fitting.check(source)
    kept = arguments.from_thought
    read = recipe.told.prompt if recipe.told else recipe.prompt
    thoughts = {read: recipe.answer} if kept and recipe.answer else None
    with Display(quiet=arguments.quiet) as display:
        display.say(loading(source, _dtype(recipe)))
        painter = load(model, arguments.device or _device(recipe), _dtype(recipe), **fitting.said())
        pieces = 12 if display.pictures else 2
        events = painter.run(
            recipe.plan, [recipe.prompt], [recipe.seed], inputs=[recipe.inputs],
            told={0: recipe.told} if kept and recipe.told else None, thoughts=thoughts,
            answers={0: recipe.answers} if kept else None, pieces=pieces, previews=display.pictures,
        )  # fmt: skip
        with closing(events):
            for event in events:
                display.show(event)
                if isinstance(event, Finished) and event.picture is not None:
                    finished = event
    file.parent.mkdir(parents=True, exist_ok=True)
    old = open_picture(arguments.image)
    assert finished.picture is not None
    save_png(finished.picture, file, finished.recipe, max(old.size))
    same = picture_hash(finished.picture) == recipe.stored.get("picture")
    print("identical" if same else f"different: {distance(finished.picture, old)}")
    print(file)
    return 0 if same else 1


def _check_people(plan: Plan, from_thought: bool) -> None:
    """ValueError for judges and eyes that cannot be asked again."""
    judge, eyes, thinker = ((name or "").partition(PYTHON)[2] for name in (plan.judge, plan.eyes, plan.thinker))
    if judge:
        raise ValueError(
            f"the judge of this picture, {judge}, is a Python object and is not here; --from-choice paints the "
            f"candidate that it chose."
        )
    if eyes and not from_thought:
        raise ValueError(f"the eyes {eyes} are a Python object and not here; --from-thought keeps what they said.")
    if thinker and not from_thought:
        raise ValueError(f"the thinker {thinker} is a Python object and not here; --from-thought keeps what it wrote.")


def _source(recipe: Recipe, model: str | None) -> tuple[str, Source]:
    """What to paint with. A picture from elsewhere must not make us fetch a model that nobody asked for."""
    try:
        source = resolve(model or recipe.model)
    except ValueError as error:
        if model is not None:
            raise
        raise ValueError(f"{error} (The recipe names this model; --model says where it is now.)") from error
    if model is None and source.folder is None and not cached(source.id or source.name):
        raise ValueError(f"the recipe asks for {source.name}, which is not here; --model {source.name} fetches it.")
    return model or recipe.model, source


def distance(new: Image, old: Image) -> str:
    """How far two pictures lie apart, in words; the new one is scaled like the old one first."""
    import numpy as np

    a = np.asarray(resized(new, max(old.size)).convert("RGB"), np.int16)
    b = np.asarray(old.convert("RGB"), np.int16)
    if a.shape != b.shape:
        return f"{new.width}x{new.height} pixels in place of {old.width}x{old.height}"
    apart = np.abs(a - b)
    if not apart.any():
        return "the pixels of the file are the same, but its recipe was made for another picture"
    return f"{(apart.max(-1) > 0).mean():.1%} of the pixels differ, by {apart.mean():.2f} of 255 on average"


def _device(recipe: Recipe) -> str | None:
    """The device of the recipe if this machine has it: the same picture is promised on the same device only."""
    device = recipe.stored.get("device")
    return "cpu" if device == "cpu" else None


def _dtype(recipe: Recipe) -> str | None:
    dtype = recipe.stored.get("dtype")
    return dtype if dtype in ("float32", "bfloat16", "float16") else None
