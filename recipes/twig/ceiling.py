"""What `atelier-compbench` would score if Janus painted without a mistake: scenes drawn right, and the same through the
model's image codes, judged as the benchmark judges. And of the things with a texture, which share the inspector's
network believes to have theirs, without the second look: what a policy is paid for by `faithful`.

    python recipes/twig/ceiling.py --every 3
"""

import argparse
import random

import numpy as np
import torch
from PIL import Image

from reverie.atelier.draw import draw
from reverie.atelier.inspector import Inspector
from reverie.atelier.language_parse import Demand
from reverie.atelier.sample import compose
from reverie.benchmarks import atelier_compbench
from reverie.benchmarks.eyes import Inspected, inspector_folder
from reverie.generators.janus import to_uint8
from reverie.models.janus_checkpoint import load_janus
from reverie.models.registry import fetched, resolve


def through_codes(model, picture):
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        return Image.fromarray(to_uint8(model.decode_codes(model.encode_image(pixels)))[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="atelier-janus")
    parser.add_argument("--every", type=int, default=1, help="take every so many prompts")
    arguments = parser.parse_args()
    model, _ = load_janus(fetched(resolve(arguments.model)).folder)
    model, rng = model.float().eval(), random.Random(1)
    inspector = Inspector.load(inspector_folder(None), "cpu")
    samples = atelier_compbench.samples()[:: arguments.every]
    drawn = [draw(compose(Demand.from_record(s.record["demand"]), rng)) for s in samples]
    for name, pictures in (("drawn", drawn), ("through codes", [through_codes(model, one) for one in drawn])):
        scores, believed = {}, []
        for sample, sighting, picture in zip(samples, inspector.look(pictures), pictures, strict=True):
            judged = atelier_compbench.judge(sample, Inspected(sighting, picture))
            scores.setdefault(sample.tag, []).append(judged.score)
            demand = Demand.from_record(sample.record["demand"])
            asked = [clause for clause in demand.include if clause.texture != "plain"]
            seen = {(thing.kind, thing.texture) for thing in sighting.objects}
            believed += [(clause.kind, clause.texture) in seen for clause in asked]
        means = {tag: 100 * float(np.mean(values)) for tag, values in scores.items()}
        told = {tag: round(mean, 1) for tag, mean in means.items()}
        print(name, f"overall {np.mean(list(means.values())):.1f}", told)
        print(name, f"textures that the network believes: {sum(believed)} of {len(believed)}")


if __name__ == "__main__":
    main()
