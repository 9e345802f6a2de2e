"""The options of `reverie evaluate` beside those of models and plans."""

from __future__ import annotations

import argparse

from reverie.commands import cluster_options


def add(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("benchmark", help="its name, such as atelier-wise, geneval or wise-verified")
    option("--out", required=True, metavar="DIR", help="for rows, scores and report; goes on from here")
    option("--images", metavar="DIR", help="judge the pictures in here, in the official layout, instead of painting")
    option("--data", metavar="DIR", help="the benchmark's own files (default: from the hub, if there)")
    option("-n", "--per-prompt", type=int, metavar="N", help="images for each prompt (default: the benchmark's own)")
    option("--limit", type=int, metavar="N", help="only N prompts, evenly spread, for a quick look")
    option("--seed", type=int, default=0, help="of the whole evaluation (default: 0)")
    option("--batch", type=int, default=64, metavar="N", help="images at a time (default: 64)")
    option("--shard", metavar="I/N", help="the I-th of N processes that share OUT")
    option("--judge", dest="benchmark_judge", metavar="NAME", help="of the images: openai:MODEL@URL, hub id or folder")
    option("--evaluator", action="append", metavar="ROLE=MODEL", help="who plays a role, such as detector=FOLDER")
    option("--evaluations", metavar="FILE", help="what evaluators saw elsewhere, as JSON lines")
    option("--official", dest="official_rules", action="store_true", help="repeat the bugs of the benchmark's own code")
    option("--cache", metavar="DIR", help="of a judge's answers (default: in OUT)")
    option("--requests", type=int, metavar="N", help="the most to send to a server; 0: the cache alone")
    option("--tokens", type=int, metavar="N", help="the most to pay a server for")
    option("--workers", type=int, default=8, metavar="N", help="questions to a judge at a time (default: 8)")
    option("--no-thinking", action="store_true", help="tell a vLLM server to switch thinking off")
    cluster_options.add(parser)
