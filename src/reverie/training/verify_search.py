"""Rows of the table of "verify and reinforce" that no pool holds, since what is painted depends on what was judged:
step-level search (PRM) and reflection (PARM++).

    python -m reverie.training.verify_search --model atelier-showo --judge runs/parm/judge --plan choose=prm -n 20 \\
        --out runs/prm.json

The plan is carried out as `reverie generate` would, many prompts at a time, and each image judged by the rule of
atelier-geneval. With the judge atelier-inspector, which knows that rule, choices are an oracle's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically


def search(
    painter: Any, plan: Any, judge: Any, inspector: Any, samples: Sequence[Any], *, seed: int, batch: int
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One image of each sample: whether it is right, and after how many rounds it was kept; and the work of all."""
    from ..benchmarks.atelier_geneval import judge as scored
    from ..benchmarks.protocol import image_seed
    from ..events import Finished, Spent

    prompts = [sample.prompt for sample in samples]
    seeds = [image_seed(seed, prompt, 0) for prompt in prompts]
    found: dict[int, dict[str, Any]] = {}
    work: dict[str, int] = {}
    for event in painter.run(plan, prompts, seeds, judge=judge, batch=batch):
        if isinstance(event, Finished):
            assert event.picture is not None
            verdict = scored(samples[event.image], inspector.look([event.picture])[0])
            rounds = event.recipe.get("rounds") or []
            about = {"right": verdict.score, "round": event.recipe.get("round", 0), "rounds": len(rounds)}
            found[event.image] = {"id": samples[event.image].id, **about}
            if len(found) % 64 == 0:
                print(f"{len(found)} of {len(prompts)}", flush=True)
        if isinstance(event, Spent):
            work = {name: count for name, (count, _) in event.work.items()}
    return [found[place] for place in range(len(prompts))], work


def main(given: argparse.Namespace) -> None:
    import yaml

    from ..atelier.inspector import Inspector
    from ..benchmarks.atelier_geneval import samples
    from ..benchmarks.stats import estimate
    from ..judges.load import judge_by_name, name_of
    from ..loading import here
    from ..painter import load
    from ..reason import make_plan
    from .qwen_judge import QuickJudge
    from .recipes import shipped

    device = here(given.device)
    oracle = given.judge == "atelier-inspector"
    judge = judge_by_name(given.judge, device) if oracle else QuickJudge.load(given.judge, device)
    painter = load(given.model, device, given.dtype)
    fields = dict(item.split("=", 1) for item in given.plan)
    wanted = {name: yaml.safe_load(value) for name, value in fields.items()}
    judges = wanted.get("choose", "first") != "first" or wanted.get("reflect", 0) > 0
    plan = make_plan(None, judge=name_of(judge) if judges else None, candidates=given.n, **wanted)
    chosen, start = samples()[:: given.every], time.monotonic()
    rows, work = search(
        painter, plan, judge, Inspector.load(shipped("atelier-inspector"), device), chosen, seed=given.seed,
        batch=given.batch,
    )  # fmt: skip
    clusters, tags = [sample.cluster for sample in chosen], [sample.tag for sample in chosen]
    overall = estimate([row["right"] for row in rows], clusters, tags, "strata")
    tasks = {
        t: sum(r["right"] for r, tag in zip(rows, tags, strict=True) if tag == t) / tags.count(t) for t in set(tags)
    }
    told = {"plan": given.plan, "n": given.n, "model": painter.about, "judge": given.judge, "work": work}
    told |= {"overall": overall.mean, "low": overall.low, "high": overall.high, "tasks": tasks, "rows": rows}
    told |= {"seconds": round(time.monotonic() - start, 1)}
    text = json.dumps(told) + "\n"
    write_atomically(given.out, lambda part: part.write_text(text, "utf-8"))
    print(given.plan, given.n, overall, {name: round(share, 3) for name, share in tasks.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Carries out a plan over the prompts of atelier-geneval.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--plan", nargs="+", default=[], metavar="FIELD=VALUE")
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th prompt only")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--out", type=Path, required=True)
    main(parser.parse_args())
