"""Who writes rewrites: the Atelier, which knows its riddles, or any VLM that follows the request of a wording.

As published, the teacher (Gemini 2.5) writes reasoning and refined prompt; an answer that `thinkers.parse` cannot read
is left out. The Atelier's prompts are those of its training side: nothing that its benchmarks ask is among them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import thinkers
from ..atelier.knowledge import COMPOSED_SHARE
from ..vlms import VLM, Message
from .rewrites import Written

if TYPE_CHECKING:
    from .prompts import Prompt

THOUGHT_TOKENS = 1024
"""As at inference in the published script."""


@dataclass
class AtelierRewriter:
    """Riddles, and plain prompts of which nothing but the words change; or edits, with the picture they are about.

    plain: share of prompts that say what they mean. drop, mixed: how the wordings of facts are worn (atelier/worn.py).
    composed: share of the riddles drawn that ask for two facts; fewer stay, as held-out pairs are drawn anew."""

    seed: int = 0
    plain: float = 0.35
    edits: bool = False
    drop: float = 0.0
    mixed: float = 0.0
    composed: float = COMPOSED_SHARE
    name: str = "atelier"

    def teach(self, numbers: Sequence[int]) -> list[Written | None]:
        return [self._edit(number) if self.edits else self._prompt(number) for number in numbers]

    def _prompt(self, number: int) -> Written:
        from ..atelier.language import canonical, say
        from ..atelier.lessons import spelled_out, train_riddle
        from ..atelier.sample import random_demand
        from ..atelier.worn import Wear

        rng = random.Random(f"rewrites/{self.seed}/{number}")
        if rng.random() < self.plain:
            demand = random_demand(rng)
            prompt = say(demand, rng, rng.choice(("terse", "plain", "rich")), split="train")
            return _record(number, prompt, spelled_out(demand), canonical(demand), demand=demand.to_record())
        riddle = train_riddle(rng, Wear(self.drop, self.mixed), self.composed)
        return _record(number, riddle.prompt, riddle.thought, riddle.rewritten, demand=riddle.demand)

    def _edit(self, number: int) -> Written:
        from ..atelier.draw import draw
        from ..atelier.edits import edit
        from ..training.qwen_edits import plain_edit

        rng = random.Random(f"rewrites/{self.seed}/{number}")
        one = edit(rng)
        # Where something goes is plain as it stands; everything else is said by how it looks afterwards.
        after = one.instruction if one.family == "spatial" else plain_edit(one.before, one.after)
        scenes = {"before": one.before.to_json(), "after": one.after.to_json()}
        image = f"pictures/{number:06}.png"
        return _record(number, one.instruction, one.reasoning, after, draw(one.before), image=image, **scenes)


def _record(number: int, prompt: str, cot: str, refined: str, picture: Any = None, **more: Any) -> Written:
    about = {"id": f"{number:06}", "prompt": prompt, "cot": cot, "refined_prompt": refined, "source": "atelier"}
    return Written(about | more, picture)


@dataclass
class VlmRewriter:
    """`vlm` answers the request of `wording` for each of `prompts`, whose records may name an `image` (of an edit),
    relative to `folder`."""

    vlm: VLM
    prompts: Sequence[Prompt]
    wording: str = "t2g"
    folder: Path = Path()
    tokens: int = THOUGHT_TOKENS
    name: str = "vlm"

    def teach(self, numbers: Sequence[int]) -> list[Written | None]:
        pictures = [self._picture(number) for number in numbers]
        asked = [
            [
                Message(
                    "user",
                    thinkers.request(self.wording, self.prompts[number].text, edit=picture is not None),
                    (picture,) if picture is not None else (),
                )
            ]
            for number, picture in zip(numbers, pictures, strict=True)
        ]
        answers = self.vlm.write_batch(asked, self.tokens)
        return [
            self._read(number, answer, picture)
            for number, answer, picture in zip(numbers, answers, pictures, strict=True)
        ]

    def _read(self, number: int, answer: str, picture: Any) -> Written | None:
        prompt = self.prompts[number]
        read = thinkers.parse(self.wording, answer, prompt.text)
        if read.note or not read.thought:
            return None
        record = {
            "id": f"{number:06}", "prompt": prompt.text, "cot": read.thought, "refined_prompt": read.prompt,
            "source": self.name,
        }  # fmt: skip
        return Written(record | ({"image": f"pictures/{number:06}.png"} if picture is not None else {}), picture)

    def _picture(self, number: int) -> Any:
        from PIL import Image, UnidentifiedImageError

        name = self.prompts[number].record.get("image")
        if not name:
            return None
        try:
            with Image.open(self.folder / str(name)) as image:
                return image.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{self.folder / str(name)} is no picture that can be opened.") from error
