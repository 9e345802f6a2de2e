"""`reverie data build WHAT ...`: builds training data; a build that was stopped goes on where it was."""

from __future__ import annotations

import argparse
import sys

from reverie.painter import _device
from reverie.refusals import check_place


def features(arguments: argparse.Namespace) -> int:
    """A VLM answers about pictures, and the features of its answers are kept."""
    from reverie.data.build_features import FeatureBuild, build_features, read_items

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
    items = read_items(arguments.images)
    from reverie.vlms.transformers import TransformersVLM

    vlm = TransformersVLM.load(
        arguments.model, device=_device(arguments.device), dtype=arguments.dtype, max_pixels=arguments.max_pixels
    )
    tell = None if arguments.quiet else _tell
    broken = build_features(vlm, arguments.model, items, arguments.out, build, tell)
    if broken:
        print(f"reverie: {len(broken)} pictures could not be opened; the first is {broken[0]}.", file=sys.stderr)
    print(arguments.out)
    return 0


def _tell(done: int, count: int) -> None:
    print(f"\r{done} of {count} pictures", end="\n" if done == count else "", file=sys.stderr, flush=True)
