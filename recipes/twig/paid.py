"""Actions as the inspector's network reads them, which pays policies by `faithful`, beside the benchmark's second look.

    python recipes/twig/paid.py --model runs/twig/atelier/checkpoint --preset twig

Paints the prompts of `atelier-compbench` that ask for actions, without guidance, and prints how many pictures hold all
kinds, and how many actions each of the two finds right.
"""

import argparse

from tables import painted

from reverie.atelier.inspector import Inspector
from reverie.atelier.language_parse import Demand
from reverie.benchmarks import atelier_compbench
from reverie.benchmarks.eyes import Inspected, inspector_folder, usual_device
from reverie.painter import load
from reverie.reason import make_plan


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--preset")
    parser.add_argument("--batch", type=int, default=60)
    arguments = parser.parse_args()
    painter = load(arguments.model, dtype="bfloat16")
    plan = make_plan(arguments.preset, guidance=1.0, **({"reflect": 0} if arguments.preset else {}))
    samples = [sample for sample in atelier_compbench.samples() if sample.tag == "non_spatial"]
    pictures = []
    for _, part, _ in painted(painter, plan, [(sample, 0) for sample in samples], arguments.batch, 0):
        pictures += part
    sightings = Inspector.load(inspector_folder(None), usual_device()).look(pictures)
    there, network, looked = 0, [], []
    for sample, sighting, picture in zip(samples, sightings, pictures, strict=True):
        include = Demand.from_record(sample.record["demand"]).include
        there += {clause.kind for clause in include} <= {thing.kind for thing in sighting.objects}
        network.append(atelier_compbench.actions(include, sighting, []) == 1)
        looked.append(atelier_compbench.judge(sample, Inspected(sighting, picture)).score == 1)
    both = sum(a and b for a, b in zip(network, looked, strict=True))
    print(f"{len(samples)} pictures, all kinds in {there}")
    print(f"actions right: network {sum(network)}, second look {sum(looked)}, both {both}")


if __name__ == "__main__":
    main()
