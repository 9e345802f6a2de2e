"""Paired differences between rows of the tables: the same prompts and seeds, so that luck falls out.

    python recipes/twig/differences.py --out runs/tables --pairs sft:direct,rl:sft --benchmark atelier-compbench

Prints for each pair and task the difference of the means in points with a 95% bootstrap interval over prompts (all
images of a prompt stand or fall together), and how many images are better and worse. `overall` is the mean of the
tasks, as in the tables; of `exercises` (tables.py), which are sorted by what they ask for, that of all of them.
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from tables import exercises

DRAWS = 4000


def scores(path):
    """{(id, index): (task, score)} of a row's file."""
    told = json.loads(gzip.decompress(path.read_bytes()))
    # Rows of exercises may be older than their sorting.
    sorts = {sample.id: sample.tag for sample in exercises().samples} if told["benchmark"] == "exercises" else {}
    images = [one for one in told["images"] if one["score"] is not None]
    return {(one["id"], one["index"]): (sorts.get(one["id"], one["tag"]), one["score"]) for one in images}


def paired(first, second):
    """{task: {prompt: [differences]}} over what both rows have."""
    tasks = {}
    for key in sorted(first.keys() & second.keys()):
        tag = first[key][0]
        tasks.setdefault(tag, {}).setdefault(key[0], []).append(first[key][1] - second[key][1])
    return tasks


def drawn_means(values, rng):
    """(DRAWS,) means of (prompts,) values, prompts drawn anew."""
    return values[rng.integers(len(values), size=(DRAWS, len(values)))].mean(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, action="append", help="may be given several times")
    parser.add_argument("--pairs", required=True, help="NEW:OLD, with commas between")
    parser.add_argument("--benchmark", default="atelier-compbench")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)

    def found(name):
        for folder in arguments.out:
            path = folder / f"{name}.{arguments.benchmark}.json.gz"
            if path.exists():
                return scores(path)
        raise SystemExit(f"there is no row {name} of {arguments.benchmark} in {[str(one) for one in arguments.out]}")

    for pair in arguments.pairs.split(","):
        new, old = pair.split(":")
        tasks, told, draws = paired(found(new), found(old)), [], []
        for tag, prompts in tasks.items():
            values = np.array([np.mean(one) for one in prompts.values()])
            drawn = drawn_means(values, rng)
            draws.append(drawn)
            flat = np.concatenate([np.array(one) for one in prompts.values()])
            low, high = np.quantile(drawn, (0.025, 0.975)) * 100
            told.append(
                f"{tag} {100 * values.mean():+.1f} ({low:+.1f} to {high:+.1f}; {(flat > 0).sum()}/{(flat < 0).sum()})"
            )
        sizes = [len(prompts) if arguments.benchmark == "exercises" else 1 for prompts in tasks.values()]
        low, high = np.quantile(np.average(draws, 0, sizes), (0.025, 0.975)) * 100
        means = [np.mean([np.mean(one) for one in prompts.values()]) for prompts in tasks.values()]
        mean = 100 * np.average(means, weights=sizes)
        print(f"{new} - {old}: overall {mean:+.1f} ({low:+.1f} to {high:+.1f}); " + ", ".join(told))


if __name__ == "__main__":
    main()
