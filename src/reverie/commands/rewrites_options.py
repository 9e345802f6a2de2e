"""The options of `reverie data build rewrites`."""

from __future__ import annotations

import argparse
from typing import Any

from reverie.commands import cluster_options

HELP = "Prompts with the reasoning about them and what it arrives at: what thinking before painting learns from."


def add(kinds: Any) -> None:
    """Adds the parser to those of `data build`."""
    parser: argparse.ArgumentParser = kinds.add_parser("rewrites", help=HELP, description=HELP, allow_abbrev=False)
    parser.add_argument(
        "--teacher", default="atelier", metavar="WHO", help="atelier, a VLM's name, or openai:MODEL@URL"
    )
    parser.add_argument(
        "--prompts", required=True, metavar="WHAT", help="atelier:N, atelier-edits:N; for a VLM a file of prompts"
    )
    parser.add_argument("--exclude", nargs="+", default=(), metavar="FILE", help="leave out the prompts of these files")
    parser.add_argument("--out", required=True, metavar="DIR", help="for the rewrites; goes on from here")
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
    parser.add_argument("--part", type=int, default=0, metavar="I", help="which share of the prompts, from 0")
    parser.add_argument("--parts", type=int, default=1, metavar="N", help="shares, which may fill one folder at a time")
    parser.add_argument("--device", metavar="NAME", help="of a VLM that is loaded here")
    parser.add_argument("--seed", type=int, default=0, help="of the whole build (default: 0)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    cluster_options.add(parser)
