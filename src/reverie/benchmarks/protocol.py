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
    from pathlib import Path

    from PIL.Image import Image

    from .outcome import Outcome


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


End = Literal["scored", "missing", "not painted", "unparsable", "judge error"]
"""What became of an image: judged; not in the folder; refused by the painter; judged in words that cannot be read; not
judged, because the judge failed on it."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says about one image."""

    score: float | None
    """In [0, 1], 1 is right; None where there is none."""
    reason: str = ""
    """Why it is not right, one line a failure."""
    seen: str = ""
    value: Any = None
    """What the benchmark's scores are made of, as JSON; None: of `score`."""
    end: End = "scored"
    answers: Sequence[Mapping[str, Any]] = ()
    """Of a judge that reads and writes, as they came."""


@dataclass(frozen=True)
class Row:
    """One image of a run with its judgement: a line of rows.jsonl."""

    id: str
    index: int
    tag: str
    cluster: str
    prompt: str
    text: str | None
    """What was painted from, where that is not the prompt."""
    thought: str | None
    seed: int | None
    file: str | None
    """Below the run's folder, or wherever the pictures lie."""
    sha256: str | None
    """Of the pixels, see `png.picture_hash`."""
    end: End
    score: float | None
    reason: str
    seen: str
    value: Any
    answers: Sequence[Mapping[str, Any]]

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
class Grid:
    """Several images of a prompt in one picture, as some layouts want them."""

    file: Callable[[Sample], str]
    join: Callable[[Sequence[Image]], Image]
    cut: Callable[[Image], Sequence[Image]]


@dataclass(frozen=True)
class Benchmark:
    """A fixed list of samples and the rule that scores them."""

    name: str
    version: str
    """Changes whenever the list or the rule does."""
    samples: Sequence[Sample]
    images_per_prompt: int
    judge: Callable[[Sample, Any], Judgement]
    """Of a sample and what is seen in one of its images: a detector's sighting, an `evaluations.Evaluation`, or the
    picture beside the one to be asked about it (`eyes.Shown`)."""
    file: Callable[[Sample, int], str]
    """Where the image number i of a sample lies inside the image folder, in the official layout."""
    metadata: Callable[[Sample], tuple[str, str] | None]
    """A file (name, text) that the layout wants beside the images of a sample."""
    weighting: Literal["strata", "items"]
    """Whether the overall score is the unweighted mean of the tags, or of all images."""
    inputs: Callable[[Sample], Inputs] | None = None
    """What a painter is given beside the prompt; asked for when the sample is painted. None: nothing."""
    eyes: Literal["inspector", "evaluators", "vlm"] = "inspector"
    """Who looks: the Atelier's inspector, detectors and the like, or a model that reads and writes."""
    evaluators: Mapping[str, str] = field(default_factory=dict)
    """Where evaluators look: the tag of a sample ("" for all others) to a name for `evaluators.for_benchmark`."""
    nouns: Mapping[str, str] = field(default_factory=dict)
    """What a detector must know to be told what to look for, see `compbench_rules.noun_table`."""
    pixels: bool = False
    """Whether the rule also looks at pixels: then the inspector's sighting comes with its picture
    (`eyes.Inspected`)."""
    official_judge: str | None = None
    """Who looks in the benchmark's own code; others give numbers that are not comparable."""
    missing: Judgement = Judgement(None, end="missing")
    """What stands for an image that is not there."""
    outcome: Callable[[Sequence[Row]], Outcome] | None = None
    """Scores from the rows of a run; None: the mean scores, overall and by tag."""
    grid: Grid | None = None
    export: Callable[[Path, Sequence[Row]], None] | None = None
    """Writes what official scripts want beside the pictures into a run's folder."""
    official: bool = False
    """Whether the bugs of the benchmark's own code are repeated."""
    percent: bool = False
    """Whether its scores are per cent."""

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
