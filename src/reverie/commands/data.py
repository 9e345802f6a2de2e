"""`reverie data build WHAT ...`: builds training data; a build that was stopped goes on where it was."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.commands.cluster_options import cluster_of
from reverie.commands.outputs import check_writable
from reverie.loading import here
from reverie.refusals import check_judges, check_place

if TYPE_CHECKING:
    from reverie.cluster.pool import Cluster
    from reverie.data.build_verifier import Build, OnPart
    from reverie.data.prompts import Prompts
    from reverie.data.shards import ShardedBuild
    from reverie.data.teachers import AtelierTeacher, VlmTeacher
    from reverie.painter import Painter
    from reverie.vlms.transformers import TransformersVLM


def features(arguments: argparse.Namespace) -> int:
    """A VLM answers about pictures, and the features of its answers are kept."""
    from reverie.data.build_features import FeatureBuild, build_features, read_items

    on = cluster_of(arguments)
    check_place(arguments.device, arguments.dtype)
    build = FeatureBuild(
        kind=arguments.kind,
        limit=arguments.tokens,
        temperature=arguments.temperature,
        batch=arguments.batch,
        seed=arguments.seed,
        part=arguments.part,
        parts=arguments.parts,
    )
    items = read_items(*arguments.images)
    opened = partial(_open_vlm, arguments)
    tell = None if arguments.quiet else _tell
    if on is None:
        broken = build_features(opened(), arguments.model, items, arguments.out, build, tell)
    else:
        from reverie.cluster.features import features_on

        broken = features_on(on, opened, arguments.model, items, arguments.out, build, tell)
    if broken:
        print(f"reverie: {len(broken)} pictures could not be opened; the first is {broken[0]}.", file=sys.stderr)
    print(arguments.out)
    return 0


def _open_vlm(arguments: argparse.Namespace) -> TransformersVLM:
    from reverie.vlms.states import FeatureStates
    from reverie.vlms.transformers import TransformersVLM

    return TransformersVLM.load(
        arguments.model, device=here(arguments.device), dtype=arguments.dtype, max_pixels=arguments.max_pixels,
        states=FeatureStates(tuple(arguments.layers), arguments.read),
    )  # fmt: skip


def verifier(arguments: argparse.Namespace) -> int:
    """Images are painted and judged, and what a verifier or a painter learns from is made of them."""
    from reverie.data import prompts
    from reverie.judges.load import check_atelier
    from reverie.models.registry import resolve

    on = cluster_of(arguments)
    check_place(arguments.device, arguments.dtype)
    resolve(arguments.model)
    judging = resolve(arguments.judge, "judge")
    if judging.family != "inspector":
        check_judges(judging)
    wanted = _wanted(arguments)
    found = prompts.read(arguments.prompts, arguments.exclude, arguments.seed)
    if judging.family == "inspector":
        for prompt in found.prompts:
            check_atelier(prompt.text)
    check_writable(Path(arguments.out))
    tell = None if arguments.quiet else _part
    opened = partial(_open_verifier, arguments, wanted, found)
    if on is None:
        stats = opened(tell)(arguments.part, arguments.parts)
    else:
        shards = -(-len(found.prompts) * wanted.paths.per_prompt // wanted.paths.batch)
        stats = spread(arguments, on, opened, shards)
    if stats is None:
        print(f"{arguments.out}: this part is done; the last one to finish puts the data together.")
        return 0
    for name, count in _flat(stats):
        print(f"{name}: {count}")
    return 0


def _open_verifier(
    arguments: argparse.Namespace, wanted: Build, found: Prompts, tell: OnPart | None = None
) -> Callable[[int, int], dict[str, Any] | None]:
    """Loads who paints and who judges, and gives what does a part of the build."""
    from reverie.data.build_verifier import build
    from reverie.judges.load import judge_by_name
    from reverie.painter import load

    painter = load(arguments.model, arguments.device, arguments.dtype)
    judge = judge_by_name(arguments.judge, str(painter.model.device))

    def share(part: int, parts: int) -> dict[str, Any] | None:
        own = replace(wanted, paths=replace(wanted.paths, part=part, parts=parts))
        return build(own, painter, judge, found, arguments.out, vars(arguments).get("paths"), tell)

    return share


def spread(arguments: argparse.Namespace, on: Cluster, opened: Callable[[], Any], shards: int) -> Any:
    """A build in actors; ValueError where it is split by hand as well."""
    from reverie.cluster.building import build_on

    if arguments.parts != 1:
        raise ValueError("--parts splits a build by hand and --on in actors: give one of them.")
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    arguments.out = str(Path(arguments.out).resolve())  # actors have working folders of their own
    return build_on(on, opened, shards, None if arguments.quiet else partial(_part, "shards"))


def _wanted(arguments: argparse.Namespace) -> Build:
    from reverie.data.build_verifier import Build, PairData, PathBuild, VerifierData
    from reverie.judges.vlm import Wording

    given = vars(arguments)
    per_prompt = arguments.per_prompt or (1 if arguments.what == "steps" else 20)
    atelier = arguments.judge == "atelier-inspector"
    wording = given.get("wording") or ("atelier" if atelier else "verify-and-reinforce")

    def settings(*names: str) -> dict:
        return {name: given[name] for name in names if given.get(name) is not None}

    return Build(
        arguments.what,
        PathBuild(per_prompt, arguments.batch, arguments.guidance, arguments.seed, arguments.part, arguments.parts),
        Wording.of(wording),
        VerifierData(**settings("looks", "rollouts", "batch", "seed", "copies")),
        PairData(**settings("each", "pick", "seed")),
        arguments.temperature,
    )


def thoughts(arguments: argparse.Namespace) -> int:
    """A teacher writes thoughts and critiques of pictures, region by region."""
    from reverie.data import prompts
    from reverie.data.shards import ShardedBuild
    from reverie.models.registry import resolve

    on = cluster_of(arguments)
    check_place(arguments.device, arguments.dtype)
    source, regions = resolve(arguments.model), _regions(arguments.regions)
    if len(regions) > 1 and arguments.teacher != "atelier":
        raise ValueError("only the teacher `atelier` mixes numbers of regions; give --regions one number.")
    if arguments.judge:
        check_judges(resolve(arguments.judge, "judge"))
    if arguments.teacher == "atelier" and source.family not in (None, "janus"):
        raise ValueError(f"{source.name} does not think while it paints, so it has nothing to learn from stories.")
    if arguments.teacher == "atelier" and not arguments.prompts.startswith("atelier:"):
        raise ValueError("the teacher `atelier` knows the truth of its own scenes only; give --prompts atelier:N.")
    found = prompts.read(arguments.prompts, arguments.exclude, arguments.seed)
    build = ShardedBuild(len(found.prompts), arguments.batch, arguments.part, arguments.parts)
    check_writable(Path(arguments.out))
    opened = partial(_open_thoughts, arguments, build, found)
    if on is None:
        counts = opened(None if arguments.quiet else partial(_part, "stories"))(arguments.part, arguments.parts)
    else:
        counts = spread(arguments, on, opened, len(build.shards))
    if counts is None:
        print(f"{arguments.out}: this part is done; others are missing.")
        return 0
    for name, count in counts.items():
        print(f"{name}: {count}")
    return 0


def _regions(text: str) -> tuple[int, ...]:
    """Numbers of regions, one or several with commas between them."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"regions={text!r}: must be a whole number above 0, or several such as 2,3,4.")
    return tuple(map(int, parts))


def _open_thoughts(
    arguments: argparse.Namespace, build: ShardedBuild, found: Prompts, tell: Callable[[int, int], None] | None = None
) -> Callable[[int, int], dict[str, int] | None]:
    """Loads painter and teacher, and gives what does a part of the build."""
    from reverie.data.stories import build_stories
    from reverie.painter import load

    painter = load(arguments.model, arguments.device, arguments.dtype)
    teacher = _teacher(arguments, painter, found, _regions(arguments.regions))
    about = {name: painter.about[name] for name in ("model", "fingerprint", "dtype")}
    about |= {name: getattr(arguments, name) for name in ("prompts", "regions", "guidance", "temperature", "judge")}
    about |= {name: getattr(arguments, name) for name in ("wrong", "exercises", "seed")} | {"wording": teacher.wording}
    return lambda part, parts: build_stories(
        teacher, arguments.out, replace(build, part=part, parts=parts), about, tell
    )


def _teacher(
    arguments: argparse.Namespace, painter: Painter, found: Prompts, regions: tuple[int, ...]
) -> AtelierTeacher | VlmTeacher:
    from reverie.data.teachers import AtelierTeacher, VlmTeacher
    from reverie.judges.load import judge_by_name
    from reverie.models.registry import resolve
    from reverie.reason import Plan
    from reverie.vlms.named import open_vlm

    generator = painter.generator(Plan(guidance=arguments.guidance, temperature=arguments.temperature))
    if arguments.teacher == "atelier":
        side = painter.model.config.grid * painter.model.config.pixels_per_code
        row = getattr(generator, "row", 1)
        return AtelierTeacher(
            painter.model.encode_image, generator.steps, row, regions, arguments.wrong, side, arguments.seed,
            arguments.exercises,
        )  # fmt: skip
    device = str(painter.model.device)
    judge = judge_by_name(arguments.judge, device) if arguments.judge else None
    own = resolve(arguments.model).thinker
    wording = own if own == "atelier" else "instruct"
    return VlmTeacher(
        open_vlm(arguments.teacher, device, cache=Path(arguments.out) / "answers"), generator, found.prompts, wording,
        regions[0], arguments.guidance, judge, arguments.seed, arguments.teacher,
    )  # fmt: skip


def _flat(stats: dict, before: str = "") -> list[tuple[str, object]]:
    """Nested counts as lines."""
    found: list[tuple[str, object]] = []
    for name, value in stats.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{name}, ")
        else:
            found.append((f"{before}{name}", value))
    return found


def _part(what: str, done: int, count: int) -> None:
    end = "\n" if done == count else ""
    print(f"\r{what}: {done} of {count} shards", end=end, file=sys.stderr, flush=True)


def _tell(done: int, count: int) -> None:
    print(f"\r{done} of {count} pictures", end="\n" if done == count else "", file=sys.stderr, flush=True)
