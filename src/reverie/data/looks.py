"""Looks: painted images, finished and at some moments before, with what the inspector saw in them in the end.

From a folder of paths (paths.py). One sighting answers every question in the words of atelier-geneval about its
picture, so a look is worth as many examples as claims can be made of it (atelier/claims.py). A folder holds:

    data.json               the paths and the settings
    looks-000012.npy        (N, some + 1, 3, S, S) uint8: unfinished moments in their order, then the finished image
    looks-000012.jsonl      a line for each of the N: prompt, whether it is right and why not, moments (shares painted),
                            what is seen, for each moment whether it was clear then (`as_in_the_end`), and how surely
                            the image is right (`surely_right`)
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..choose import look_steps, without_cache
from ..files import write_array, write_atomically
from .paths import Paths
from .verifier import VerifierData

if TYPE_CHECKING:
    from ..atelier.claims import Claim
    from ..atelier.inspector import Inspector, Sighting
    from ..canvas import Generator as GeneratorOfImages
    from .paths import Label, Shard

SOME = 3
"""Unfinished moments of an image that are kept."""


def build_looks(
    paths: Paths,
    generator: GeneratorOfImages,
    inspector: Inspector,
    folder: Path,
    config: VerifierData,
    numbers: list[int],
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Makes the shards that are not there yet."""
    import torch

    steps = look_steps(generator.steps, config.looks)
    for number, shard in missing_shards(paths, folder, numbers, on_shard):
        rows, shown = _shown(generator, without_cache(shard.canvas()), steps, random.Random(f"{config.seed}/{number}"))
        before, seen = (inspector.look(torch.from_numpy(part).flatten(0, -4)) for part in (shown[:, :-1], shown[:, -1]))
        some = shown.shape[1] - 1
        clear = [
            [as_in_the_end(one, end) for one in before[row * some : (row + 1) * some]] for row, end in enumerate(seen)
        ]
        write_looks(inspector, folder, number, shard.labels, shown, rows, clear, seen)


def missing_shards(
    paths: Paths, folder: Path, numbers: Sequence[int], on_shard: Callable[[int, int], None] | None
) -> Iterator[tuple[int, Shard]]:
    """Those of `numbers` whose looks are not in the folder; `on_shard` hears when each of all is done."""
    for done, number in enumerate(numbers, 1):
        if not looks_files(folder, number)[1].is_file():
            yield number, paths.shard(number)
        if on_shard is not None:
            on_shard(done, len(numbers))


def write_looks(
    inspector: Inspector,
    folder: Path,
    number: int,
    labels: Sequence[Label],
    shown: np.ndarray,
    moments: Sequence[Sequence[float]],
    clear: Sequence[Sequence[bool]],
    seen: Sequence[Sighting],
) -> None:
    """A shard: of each image its label, its pictures `shown` (N, some + 1, 3, S, S), the moments of all but the last
    and whether these are clear, and what is seen in the last."""
    pictures, lines = looks_files(folder, number)
    sure = surely_right(inspector, labels, shown[:, -1], seen)
    said = (
        {"prompt": label.prompt, "right": label.right, "reason": label.reason, "sure": surely}
        | {"moments": list(when), "clear": list(now)}
        | asdict(end)
        for label, surely, when, now, end in zip(labels, sure, moments, clear, seen, strict=True)
    )
    text = "".join(json.dumps(row) + "\n" for row in said)
    write_array(pictures, shown)
    write_atomically(lines, lambda part: part.write_text(text, "utf-8"))


def as_in_the_end(now: Sighting, end: Sighting) -> bool:
    """Whether a picture may be judged already: things, their colours and how many there are are those of its end. The
    published rule goes by the step alone, which a painter that is sure early, or late, makes meaningless."""
    told = (Counter((thing.kind, thing.colour) for thing in one.objects) for one in (now, end))
    return next(told) == next(told)


def surely_right(
    inspector: Inspector, labels: Sequence[Label], pictures: np.ndarray, seen: Sequence[Sighting]
) -> list[float]:
    """Of pictures (N, 3, S, S) uint8, the share of looks in which each is what its prompt says: as it is (`seen`), and
    moved (judges/moved.py). A damaged thing is often seen from one place and missed from another."""
    import torch

    from ..atelier.inspector import Inspector
    from ..judges.moved import MOVES, moved

    quick, pixels = Inspector(inspector.net, inspector.device, fast=True), torch.from_numpy(pictures)
    looks = [seen, *(quick.look(moved(pixels, *move)) for move in MOVES)]
    return [
        sum(own_claim(label.prompt, one, label.right).holds for one in found) / len(found)
        for label, found in zip(labels, zip(*looks, strict=True), strict=True)
    ]


def _shown(
    generator: GeneratorOfImages, canvas: Any, steps: tuple[int, ...], rng: random.Random
) -> tuple[list[list[float]], np.ndarray]:
    """Each image at some moments, which are chosen anew for every shard and image, and finished."""
    count = len(canvas.seeds)
    some = min(SOME, len(steps) - 1)
    chosen = [sorted(rng.sample(steps[:-1], some)) for _ in range(count)]
    finished = np.stack(generator.preview(canvas)).transpose(0, 3, 1, 2)
    shown = np.zeros((count, some + 1, *finished.shape[1:]), np.uint8)
    shown[:, -1] = finished
    for step in sorted({step for row in chosen for step in row}):
        rows = [row for row in range(count) if step in chosen[row]]
        pictures = np.stack(generator.preview(generator.rewind(canvas.select(rows), step)))
        for row, picture in zip(rows, pictures.transpose(0, 3, 1, 2), strict=True):
            shown[row, chosen[row].index(step)] = picture
    return [[step / steps[-1] for step in row] for row in chosen], shown


def looks_files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"looks-{number:06}.npy", folder / f"looks-{number:06}.jsonl"


@dataclass(frozen=True)
class Look:
    """One image: `pictures` (some + 1, 3, S, S) uint8, the shares painted of all but the last and whether these are
    clear, its own prompt as a claim, what is seen in the end, how surely it is right, and why it is not ("" where that
    was not told)."""

    pictures: np.ndarray
    moments: tuple[float, ...]
    clear: tuple[bool, ...]
    own: Claim
    sighting: Sighting
    sure: float
    reason: str = ""


class Looks:
    """What a folder holds, but for images that are kept back for benchmarks; `left_out` says how many these are.
    ValueError where it is no such folder, or nothing is left of it."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        about = self.folder / "data.json"
        found = json.loads(about.read_text("utf-8")) if about.is_file() else {}
        if found.get("kind") != "looks":
            raise ValueError(f"{folder} holds no looks; build them with `reverie data build looks`.")
        self.rows: list[Look] = []
        self.left_out = 0
        for lines in sorted(self.folder.glob("looks-*.jsonl")):
            pictures = np.load(lines.with_suffix(".npy"), mmap_mode="r")
            said = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
            found = [_look(*both) for both in zip(pictures, said, strict=True)]
            fair = [look for look in found if not kept_back(look.own.text, look.sighting)]
            self.left_out += len(found) - len(fair)
            self.rows += fair
        if self.left_out and not self.rows:
            raise ValueError(f"{folder} holds only what benchmarks ask for; take prompts of the training side.")
        if not self.rows:
            raise ValueError(f"{folder} holds no finished shard; run its build first.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Look:
        return self.rows[row]

    @property
    def clear_from(self) -> float:
        """How much has to be painted before a judge need be asked: the first moment at which a tenth is clear."""
        at: dict[float, list[bool]] = {}
        for look in self.rows:
            for moment, clear in zip(look.moments, look.clear, strict=True):
                at.setdefault(round(moment, 3), []).append(clear)
        return min((moment for moment, clear in at.items() if sum(clear) >= 0.1 * len(clear)), default=1.0)


def _look(pictures: np.ndarray, said: Mapping[str, Any]) -> Look:
    from ..atelier.inspector import Seen, Sighting

    seen = Sighting(tuple(Seen(**thing) for thing in said["objects"]), said["background"], said["style"])
    moments, clear = tuple(said["moments"]), tuple(said["clear"])
    own = own_claim(said["prompt"], seen, said["right"])
    return Look(pictures, moments, clear, own, seen, said.get("sure", float(own.holds)), said.get("reason", ""))


def kept_back(prompt: str, seen: Sighting) -> bool:
    """Whether an image asks for, or shows, what `language.held_out_*` keep for benchmarks. A thing in the colour that
    is natural to its kind says nothing of colours, as one that was drawn without any (`edits.fair`)."""
    from ..atelier.edits import fair
    from ..atelier.kinds import KINDS
    from ..atelier.sample import allowed
    from ..judges.inspector import demanded

    plain = (replace(one, colour=None) if one.colour == KINDS[one.kind].natural else one for one in seen.objects)
    if not fair(replace(seen, objects=tuple(plain)).to_scene()):
        return True
    try:
        return not allowed(demanded(prompt).include)
    except ValueError:  # not in the Atelier's words
        return False


def own_claim(prompt: str, sighting: Sighting, right: bool) -> Claim:
    """What was asked for, as a claim: by the rule of atelier-geneval if it is one of its tasks, by its label else."""
    from ..atelier.claims import Claim, said_of
    from ..atelier.language import canonical
    from ..atelier.language_parse import Demand
    from ..judges.inspector import demanded

    whole = Claim(prompt, (right,), (len(prompt),))
    try:
        clauses = demanded(prompt).include
    except ValueError:  # not in the Atelier's words
        return whole
    words = canonical(Demand(clauses))
    if prompt.endswith(" " + words):
        found = said_of(clauses, sighting, prompt.removesuffix(" " + words))
        if found.text == prompt:
            return found
    return whole
