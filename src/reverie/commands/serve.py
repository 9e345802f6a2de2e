"""`reverie serve` and `reverie studio`: the HTTP server, and the same with a browser opened at its page."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reverie.models.registry import resolve
from reverie.refusals import check_place

if TYPE_CHECKING:
    from reverie.studio.app import Settings

KEY_VARIABLE = "REVERIE_KEY"


def serve(arguments: argparse.Namespace, browser: bool = False) -> int:
    """Serves until it is told to stop. ValueError for settings that cannot be used."""
    settings = settings_of(arguments)
    from reverie.studio.server import run

    run(settings, arguments.port, browser=browser, quiet=arguments.quiet)
    return 0


def settings_of(arguments: argparse.Namespace) -> Settings:
    """What the options say, checked without loading anything."""
    check_place(arguments.device, arguments.dtype)
    names = tuple(dict.fromkeys(arguments.model or ["atelier-janus"]))
    for name in names:
        resolve(name)
    for name, least in (("max_queue", 1), ("max_images", 1), ("batch", 1), ("max_seconds", 1), ("grace", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least {least}.")
    for name in ("keep_days", "keep_gib"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must not be negative.")
    if not 0 <= arguments.port < 65536:
        raise ValueError(f"--port {arguments.port}: must lie between 0 and 65535.")
    key = arguments.key or os.environ.get(KEY_VARIABLE) or None
    from reverie.studio.app import Settings
    from reverie.studio.request import House, Limits
    from reverie.studio.store import default_data

    limits = replace(
        Limits(),
        images=arguments.max_images,
        queue=arguments.max_queue,
        batch=arguments.batch,
        seconds=arguments.max_seconds,
    )
    return Settings(
        house=House(names, limits),
        data=Path(arguments.data) if arguments.data else default_data(),
        reports=tuple(map(Path, arguments.reports or ["runs"])),
        host=arguments.host,
        key=key,
        device=arguments.device,
        dtype=arguments.dtype,
        keep_days=arguments.keep_days,
        keep_bytes=None if arguments.keep_gib is None else int(arguments.keep_gib * 2**30),
        grace=arguments.grace,
    )
