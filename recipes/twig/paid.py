"""Actions and textures as the inspector's network reads them, which pays policies by `faithful`.

    python recipes/twig/paid.py --model runs/twig/atelier/checkpoint --preset twig

Paints the prompts of `atelier-compbench` that ask for actions, without guidance, and prints how many pictures hold all
kinds, and in how many the network and the benchmark's second look find the actions right.

    python recipes/twig/paid.py --drawn --every 3

Draws its prompts that ask for textures, as they are and through the image codes of `atelier-janus`, and prints how many
textures the network believes.
"""

import argparse

from tables import painted

from reverie.atelier.draw import draw
from reverie.atelier.inspector import Inspector
from reverie.atelier.language_parse import Demand
from reverie.benchmarks import atelier_compbench
from reverie.benchmarks.drawn import rebuilder, truths
from reverie.benchmarks.eyes import Inspected, inspector_folder, usual_device
from reverie.painter import load
from reverie.reason import make_plan


def textures(every):
    """Of drawn pictures and of what the codes leave of them."""
    inspector = Inspector.load(inspector_folder(None), usual_device())
    samples = atelier_compbench.samples()[::every]
    pictures = [draw(scene) for scene in truths("atelier-compbench", samples)]
    rebuilt = rebuilder("atelier-janus")(pictures)
    for name, shown in (("drawn", pictures), ("through codes", rebuilt)):
        believed = []
        for sample, sighting in zip(samples, inspector.look(shown), strict=True):
            seen = {(thing.kind, thing.texture) for thing in sighting.objects}
            asked = [one for one in Demand.from_record(sample.record["demand"]).include if one.texture != "plain"]
            believed += [(clause.kind, clause.texture) in seen for clause in asked]
        print(f"{name}: the network believes {sum(believed)} textures of {len(believed)}")


def actions(arguments):
    """Of painted pictures, by the network and by the second look."""
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--preset")
    parser.add_argument("--batch", type=int, default=60)
    parser.add_argument("--drawn", action="store_true", help="textures of drawn pictures; nothing is painted")
    parser.add_argument("--every", type=int, default=1, help="with --drawn: take every so many prompts")
    arguments = parser.parse_args()
    if not (arguments.drawn or arguments.model):
        parser.error("give --model, or --drawn")
    if arguments.drawn:
        textures(arguments.every)
    else:
        actions(arguments)


if __name__ == "__main__":
    main()
