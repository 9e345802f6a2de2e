"""The options that say which model works, and where."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="atelier-janus", metavar="NAME", help="a name, hub id or folder")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="of the weights: float32, bfloat16 or float16 (default: float32 on the CPU)")
