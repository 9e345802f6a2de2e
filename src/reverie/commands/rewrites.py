"""`reverie data build rewrites`: a teacher reasons about prompts and rewrites them (see data/rewrites.py)."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reverie.commands.cluster_options import cluster_of
from reverie.commands.data import spread
from reverie.commands.outputs import check_writable
from reverie.loading import here

if TYPE_CHECKING:
    from reverie.data.rewrites import Teacher
    from reverie.data.shards import OnShard

DRAWN = ("atelier", "atelier-edits")
SHARES = ("plain", "drop", "mixed", "composed")
"""What the teacher `atelier` is told of its riddles."""


def rewrites(arguments: argparse.Namespace) -> int:
    from reverie.data.rewrites import RewriteBuild, build_rewrites
    from reverie.thinkers import WORDINGS

    if arguments.wording not in WORDINGS:
        raise ValueError(f"--wording {arguments.wording!r}: must be one of {', '.join(WORDINGS)}.")
    for name in SHARES:
        if not 0 <= getattr(arguments, name) <= 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}: a share, from 0 to 1.")
    on = cluster_of(arguments)
    count, teach = _asked(arguments)
    about = {name: getattr(arguments, name) for name in ("prompts", "seed")}
    about |= (
        {name: getattr(arguments, name) for name in SHARES}
        if arguments.teacher == "atelier"
        else {"wording": arguments.wording}
    )
    check_writable(Path(arguments.out))
    build = RewriteBuild(count, arguments.batch, arguments.part, arguments.parts)

    def opened(tell: OnShard | None = None) -> Callable[[int, int], dict[str, int] | None]:
        teacher = teach()
        return lambda part, parts: build_rewrites(
            teacher, arguments.out, replace(build, part=part, parts=parts), about, tell
        )

    if on is None:
        counts = opened(None if arguments.quiet else _tell)(arguments.part, arguments.parts)
    else:
        counts = spread(arguments, on, opened, len(build.shards))
    if counts is None:
        print(f"{arguments.out}: this part is done; others are missing.")
        return 0
    for name, value in counts.items():
        print(f"{name}: {value}")
    return 0


def _asked(arguments: argparse.Namespace) -> tuple[int, Callable[[], Teacher]]:
    """About how many prompts is written, and what loads who writes."""
    from reverie.data.rewriters import AtelierRewriter, VlmRewriter

    name, _, count = arguments.prompts.rpartition(":")
    if arguments.teacher == "atelier":
        if name not in DRAWN or not re.fullmatch(r"[1-9]\d*", count):
            raise ValueError("the teacher `atelier` knows its own prompts only; give --prompts atelier:N.")
        shares = {share: getattr(arguments, share) for share in SHARES}
        return int(count), partial(AtelierRewriter, arguments.seed, edits=name == "atelier-edits", **shares)
    if name == "atelier-edits":
        raise ValueError("atelier-edits:N is for the teacher `atelier`; give a VLM a file of prompts with images.")
    from reverie.data.prompts import read
    from reverie.models.registry import resolve
    from reverie.refusals import check_judges

    check_judges(resolve(arguments.teacher, "judge"))
    found = read(arguments.prompts, arguments.exclude, arguments.seed).prompts
    folder = Path(arguments.prompts).parent.resolve() if Path(arguments.prompts).is_file() else Path()

    def load() -> Teacher:
        from reverie.vlms.named import open_vlm

        vlm = open_vlm(arguments.teacher, here(arguments.device), cache=Path(arguments.out) / "answers")
        return VlmRewriter(vlm, found, arguments.wording, folder, arguments.tokens, arguments.teacher)

    return len(found), load


def _tell(done: int, count: int) -> None:
    print(f"\rrewrites: {done} of {count} shards", end="\n" if done == count else "", file=sys.stderr, flush=True)
