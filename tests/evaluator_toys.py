"""Evaluator models of a few thousand random weights, saved as folders with all that goes with them: the real classes of
transformers, so that everything but the quality of what they see is as with the real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BLIP_WORDS = ("a", "red", "blue", "cat", "dog", "bench", "two", "of", "the", "?", "ball")
WORDS = "abcdefghijklmnopqrstuvwxyz0123456789-?,. "


def picture(seed: int = 0, wide: int = 64, high: int = 48) -> Image.Image:
    """Coarse coloured patches, different for each seed."""
    rows = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(rows).resize((wide, high), Image.Resampling.BICUBIC)


def scaled(model: Any, factor: float) -> Any:
    """Random weights large enough that what goes in matters to what comes out."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                weight.mul_(factor)
    return model


def save_mask2former(folder: Path, classes: int = 80, seed: int = 0, sides: tuple[int, int] = (96, 160)) -> Path:
    """sides: what pictures are scaled to; the official 800 and 1333 take a second each here."""
    torch.manual_seed(seed)
    swin = transformers.SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    size = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    small = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 3}
    found = transformers.Mask2FormerConfig(
        backbone_config=swin,
        **size,
        **small,
        num_attention_heads=2,
        num_queries=8,
        num_labels=classes,
        reverie={"sides": list(sides)},
    )
    model = transformers.Mask2FormerForUniversalSegmentation(found)
    with torch.no_grad():
        model.class_predictor.weight.mul_(40)  # sure of its classes, as a trained one is
    model.save_pretrained(folder)
    return folder


def save_clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    words = clip_tokenizer()
    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": len(words), "max_position_embeddings": 77, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    scaled(transformers.CLIPModel(config), 20).save_pretrained(folder)
    words.save_pretrained(folder)
    kind = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil
    kind(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clip_tokenizer(length: int = 77) -> PreTrainedTokenizerFast:
    """Letters between a beginning and an end, as CLIP's has words."""
    names = [*WORDS, "<|startoftext|>", "<|endoftext|>"]
    start, end = names[-2:]
    found = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, end))
    found.normalizer = normalizers.Lowercase()
    found.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [(name, names.index(name)) for name in (start, end)]
    found.post_processor = processors.TemplateProcessing(f"{start} $A {end}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token=start, eos_token=end, pad_token=end, model_max_length=length
    )


def save_blip(folder: Path, seed: int = 0, side: int = 32, kind: str = "BlipForQuestionAnswering") -> Path:
    """side: what pictures are squashed to; the official 480 takes long. The network knows positions of 32 pixels."""
    torch.manual_seed(seed)
    words = bert_tokenizer()
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "initializer_range": 0.3,
    }  # fmt: skip
    text = {
        "encoder_hidden_size": 16, "vocab_size": len(words) + 2, "bos_token_id": len(words), "pad_token_id": 0,
        "sep_token_id": words.sep_token_id, "eos_token_id": words.sep_token_id,
    }  # fmt: skip
    config = transformers.BlipConfig(
        text_config=text | small, vision_config={"image_size": 32, "patch_size": 8} | small, projection_dim=16,
        image_text_hidden_size=16, reverie={"side": side},
    )  # fmt: skip
    getattr(transformers, kind)(config).save_pretrained(folder)
    words.save_pretrained(folder)
    eyes = transformers.models.blip.image_processing_pil_blip.BlipImageProcessorPil
    eyes(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def bert_tokenizer() -> PreTrainedTokenizerFast:
    names = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "yes",
        "no",
        *["a", "red", "blue", "cat", "dog", "bench", "two", "of", "the", "?", "ball"],
    ]
    found = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, "[UNK]"))
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def save_image_reward(folder: Path) -> tuple[Any, Any, list[Any]]:
    """ImageReward's two files in its authors' names, and the halves of BLIP and the layers that they came from."""
    torch.manual_seed(0)
    words = bert_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 1}
    sight = transformers.BlipVisionConfig(image_size=32, patch_size=8, layer_norm_eps=1e-6, **small)
    told = {"max_position_embeddings": 40, "layer_norm_eps": 1e-12, "hidden_act": "gelu"} | small
    read = transformers.BlipTextConfig(vocab_size=len(words) + 2, encoder_hidden_size=16, **told)
    vision, text = transformers.BlipVisionModel(sight).eval(), transformers.BlipTextModel(read, add_pooling_layer=False)
    for half in (vision, text.eval()):
        for weight in half.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    names = {
        "embeddings.class_embedding": "cls_token", "embeddings.position_embedding": "pos_embed",
        "embeddings.patch_embedding": "patch_embed.proj", "encoder.layers": "blocks", "layer_norm": "norm",
        "self_attn.projection": "attn.proj", "self_attn": "attn", "post_layernorm": "norm",
    }  # fmt: skip
    tensors = {}
    for key, tensor in vision.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        tensors[f"blip.visual_encoder.{key}"] = tensor
    tensors |= {f"blip.text_encoder.{key}": tensor for key, tensor in text.state_dict().items()}
    tensors["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    layers = [torch.nn.Linear(a, b) for a, b in ((16, 8), (8, 4), (4, 1))]
    for place, layer in zip((0, 2, 4), layers, strict=True):  # between them dropout had its numbers
        tensors |= {f"mlp.layers.{place}.{key}": tensor for key, tensor in layer.state_dict().items()}
    folder.mkdir()
    torch.save(tensors, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(told | {"encoder_width": 768}))
    words.save_pretrained(folder)
    return vision, text, layers


def save_owlv2(folder: Path, seed: int = 0, threshold: float = 0.5) -> Path:
    torch.manual_seed(seed)
    words = clip_tokenizer(32)
    small = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
    text = {
        "hidden_size": 16, "vocab_size": len(words), "max_position_embeddings": 32, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": 0,
    }  # fmt: skip
    vision = {"hidden_size": 16, "image_size": 32, "patch_size": 8}
    config = transformers.Owlv2Config(
        text_config=text | small, vision_config=vision | small, projection_dim=16, reverie={"threshold": threshold}
    )
    scaled(transformers.Owlv2ForObjectDetection(config), 0.75).save_pretrained(folder)
    words.save_pretrained(folder)
    kind = transformers.models.owlv2.image_processing_pil_owlv2.Owlv2ImageProcessorPil
    kind(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_yolos(folder: Path, labels: tuple[str, ...] = ("Cat", "dog", "bench"), threshold: float = 0.3) -> Path:
    """A detector with classes of its own; the smallest of DETR's kin."""
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=[64, 64],
        patch_size=8, num_detection_tokens=10, id2label=dict(enumerate(labels)), initializer_range=0.3,
        reverie={"threshold": threshold},
    )  # fmt: skip
    model = transformers.YolosForObjectDetection(config)
    with torch.no_grad():
        model.vit.embeddings.detection_tokens.normal_()  # they begin as zeros, all alike
        model.class_labels_classifier.layers[-1].weight.mul_(3)
    model.save_pretrained(folder)
    kind = transformers.models.yolos.image_processing_pil_yolos.YolosImageProcessorPil
    kind(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def save_dpt(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        initializer_range=0.3, use_auxiliary_head=False,
    )  # fmt: skip
    transformers.DPTForDepthEstimation(config).save_pretrained(folder)
    kind = transformers.models.dpt.image_processing_pil_dpt.DPTImageProcessorPil
    kind(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


SENTENCES = (
    # word, part of speech, head, relation
    "a/DET/2/det red/ADJ/2/amod cat/NOUN/6/nsubj and/CCONJ/2/cc a/DET/5/det dog/NOUN/2/conj sit/VERB/6/ROOT",
    "a/DET/2/det blue/ADJ/2/amod bench/NOUN/2/ROOT and/CCONJ/2/cc a/DET/6/det red/ADJ/6/amod ball/NOUN/2/conj",
    "a/DET/1/det cat/NOUN/1/ROOT on/ADP/1/prep the/DET/4/det left/NOUN/2/pobj of/ADP/4/prep dogs/NOUN/5/pobj",
    "a/DET/1/det dog/NOUN/1/ROOT in/ADP/1/prep front/NOUN/2/pobj of/ADP/3/prep a/DET/6/det bench/NOUN/4/pobj",
    "two/NUM/1/nummod cats/NOUN/1/ROOT and/CCONJ/1/cc three/NUM/4/nummod dogs/NOUN/1/conj",
    "a/DET/1/det cat/NOUN/2/nsubj sits/VERB/2/ROOT on/ADP/2/prep two/NUM/6/nummod large/ADJ/6/amod boxes/NOUN/3/pobj",
)


def save_tagger(folder: Path) -> Path:
    """A spaCy pipeline that has learned six sentences by heart."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("morphologizer")
    pipeline.add_pipe("parser", config={"min_action_freq": 1})
    examples = []
    for line in SENTENCES:
        words, tags, heads, relations = zip(*(part.split("/") for part in line.split()), strict=True)
        truth = Doc(pipeline.vocab, words, pos=tags, heads=list(map(int, heads)), deps=relations)
        examples.append(Example(pipeline.make_doc(" ".join(words)), truth))
    pipeline.initialize(lambda: examples)
    optimizer = pipeline.create_optimizer()
    for _ in range(25):
        pipeline.update(examples, sgd=optimizer)
    pipeline.to_disk(folder)
    return folder
