"""The options that say which model works, and where."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="atelier-janus", metavar="NAME", help="a name, hub id or folder")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="of the weights: float32, bfloat16 or float16 (default: float32 on the CPU)")


def add_fitting(parser: argparse.ArgumentParser) -> None:
    """Of pipelines of diffusers; what they mean stands in fitting.py."""
    parser.add_argument("--offload", metavar="HOW", help="model or sequential: what of a pipeline waits on the CPU")
    parser.add_argument("--quantise", metavar="HOW", help="nf4 or int8: transformer and text encoder of a pipeline")
    parser.add_argument("--lora", metavar="PATH", help="LoRA weights of a pipeline, as diffusers saves them")
    parser.add_argument("--compile", dest="compiled", action="store_true", help="compile the transformer's blocks")
