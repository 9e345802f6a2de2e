"""The options of `reverie serve` and `reverie studio`."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--host", default="127.0.0.1", help="the address to listen at (default: this machine only)")
    option("--port", type=int, default=8760, help="(default: 8760; 0 takes a free one)")
    option(
        "--model", action="append", metavar="NAME", help="served; the first is the usual one (default: atelier-janus)"
    )
    option("--device", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    option("--dtype", help="of the weights: float32, bfloat16 or float16 (default: float32 on the CPU)")
    option("--key", metavar="SECRET", help="that clients must show (default: $REVERIE_KEY, or none)")
    option("--data", metavar="DIR", help="for runs, uploads and the index (default: the user's folder for data)")
    option("--reports", action="append", metavar="DIR", help="with evaluations and training runs (default: runs)")
    option("--keep-days", type=float, metavar="D", help="delete finished runs that are older (default: never)")
    option("--keep-gib", type=float, metavar="G", help="delete the oldest runs beyond so many GiB (default: never)")
    option("--max-queue", type=int, default=64, metavar="N", help="runs that may wait (default: 64)")
    option("--max-images", type=int, default=10, metavar="N", help="images of one run (default: 10)")
    option("--max-seconds", type=float, default=900, metavar="S", help="of painting for a run (default: 900)")
    option("--batch", type=int, default=32, metavar="N", help="images painted at once (default: 32)")
    option("--grace", type=float, default=30, metavar="S", help="for what is being painted when stopped (default: 30)")
    option("-q", "--quiet", action="store_true", help="print nothing but errors")
