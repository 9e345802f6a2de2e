"""The options that builds of data share: what from, where to, and which share of it."""

from __future__ import annotations

import argparse


def add_prompts(parser: argparse.ArgumentParser, prompts: str, out: str) -> None:
    parser.add_argument("--prompts", required=True, metavar="WHAT", help=prompts)
    parser.add_argument("--exclude", nargs="+", default=(), metavar="FILE", help="leave out the prompts of these files")
    parser.add_argument("--out", required=True, metavar="DIR", help=f"for the {out}; goes on from here")


def add_painting(parser: argparse.ArgumentParser, made: str) -> None:
    """How what is made is painted."""
    parser.add_argument("--guidance", type=float, metavar="W", help="how strongly to follow the prompt; 1 is off")
    parser.add_argument("--temperature", type=float, metavar="T", help="of the image tokens")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help=f"{made} made at a time (default: 64)")


def add_share(parser: argparse.ArgumentParser, made: str, where: str = "may fill one folder at a time") -> None:
    parser.add_argument("--part", type=int, default=0, metavar="I", help=f"which share of the {made}, from 0")
    parser.add_argument("--parts", type=int, default=1, metavar="N", help=f"shares, which {where}")
    parser.add_argument("--seed", type=int, default=0, help="of the whole build (default: 0)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
