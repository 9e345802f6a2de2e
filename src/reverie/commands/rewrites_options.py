"""The options of `reverie data build rewrites`."""

from __future__ import annotations

import argparse
from typing import Any

from reverie.commands import build_options, cluster_options

HELP = "Prompts with the reasoning about them and what it arrives at: what thinking before painting learns from."


def add(kinds: Any) -> None:
    """Adds the parser to those of `data build`."""
    parser: argparse.ArgumentParser = kinds.add_parser("rewrites", help=HELP, description=HELP, allow_abbrev=False)
    parser.add_argument(
        "--teacher", default="atelier", metavar="WHO", help="atelier, a VLM's name, or openai:MODEL@URL"
    )
    build_options.add_prompts(parser, "atelier:N, atelier-edits:N; for a VLM a file of prompts", "rewrites")
    parser.add_argument("--wording", default="t2g", metavar="NAME", help="how a VLM is asked (default: t2g)")
    parser.add_argument("--tokens", type=int, default=1024, metavar="N", help="of an answer at most (default: 1024)")
    parser.add_argument(
        "--plain", type=float, default=0.35, metavar="S", help="atelier: share of prompts that say what they mean"
    )
    parser.add_argument(
        "--drop", type=float, default=0.0, metavar="S", help="atelier: share of words left out of half of the riddles"
    )
    parser.add_argument(
        "--mixed",
        type=float,
        default=0.0,
        metavar="S",
        help="atelier: share of facts asked in words of two wordings",
    )
    parser.add_argument(
        "--composed",
        type=float,
        default=0.4,
        metavar="S",
        help="atelier: share of riddles that ask for two facts",
    )
    parser.add_argument("--batch", type=int, default=256, metavar="N", help="prompts of a file (default: 256)")
    build_options.add_share(parser, "prompts")
    parser.add_argument("--device", metavar="NAME", help="of a VLM that is loaded here")
    cluster_options.add(parser)
