"""Samples a second of an aligner's training: from stored features, and literally, with the VLM run in every step.

    python speed/align.py --vlm VLM --t5 T5 --images captions.jsonl

Both train one aligner on the same pictures with the same loss, in one process; the literal way lets the VLM describe
the batch first, as training without stored features has to. The last line is one line of JSON. Time is that of
the process, so that a busy machine does not count.
"""

import argparse
import json
import tempfile
import time

import torch

from reverie.data.build_features import FeatureBuild, build_features, read_items
from reverie.data.features import FeatureFolder
from reverie.models.aligner import Aligner, AlignerConfig
from reverie.models.t5 import load_t5
from reverie.training.align import AlignConfig, AlignTask, Masking
from reverie.vlms.transformers import TransformersVLM


def compare(vlm, t5, words, items, steps=4, batch=32, clock=time.process_time):
    """{"stored": ..., "literal": ...} samples a second. items: at least `batch` pictures."""
    build, items = FeatureBuild(limit=40, batch=batch), items[:batch]

    def described(folder):
        build_features(vlm, "vlm", items, folder, build)
        return FeatureFolder(folder)

    def one(task, step):
        loss, _ = task.loss(task.batch(step))
        loss.backward()

    def task_over(source):
        norm = t5.encoder.final_layer_norm.weight
        aligner = Aligner(AlignerConfig(vlm.width, t5.config.d_model)).initialise(norm)
        config = AlignConfig(batch=batch, dropout=False)
        return AlignTask(aligner, t5, words, source, vlm.tokenizer, config, Masking(whole=0.5))

    with tempfile.TemporaryDirectory() as folder:
        task = task_over(described(folder))
        one(task, 0)
        start = clock()
        for step in range(steps):
            one(task, step)
        stored = steps * batch / (clock() - start)
        start = clock()
        for step in range(max(1, steps // 2)):
            with tempfile.TemporaryDirectory() as fresh:
                task.source = described(fresh)
                one(task, step)
        literal = max(1, steps // 2) * batch / (clock() - start)
    return {"stored": stored, "literal": literal, "ratio": stored / literal}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vlm", required=True)
    parser.add_argument("--t5", required=True)
    parser.add_argument("--images", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    t5, words = load_t5(given.t5, encoder=False)
    found = compare(TransformersVLM.load(given.vlm), t5, words, read_items(given.images))
    print(json.dumps({name: round(value, 1) for name, value in found.items()}))


if __name__ == "__main__":
    main()
