"""Paired differences between rows of the tables: the same prompts and seeds, so that luck falls out.

    python recipes/twig/differences.py --out runs/tables --pairs sft:direct,rl:sft --benchmark atelier-compbench

Prints for each pair and task the difference of the means in points with a 95% bootstrap interval over prompts (all
images of a prompt stand or fall together, see `stats.compare`), and how many images are better and worse. Of rows that
have different numbers of images a prompt, those count that both have. `overall` is the mean of the tasks, as in the
tables; of `exercises` (exercises.py), which are sorted by what they ask for, that of all of them.
"""

import argparse
import gzip
import json
from pathlib import Path

from exercises import exercises

from reverie.benchmarks.stats import compare


def scores(path):
    """{(id, index): (task, score)} of a row's file."""
    told = json.loads(gzip.decompress(path.read_bytes()))
    # Rows of exercises may be older than their sorting.
    sorts = {sample.id: sample.tag for sample in exercises().samples} if told["benchmark"] == "exercises" else {}
    images = [one for one in told["images"] if one["score"] is not None]
    return {(one["id"], one["index"]): (sorts.get(one["id"], one["tag"]), one["score"]) for one in images}


def said(new, old, weighting):
    """The difference of two rows over the images that both have, in points."""
    common = sorted(new.keys() & old.keys())
    runs = ([(key[0], key[0], row[key][0], row[key][1]) for key in common] for row in (old, new))
    found = compare(*runs, weighting=weighting)
    points = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f}"
    gaps = [new[key][1] - old[key][1] for key in common]
    return points, f"; {sum(gap > 0 for gap in gaps)}/{sum(gap < 0 for gap in gaps)}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, action="append", help="may be given several times")
    parser.add_argument("--pairs", required=True, help="NEW:OLD, with commas between")
    parser.add_argument("--benchmark", default="atelier-compbench")
    arguments = parser.parse_args()

    def found(name):
        for folder in arguments.out:
            path = folder / f"{name}.{arguments.benchmark}.json.gz"
            if path.exists():
                return scores(path)
        raise SystemExit(f"there is no row {name} of {arguments.benchmark} in {[str(one) for one in arguments.out]}")

    for pair in arguments.pairs.split(","):
        new, old = (found(name) for name in pair.split(":"))
        told = []
        for task in dict.fromkeys(task for task, _ in new.values()):
            points, counts = said({key: one for key, one in new.items() if one[0] == task}, old, "strata")
            told.append(f"{task} {points}{counts})")
        points, _ = said(new, old, "items" if arguments.benchmark == "exercises" else "strata")
        print(f"{pair.replace(':', ' - ')}: overall {points}); " + ", ".join(told))


if __name__ == "__main__":
    main()
