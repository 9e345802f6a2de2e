"""Diffusion pipelines of a few thousand weights with random values, of the real classes: they run everywhere."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import pre_tokenizers
from transformers import (
    BatchFeature,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

BYTES = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
SEEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_words() -> Qwen2Tokenizer:
    """Bytes and the special tokens, no merges."""
    words = Qwen2Tokenizer(vocab=dict(BYTES), merges=[], eos_token="<|im_end|>")
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *SEEN]})
    words.chat_template = CHAT
    return words


def qwen_encoder(words: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Two layers of 32 channels, and eyes of one."""
    text = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None,
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    ids = dict(zip(("vision_start", "vision_end", "image", "video"), words.convert_tokens_to_ids(SEEN), strict=True))
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, **{f"{name}_token_id": token for name, token in ids.items()}
    )
    return Qwen2_5_VLForConditionalGeneration(config).eval()


class QwenProcessor:
    """What the pipelines use of Qwen2_5_VLProcessor, which itself cannot be made without torchvision's videos."""

    def __init__(self, words: Qwen2Tokenizer):
        self.tokenizer = words
        self.image_processor = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 84 * 84})

    def __call__(self, text, images, padding, return_tensors):
        pictures = images if isinstance(images, list) else [images]
        seen = self.image_processor(pictures, return_tensors=return_tensors)
        texts = []
        for line in text:
            head, *tails = line.split("<|image_pad|>")
            for tail, grid in zip(tails, seen["image_grid_thw"], strict=True):
                head += "<|image_pad|>" * (int(grid.prod()) // 4) + tail
            texts.append(head)
        return BatchFeature({**self.tokenizer(texts, padding=padding, return_tensors=return_tensors), **seen})


def qwen_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """With the values of the released Qwen-Image."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )


def qwen_image(kind: type = QwenImagePipeline):
    torch.manual_seed(0)
    words = qwen_words()
    parts = {
        "transformer": QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
        ),
        "vae": AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, num_res_blocks=1, latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.1, 0.9, 1.3, 0.7]
        ),
        "text_encoder": qwen_encoder(words),
        "tokenizer": words,
        "scheduler": qwen_scheduler(),
    }  # fmt: skip
    if kind is not QwenImagePipeline:
        parts["processor"] = QwenProcessor(words)
    return finished(kind(**parts))


def qwen_image_edit():
    return qwen_image(QwenImageEditPipeline)


def qwen_image_edit_plus():
    return qwen_image(QwenImageEditPlusPipeline)


def clip_words() -> CLIPTokenizer:
    vocabulary = {letter: i for i, letter in enumerate([*BYTES, *(letter + "</w>" for letter in BYTES)])}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip_encoder(words: CLIPTokenizer, kind: type):
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=16, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
    )  # fmt: skip
    return kind(config).eval()


def t5() -> tuple[T5Tokenizer, T5EncoderModel]:
    letters = [chr(code) for code in range(32, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    words = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(words), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, is_encoder_decoder=False
    )
    return words, T5EncoderModel(config).eval()


def vae(**settings) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False, **settings,
    )  # fmt: skip


def stable_diffusion_3():
    torch.manual_seed(0)
    words = clip_words()
    t5_words, t5_encoder = t5()
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=32, out_channels=4,
        pos_embed_max_size=16,
    )  # fmt: skip
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(),
        text_encoder=clip_encoder(words, CLIPTextModelWithProjection), tokenizer=words,
        text_encoder_2=clip_encoder(words, CLIPTextModelWithProjection), tokenizer_2=words,
        text_encoder_3=t5_encoder, tokenizer_3=t5_words,
    )  # fmt: skip
    return finished(pipeline)


def flux(guidance_embeds: bool = True):
    torch.manual_seed(0)
    words = clip_words()
    t5_words, t5_encoder = t5()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    pipeline = FluxPipeline(
        transformer=transformer, vae=vae(), text_encoder=clip_encoder(words, CLIPTextModel), tokenizer=words,
        text_encoder_2=t5_encoder, tokenizer_2=t5_words,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    )  # fmt: skip
    return finished(pipeline)


def flux_schnell():
    return flux(guidance_embeds=False)


def finished(pipeline):
    """Weights large enough that every token matters to the picture, and no progress bar."""
    for part in (pipeline.transformer, pipeline.vae):
        for weight in part.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_thinker(pipeline, folder: Path) -> Path:
    """A pipeline on disk that thinks in the Atelier's words and paints small pictures in three steps."""
    pipeline.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["_reverie"] = {"thinker": "atelier", "steps": 3, "guidance": 2.0, "height": 32, "width": 32}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
