"""The nouns of the harness: a sample, a painted image, a judgement; and who paints, who looks, what a benchmark is.

Any generator fits that has a name and a method `paint`; ten lines make one:

    class Mine:
        name = "mine-v1"

        def paint(self, prompts, seeds, plan):
            return [Painted(my_model(prompt, seed)) for prompt, seed in zip(prompts, seeds)]

    evaluate("atelier-geneval", Mine(), "runs/mine")

An image must depend on its prompt, seed and plan alone, so that a stopped run goes on to the same result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Sample:
    """One prompt of a benchmark."""

    id: str
    """Unique and stable; the seeds of its images follow from it."""
    prompt: str
    """The only thing that a painter sees."""
    tag: str
    """The task or category that it counts for."""
    record: Mapping[str, Any]
    """What is demanded, in the form of the benchmark's own records."""
    cluster: str
    """Samples that demand the same thing share one; intervals draw whole clusters."""


@dataclass(frozen=True)
class Inputs:
    """What a painter is given beside the prompt, in benchmarks of editing and of learning from examples."""

    picture: Image | None = None
    """To be edited; the prompt is the instruction."""
    context: Sequence[Image | str] = ()
    """Pictures and texts that come before the prompt, in order."""
    prompt: str | None = None
    """What comes last, where that is not the sample's prompt."""


@dataclass(frozen=True)
class Painted:
    """What a painter hands back for one prompt and seed."""

    image: Image
    text: str | None = None
    """What was painted from, where that is not the prompt as it was given."""
    thought: str | None = None
    work: Mapping[str, int] = field(default_factory=dict)
    """Counters of work, such as decoded tokens; any names, added up over the images of a call."""


@dataclass(frozen=True)
class Judgement:
    """Whether an image is right, why not (one line a failure), and what was seen in it."""

    correct: bool
    reason: str = ""
    seen: str = ""


@dataclass(frozen=True)
class Row:
    """One image of a run: a line of rows.jsonl."""

    id: str
    index: int
    tag: str
    cluster: str
    prompt: str
    text: str | None
    thought: str | None
    seed: int | None
    file: str
    sha256: str
    """Of the pixels, see `png.picture_hash`."""
    correct: bool
    reason: str
    seen: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Painter(Protocol):
    """Whatever turns prompts into images."""

    @property
    def name(self) -> str:
        """Written into the results; a run resumes only under the same name."""

    def paint(self, prompts: Sequence[str], seeds: Sequence[int], plan: Any) -> Sequence[Painted]:
        """One image for each prompt and seed, in order. Neighbours often share a prompt. `plan` is passed through.

        Where a benchmark gives more than prompts, there is a further argument `inputs` with an `Inputs` for each."""


class Detector(Protocol):
    """Whatever says what Atelier pictures contain, such as the inspector."""

    def look(self, images: Sequence[Image]) -> Sequence[Any]:
        """One `atelier.inspector.Sighting` for each image."""


@dataclass(frozen=True)
class Benchmark:
    """A fixed list of samples and the rule that scores them."""

    name: str
    version: str
    """Changes whenever the list or the rule does."""
    samples: tuple[Sample, ...]
    images_per_prompt: int
    judge: Callable[[Sample, Any], Judgement]
    """Of a sample and what the detector says about one of its images."""
    file: Callable[[Sample, int], str]
    """Where the image number i of a sample lies inside the image folder, in the layout of the namesake."""
    metadata: Callable[[Sample], tuple[str, str] | None]
    """A file (name, text) that the layout wants beside the images of a sample."""
    weighting: Literal["strata", "items"]
    """Whether the overall score is the unweighted mean of the tags, or of all images."""
    inputs: Callable[[Sample], Inputs] | None = None
    """What a painter is given beside the prompt; asked for when the sample is painted. None: nothing."""

    @property
    def checksum(self) -> str:
        """SHA-256 over ids, prompts, tags and records."""
        return checksum(self.samples)


def checksum(samples: Sequence[Sample]) -> str:
    text = json.dumps([[s.id, s.prompt, s.tag, s.record] for s in samples], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def image_seed(seed: int, sample: str, index: int) -> int:
    """The seed of image number `index` of a sample: 48 bits of a hash, whatever the order or the sharding."""
    digest = hashlib.sha256(f"{seed}/{sample}/{index}".encode()).digest()
    return int.from_bytes(digest[:6], "big")
