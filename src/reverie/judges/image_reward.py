"""ImageReward (Xu et al. 2023, arXiv:2304.05977): BLIP reads the prompt while it looks at the picture, and a chain of
linear layers turns the first token's state into a reward that was learned from people's rankings.

The authors publish one file of weights beside med_config.json; there is no class for them in transformers, but BLIP's
two halves are there, and the names of their tensors translate. The reward is standardised as the authors do it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from reverie.models.pretrained import DAMAGE, frozen

WEIGHTS, SETTINGS = "ImageReward.pt", "med_config.json"
TOKENIZER = "google-bert/bert-base-uncased"
"""Whose words the prompt is cut into, where the folder holds no tokenizer."""
LONGEST = 35
HEAD = 64
"""Channels of an attention head of the vision tower, whose number no file tells."""
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the rewards over the authors' data."""
RENAMES = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.*)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.*)", r"encoder.layers.\1.self_attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(.*)", r"encoder.layers.\1.mlp.\2"),
    (r"norm\.(.*)", r"post_layernorm.\1"),
)
"""Of the vision tower: the authors' names to those of transformers."""


class ImageReward:
    """A `Reward` (see rewards.py)."""

    def __init__(self, vision: Any, text: Any, head: Sequence[tuple[Tensor, Tensor]], words: Any, name: str):
        """head: weight and bias of each linear layer, none of which is followed by anything."""
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self.vision, self.text, self.head, self.words, self.name = vision, text, list(head), words, name
        side = vision.config.image_size
        self.processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        self.batch = 16

    @classmethod
    def load(cls, source: str | Path, device: str = "cpu", name: str | None = None) -> ImageReward:
        """From a folder with the authors' two files, or their hub id. ValueError for files that are not whole."""
        folder = fetched(source)
        tensors, settings = _read(folder)
        vision, text = _towers(tensors, settings, folder)
        found = [re.fullmatch(r"mlp\.layers\.(\d+)\.weight", key) for key in tensors]
        places = sorted(int(one[1]) for one in found if one)
        head = [
            tuple(tensors[f"mlp.layers.{place}.{part}"].to(device) for part in ("weight", "bias")) for place in places
        ]
        return cls(vision.to(device), text.to(device), head, _words(folder), name or str(source))  # type: ignore[arg-type]

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        """Only prompts of one length share a batch: nothing is padded, so none depends on its neighbours."""
        words = [self.words.encode(prompt, truncation=True, max_length=LONGEST) for prompt in prompts]
        found = [0.0] * len(words)
        for length in sorted(set(map(len, words))):
            places = [place for place, ids in enumerate(words) if len(ids) == length]
            for start in range(0, len(places), self.batch):
                some = places[start : start + self.batch]
                scores = self._scores([words[place] for place in some], [pictures[place] for place in some])
                for place, score in zip(some, scores, strict=True):
                    found[place] = score
        return found

    def _scores(self, words: list[list[int]], pictures: list[Image]) -> list[float]:
        device = self.head[0][0].device
        shown = [picture.convert("RGB") for picture in pictures]
        pixels = self.processor(shown, return_tensors="pt")["pixel_values"].to(device)
        seen = self.vision(pixels)[0]
        state = self.text(input_ids=torch.tensor(words, device=device), encoder_hidden_states=seen)[0][:, 0].float()
        for weight, bias in self.head:
            state = F.linear(state, weight, bias)
        return ((state[:, 0] - MEAN) / DEVIATION).tolist()

    def judged(self, score: float) -> float:
        """The chance of being preferred to a picture of the mean reward, by the model that its training assumes."""
        return 1 / (1 + math.exp(-DEVIATION * score))


def check(source: str | Path) -> None:
    """ValueError for a folder that lacks one of the two files, and for what is neither a folder nor a hub id."""
    from reverie.models.registry import HUB_ID

    folder = Path(source)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(str(source)):
            raise ValueError(f"there is no folder {source} for imagereward; give one, or a hub id.")
        return
    for name in (WEIGHTS, SETTINGS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no {name}, so it is no ImageReward; give the folder with its two files.")


def fetched(source: str | Path) -> Path:
    from reverie.models.janus_checkpoint import resolve

    check(source)
    folder = resolve(source, (WEIGHTS, SETTINGS, "*.txt", "tokenizer*.json"))
    check(folder)
    return folder


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors in the authors' names, and the settings of the text half."""
    import pickle

    try:
        settings = json.loads((folder / SETTINGS).read_text("utf-8"))
        tensors = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        return {key: value.float() for key, value in tensors.items()}, dict(settings)
    except (*DAMAGE, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"the ImageReward in {folder} cannot be read ({error}); fetch it again.") from error


def _towers(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], folder: Path) -> tuple[Any, Any]:
    """BLIP's vision tower and the text half that looks at it, frozen."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    own = {key.removeprefix("blip."): value for key, value in tensors.items() if key.startswith("blip.")}
    sight = {_renamed(key): value for key, value in own.items() if key.startswith("visual_encoder.")}
    words = {key.removeprefix("text_encoder."): value for key, value in own.items() if key.startswith("text_encoder.")}
    try:
        first = sight["embeddings.patch_embedding.weight"]
        width, patch = first.shape[0], first.shape[-1]
        spots = sight["embeddings.position_embedding"].shape[1] - 1
        layers = 1 + max(int(key.split(".")[2]) for key in sight if key.startswith("encoder.layers."))
        vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=width, intermediate_size=sight["encoder.layers.0.mlp.fc1.weight"].shape[0],
                num_hidden_layers=layers, num_attention_heads=max(1, width // HEAD), patch_size=patch,
                image_size=patch * math.isqrt(spots), layer_norm_eps=1e-6,
            )
        )  # fmt: skip
        names = (
            "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "hidden_act",
            "layer_norm_eps", "max_position_embeddings",
        )  # fmt: skip
        chosen = {name: settings[name] for name in names if name in settings}
        vocabulary = words["embeddings.word_embeddings.weight"].shape[0]
        text = BlipTextModel(
            BlipTextConfig(vocab_size=vocabulary, encoder_hidden_size=width, **chosen),
            add_pooling_layer=False,
        )
        vision.load_state_dict(sight)
        text.load_state_dict({key: value for key, value in words.items() if not key.endswith("position_ids")})
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS} is not whole ({str(error).splitlines()[0]}); fetch it again.") from error
    return frozen(vision), frozen(text)


def _renamed(key: str) -> str:
    name = key.removeprefix("visual_encoder.")
    for theirs, ours in RENAMES:
        if re.fullmatch(theirs, name):
            return re.sub(theirs, ours, name)
    return name


def _words(folder: Path) -> Any:
    from transformers import AutoTokenizer

    own = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    source = str(folder) if own else TOKENIZER
    try:
        return AutoTokenizer.from_pretrained(source)
    except (*DAMAGE, OSError) as error:
        raise ValueError(
            f"ImageReward needs the tokenizer of {TOKENIZER}, which could not be had: put its files into {folder}."
        ) from error
