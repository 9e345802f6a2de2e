"""The options of `reverie data build`."""

from __future__ import annotations

import argparse

from reverie.commands import build_options, cluster_options, model_options, rewrites_options


def add(parser: argparse.ArgumentParser) -> None:
    build = parser.add_subparsers(title="actions", required=True, metavar="ACTION", dest="action").add_parser(
        "build", help="make data to train on; goes on where it was stopped", allow_abbrev=False
    )
    kinds = build.add_subparsers(title="data", required=True, metavar="WHAT", dest="what")
    help_text = "What a vision-language model says about pictures, with the features that ThinkDiff learns from."
    features = kinds.add_parser("features", help=help_text, description=help_text, allow_abbrev=False)
    _features_arguments(features)
    help_text = "Thoughts and critiques region by region: what thinking while painting (TWIG) learns from."
    thoughts = kinds.add_parser("thoughts", help=help_text, description=help_text, allow_abbrev=False)
    _thoughts_arguments(thoughts)
    for parser in (features, thoughts):
        cluster_options.add(parser)
    rewrites_options.add(kinds)
    for name, help_text in VERIFIER_DATA.items():
        parser = kinds.add_parser(name, help=help_text, description=help_text, allow_abbrev=False)
        _verifier_arguments(parser, name)
        cluster_options.add(parser)


def _thoughts_arguments(parser: argparse.ArgumentParser) -> None:
    model_options.add(parser)
    parser.add_argument(
        "--teacher", default="atelier", metavar="WHO", help="atelier, a VLM's name, or openai:MODEL@URL"
    )
    build_options.add_prompts(parser, "atelier:N; for a VLM also a file of prompts", "stories")
    parser.add_argument(
        "--regions", default="3", metavar="K", help="parts of the image (default: 3); atelier: also several, as 2,3,4"
    )
    parser.add_argument("--judge", metavar="NAME", help="keep only pictures that this judge finds right")
    parser.add_argument(
        "--wrong", type=float, default=0.5, metavar="S", help="atelier: share of critiques of wrong scenes"
    )
    parser.add_argument(
        "--exercises", type=float, default=0.6, metavar="S", help="atelier: share of prompts as in atelier-compbench"
    )
    build_options.add_painting(parser, "stories")
    build_options.add_share(parser, "stories")


VERIFIER_DATA = {
    "ranking": "Finished images, right or not: what an outcome reward model (ORM) learns from.",
    "steps": "Unfinished images, labelled by roll-outs: what a process reward model (PRM) learns from.",
    "potential": "Clarity, potential and finished images: what PARM learns from.",
    "reflection": "What is wrong with images: what PARM++ learns from.",
    "looks": "Images, finished and before, with all that is seen in them: what a judge learns to compare from.",
    "damaged": "Images and damaged copies of them, in which some codes are another's, with all that is seen in them.",
    "between": "Drawn images, right or in part wrong, as a painter's codes have them, with all that is seen in them.",
    "correction": "Wrong images, what is wrong, and right ones: what a painter learns to correct itself from.",
    "preference": "A right and a wrong image of each prompt: what DPO learns from.",
}


def _verifier_arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    model_options.add(parser)
    build_options.add_prompts(parser, "a file of prompts, atelier:N, or things.json:N (templates)", "data")
    if kind != "between":  # which are drawn
        parser.add_argument(
            "--paths", metavar="DIR", help="of painted and labelled images, for several kinds (default: in OUT)"
        )
    parser.add_argument("--judge", default="atelier-inspector", metavar="NAME", help="who says what is right")
    parser.add_argument("--per-prompt", type=int, metavar="N", help="images of each prompt (default: 20; steps: 1)")
    build_options.add_painting(parser, "images")
    build_options.add_share(parser, "images")
    if kind in ("preference", "correction"):
        parser.add_argument("--each", type=int, default=1, metavar="N", help="pairs of a prompt at most (default: 1)")
        parser.add_argument("--pick", default="random", metavar="HOW", help="random, or extreme: by the judge's score")
    elif kind not in ("looks", "damaged", "between"):
        parser.add_argument(
            "--wording", metavar="NAME", help="in which the judge to be trained is asked (judges/wordings.yaml)"
        )
    if kind in ("steps", "potential", "looks"):
        parser.add_argument(
            "--looks", type=int, default=18, metavar="N", help="at how many points of a path (default: 18)"
        )
    if kind == "damaged":
        parser.add_argument("--copies", type=int, default=3, metavar="N", help="of each image (default: 3)")
    if kind == "steps":
        parser.add_argument("--rollouts", type=int, default=4, metavar="K", help="completions of a step (default: 4)")


def _features_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="NAME", help="a vision-language model: hub id or folder")
    parser.add_argument(
        "--images", required=True, nargs="+", metavar="PATH", help="folders of pictures, or JSONL lists"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="for the shards; goes on from here")
    parser.add_argument("--kind", default="generated", help="features of generated tokens, or of the input's")
    layers = "whose states are kept, from the top: -1 -2 ... (default: -1, as published)"
    parser.add_argument("--layers", type=int, nargs="+", default=[-1], metavar="N", help=layers)
    parser.add_argument("--read", action="store_true", help="keep the states that have read each token, too")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="of the longest answer (default: 256)")
    parser.add_argument("--temperature", type=float, default=0.6, metavar="T", help="of the answers (default: 0.6)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="pictures at a time (default: 16)")
    parser.add_argument("--max-pixels", type=int, metavar="N", help="largest area with which a picture enters")
    build_options.add_share(parser, "pictures", "have an --out each")
    parser.add_argument("--device", help="cpu, cuda, mps, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="of the weights: float32, bfloat16 or float16 (default: float32 on the CPU)")
