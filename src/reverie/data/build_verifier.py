"""One build of data for verifiers or preferences: paint, label, and make of it what the kind asks for.

build("potential", painter, judge, prompts.read("atelier:500"), "runs/potential", PathBuild(per_prompt=8), wording)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import claim, write_atomically
from . import pairs, records, verifier
from .pairs import PairData
from .paths import PathBuild, Paths, build_paths
from .verifier import VerifierData

if TYPE_CHECKING:
    from ..atelier.inspector import Inspector
    from ..judges import Judge
    from ..judges.vlm import Wording
    from ..painter import Painter
    from .prompts import Prompts

LOOKS = ("looks", "damaged", "between")
KINDS = (*verifier.KINDS, *pairs.KINDS, *LOOKS)
OnPart = Callable[[str, int, int], None]
"""What is being made, how much of it is done, how much there is."""


@dataclass(frozen=True)
class Build:
    """What is built and how; a plan's guidance and temperature say how is painted."""

    kind: str
    paths: PathBuild
    wording: Wording
    verifier: VerifierData = field(default_factory=VerifierData)
    pairs: PairData = field(default_factory=PairData)
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: must be one of {', '.join(KINDS)}.")


def build(
    build: Build,
    painter: Painter,
    judge: Judge,
    prompts: Prompts,
    out: str | Path,
    paths: str | Path | None = None,
    on_part: OnPart | None = None,
) -> dict[str, Any] | None:
    """Fills `out`, or goes on with it, and returns the statistics, which also stand in stats.json; None where other
    parts have yet to do their share. `paths`: a folder of painted images that several builds may share."""
    from ..reason import Plan

    out = Path(out)
    generator = painter.generator(Plan(guidance=build.paths.guidance, temperature=build.temperature))
    if build.kind in LOOKS:
        _inspector(judge)
        if build.kind != "looks":
            from .damaged import grid_of

            grid_of(generator)

    def told(what: str) -> Callable[[int, int], None] | None:
        return None if on_part is None else lambda done, count: on_part(what, done, count)

    about = {name: painter.about[name] for name in ("model", "fingerprint", "dtype")}
    about |= {"temperature": build.temperature, "steps": generator.steps}
    counts: dict[str, Any] | None
    if build.kind == "between":
        counts = _between(build, prompts, generator, judge, out, about, told("images"))
    else:
        painted = paths or out / "paths"
        found = build_paths(generator, judge, prompts.prompts, painted, build.paths, about, told("images"))
        counted = _pairs if build.kind in pairs.KINDS else _looks if build.kind in LOOKS else _records
        counts = counted(build, found, generator, judge, out, told("records"))
    if counts is None:
        return None
    stats = {"kind": build.kind, "left out": {"twins": prompts.twins, "of benchmarks": prompts.asked}, **counts}
    text = json.dumps(stats, indent=1) + "\n"
    write_atomically(out / "stats.json", lambda part: part.write_text(text, "utf-8"))
    return stats


def _records(
    build: Build, paths: Paths, generator: Any, judge: Judge, out: Path, tell: Callable[[int, int], None] | None
) -> dict[str, Any] | None:
    claim(out / "data.json", {"kind": build.kind, **asdict(build.verifier), "wording": asdict(build.wording)})
    make = verifier.Builder(build.kind, generator, judge, build.wording, out, build.verifier)
    mine = list(range(build.paths.part, paths.count, build.paths.parts))
    records.fill(out, mine, lambda number: make.records(paths.shard(number)), tell)
    counts = records.finish(out, paths.count)
    return None if counts is None else {"answers": counts}


def _pairs(
    build: Build, paths: Paths, generator: Any, judge: Judge, out: Path, tell: Callable[[int, int], None] | None
) -> dict[str, Any] | None:
    if not paths.whole:
        return None
    return {"counts": pairs.build_pairs(build.kind, paths, generator, judge, out, build.pairs)}


def _looks(
    build: Build, paths: Paths, generator: Any, judge: Judge, out: Path, tell: Callable[[int, int], None] | None
) -> dict[str, Any] | None:
    from .damaged import build_damaged
    from .looks import build_looks

    inspector = _inspector(judge)
    claim(out / "data.json", {"kind": LOOKS[0], **asdict(build.verifier)})
    mine = list(range(build.paths.part, paths.count, build.paths.parts))
    made = build_damaged if build.kind == "damaged" else build_looks
    made(paths, generator, inspector, out, build.verifier, mine, tell)
    images = paths.about["prompts"] * paths.about["per_prompt"]
    copies = build.verifier.copies if build.kind == "damaged" else 0
    return {"images": images * (copies + 1)} if paths.whole else None


def _between(
    build: Build,
    prompts: Prompts,
    generator: Any,
    judge: Judge,
    out: Path,
    about: dict[str, Any],
    tell: Callable[[int, int], None] | None,
) -> dict[str, Any] | None:
    from .between import build_between

    inspector, settings = _inspector(judge), build.paths
    held = {"per_prompt": settings.per_prompt, "batch": settings.batch, "seed": settings.seed}
    claim(out / "data.json", {"kind": LOOKS[0], **about, **held, "prompts": len(prompts.prompts)})
    images = len(prompts.prompts) * settings.per_prompt
    whole = build_between(prompts.prompts, generator, inspector, out, settings, tell)
    return {"images": images} if whole else None


def _inspector(judge: Judge) -> Inspector:
    from ..judges.inspector import InspectorJudge

    if not isinstance(judge, InspectorJudge):
        raise ValueError(
            f"looks are labelled by what is seen in them, which {judge.name} does not tell; leave --judge out."
        )
    return judge.inspector
