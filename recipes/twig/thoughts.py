"""Whether thoughts or painting go wrong: what a row's thoughts say of its prompts, beside what became of the pictures.

    python recipes/twig/thoughts.py --out runs/tables --rows sft,rl

Thoughts of the wording `story` name things as `lessons.band_words` does: "the top of a red cat on the left and ...".
They are right if every thing that was asked is named with its colour, texture and action, as often as it was asked,
and, where a side was asked, on that side of the other (of true thoughts of up to four regions all are). Prints for each
task of `atelier-compbench` how many thoughts are right, and how many pictures wholly right (score 1) were painted from
right and from wrong ones.
"""

import argparse
import gzip
import json
import re
from pathlib import Path

PHRASE = re.compile(r"(?:the (top|middle|bottom) of )?(.+?) (on the left|in the middle|on the right)$")
PLACES = ("on the left", "in the middle", "on the right")


def named(thought):
    """[(part or None, phrase, place, region)] of everything that the thoughts name."""
    found = []
    for region, line in enumerate(thought.splitlines()):
        for piece in re.split(r", | and (?=a |an |the )", line):
            match = PHRASE.match(piece.strip())
            if match:
                part, phrase, place = match.groups()
                found.append((part, phrase, PLACES.index(place), region))
    return found


def _begun_above(one, things):
    _, phrase, place, region = one
    return ("top", phrase, place, region - 1) in things


def right(demand, thought):
    """Whether thoughts say what was asked for."""
    from reverie.atelier.language import canonical
    from reverie.atelier.language_parse import Clause, Demand

    things, firsts = named(thought), []
    for clause in demand.include:
        bare = canonical(Demand((Clause(clause.kind),))).split(" ", 1)[1]
        of_kind = [one for one in things if one[1].endswith(bare)]
        whole = Clause(clause.kind, 1, clause.colour, texture=clause.texture, action=clause.action)
        wanted = canonical(Demand((whole,)))
        plain = whole == Clause(clause.kind)
        good = [one for one in of_kind if plain or one[1] == wanted]
        # A thing that reaches over several regions is counted where it begins.
        begun = [one for one in of_kind if one[0] == "top" or (one[0] is None and not _begun_above(one, of_kind))]
        if not good or len(begun) != clause.count:
            return False
        firsts.append(begun[0])
    position = demand.include[-1].position
    if position is None:
        return True
    other, own = firsts[position[1]], firsts[-1]
    side = position[0]
    if side in ("left of", "right of"):
        return own[2] < other[2] if side == "left of" else own[2] > other[2]
    return own[3] <= other[3] if side == "above" else own[3] >= other[3]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", required=True)
    arguments = parser.parse_args()
    from reverie.atelier.language_parse import Demand
    from reverie.benchmarks import atelier_compbench

    samples = {sample.id: sample for sample in atelier_compbench.samples()}
    for name in arguments.rows.split(","):
        told = json.loads(gzip.decompress((arguments.out / f"{name}.atelier-compbench.json.gz").read_bytes()))
        tasks = {}
        for one in told["images"]:
            if one["thought"]:
                demand = Demand.from_record(samples[one["id"]].record["demand"])
                pair = right(demand, one["thought"]), one["score"] == 1
                tasks.setdefault(one["tag"], []).append(pair)
        for tag, pairs in tasks.items():
            good = [picture for thought, picture in pairs if thought]
            bad = [picture for thought, picture in pairs if not thought]
            print(
                f"{name} {tag}: {len(good)} of {len(pairs)} thoughts right; pictures right "
                f"{sum(good)} of {len(good)} from right thoughts, {sum(bad)} of {len(bad)} from wrong ones"
            )


if __name__ == "__main__":
    main()
