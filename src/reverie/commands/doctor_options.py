"""The options of `reverie doctor`."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("benchmark", help="the one that is going to be run, such as geneval or wise-verified")
    parser.add_argument("--judge", metavar="NAME", help="of the images: openai:MODEL@URL, a hub id or a folder")
    parser.add_argument(
        "--evaluator", action="append", metavar="ROLE=MODEL", help="who plays a role, such as detector=FOLDER"
    )
    parser.add_argument("--verifier", metavar="NAME", help="who will choose among candidates, such as clipscore:")
    parser.add_argument("--data", metavar="DIR", help="the benchmark's own files, to count what a run will ask")
    parser.add_argument("--prices", metavar="IN/OUT", help="of a million tokens of a server, such as 2.5/10")
    parser.add_argument("-n", "--per-prompt", type=int, metavar="N", help="images for each prompt of that run")
    parser.add_argument("--pictures", type=int, default=16, metavar="N", help="known pictures to show (default: 16)")
    parser.add_argument("--side", type=int, default=512, metavar="PIXELS", help="of these (default: 512)")
    parser.add_argument(
        "--workers", type=int, default=8, metavar="N", help="questions to a judge at a time (default: 8)"
    )
    parser.add_argument("--no-thinking", action="store_true", help="tell a vLLM server to switch thinking off")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
