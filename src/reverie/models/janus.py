"""Janus and Janus-Pro: one language model that reads pictures with a vision tower and paints them as VQ codes.

Papers: Janus (arXiv 2410.13848), Janus-Pro (arXiv 2501.17811). Its parts are the vision tower (`models/siglip.py`), the
VQ tokenizer (`models/vq16.py`) and the language model (`models/llama.py`). Parameters are named as in transformers,
whose class leaves the official code in two places (see `models/coded_pictures.py`). Sizes come from the config alone,
so the public checkpoints and the small ones of the Atelier are the same class. Loading and saving live in
`models/janus_checkpoint.py`.

Beyond the official layout `gen_vision_config.params` may carry `patch`: pixels are first folded (pixel unshuffle) by
that factor, so the VQ network works at 1/patch of the resolution on 3 * patch**2 channels; and `cells`: the encoder
sees the pixels of each code alone (see `models/cells.py`).
"""

import copy
from dataclasses import dataclass, field, fields
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.coded_pictures import VQ_16, CodedPictures, vq_config
from reverie.models.llama import KVCache, Llama, LlamaConfig
from reverie.models.rows import Packed, packed, padded_rows
from reverie.models.siglip import Tower, TowerConfig
from reverie.models.vq16 import VQ16, VQConfig

# What `vision_config.params.model_name` stands for: (width, layers, heads, patch size, MLP ratio).
TOWERS = {"siglip_large_patch16": (1024, 24, 16, 16, 4.0), "siglip_so400m_patch14": (1152, 27, 16, 14, 3.7362)}
C = TypeVar("C", TowerConfig, VQConfig)


@dataclass(frozen=True)
class JanusConfig:
    language: LlamaConfig
    vision: TowerConfig
    vq: VQConfig
    grid: int
    """Image codes a side when painting; the tower's patches (`vision.num_image_tokens`) need not agree with it."""
    patch: int = 1
    """Pixel-unshuffle factor in front of the VQ network."""
    cells: bool = False
    """Whether the VQ encoder sees the pixels of each code alone."""
    raw: dict = field(default_factory=dict, repr=False, compare=False)
    """The configuration in the authors' layout, as it is saved."""

    @property
    def image_size(self) -> int:
        """Side of the pictures that the vision tower reads, in pixels."""
        return self.vision.image_size

    @property
    def num_codes(self) -> int:
        return self.vq.num_embeddings

    @property
    def image_length(self) -> int:
        return self.grid**2

    @property
    def pixels_per_code(self) -> int:
        return 2 ** (len(self.vq.channel_multiplier) - 1) * self.patch

    @classmethod
    def from_dict(cls, data: dict) -> "JanusConfig":
        """From the contents of a config.json: the authors' layout (ours is the same) or that of transformers."""
        kind = data.get("model_type")
        if kind == "janus":
            data = official_from_transformers(data)
        elif kind != "multi_modality":
            raise ValueError(
                f"config.json says model_type {kind!r}, but only 'multi_modality' and 'janus' are Janus models; "
                f"choose another checkpoint."
            )
        try:
            return _parse(data)
        except KeyError as error:
            raise ValueError(f"config.json lacks the field {error.args[0]!r} of a Janus model; complete it.") from error

    def to_dict(self) -> dict:
        return copy.deepcopy(self.raw)


def _parse(data: dict) -> JanusConfig:
    language = _language(data["language_config"])
    see, vq = data["vision_config"]["params"], data["gen_vision_config"]["params"]
    named = next((sizes for name, sizes in TOWERS.items() if see.get("model_name", "").startswith(name)), None)
    if named is None and "width" not in see:
        raise ValueError(
            f"config.json names the vision tower {see.get('model_name')!r}; known are {', '.join(TOWERS)}, "
            f"or write its width, layers, heads, patch_size and mlp_ratio into vision_config.params."
        )
    width, layers, heads, patch, ratio = named or (None,) * 5
    patch, layers = see.get("patch_size", patch), see.get("layers", layers)
    select = see.get("select_layer", -1)
    vision = TowerConfig(
        hidden_size=see.get("width", width),
        num_hidden_layers=select if select > 0 else layers + select + 1,
        num_attention_heads=see.get("heads", heads),
        image_size=see["image_size"],
        patch_size=patch,
        mlp_ratio=see.get("mlp_ratio", ratio),
        projection_dim=data["aligner_config"]["params"]["n_embed"],
        depth=data["aligner_config"]["params"].get("depth", 1),
        num_image_tokens=(see["image_size"] // patch) ** 2,
    )
    fold = vq.get("patch", 1)
    multipliers = list(vq.get("ch_mult", VQ_16["ch_mult"]))
    head = data["gen_head_config"]["params"]
    if head["image_token_embed"] != data["gen_aligner_config"]["params"]["n_embed"]:
        raise ValueError(
            "gen_head_config.image_token_embed must equal gen_aligner_config.n_embed; correct config.json."
        )
    codes = vq_config(
        vq,
        projection_dim=head["image_token_embed"],
        num_hidden_layers=data["gen_aligner_config"]["params"].get("depth", 1),
        image_token_embed_dim=language.hidden_size,
    )
    # The authors fix the grid in their scripts, where it equals the tower's; our checkpoints fold pixels or name it.
    side = see["image_size"] // (2 ** (len(multipliers) - 1) * fold if "patch" in vq else patch)
    return JanusConfig(
        language, vision, codes, data.get("gen_grid", side), fold, bool(vq.get("cells")), copy.deepcopy(data)
    )


def _language(data: dict) -> LlamaConfig:
    """Llama fields; those left out take the defaults of the Llama configuration of transformers."""
    heads, hidden = data.get("num_attention_heads", 32), data.get("hidden_size", 4096)
    rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(
            "config.json asks for scaled rotary positions, which Janus models never use; remove rope_scaling."
        )
    return LlamaConfig(
        vocab_size=data.get("vocab_size", 32000),
        hidden_size=hidden,
        intermediate_size=data.get("intermediate_size", 11008),
        num_hidden_layers=data.get("num_hidden_layers", 32),
        num_attention_heads=heads,
        num_key_value_heads=data.get("num_key_value_heads") or heads,
        head_dim=data.get("head_dim") or hidden // heads,
        rms_norm_eps=data.get("rms_norm_eps", 1e-6),
        rope_theta=data.get("rope_theta", rope.get("rope_theta", 10000.0)),
        max_position_embeddings=data.get("max_position_embeddings", 2048),
    )


def official_from_transformers(data: dict) -> dict:
    """The authors' nested sections out of a transformers JanusConfig, whose defaults fill what its file leaves out."""
    see, vq = _known(TowerConfig, data["vision_config"]), _known(VQConfig, data["vq_config"])
    language = {k: v for k, v in data["text_config"].items() if k not in ("architectures", "_name_or_path")}
    width = language.get("hidden_size", 4096)

    def projector(kind: str, size: int, out: int, depth: int) -> dict:
        params = {"depth": depth, "input_dim": size, "n_embed": out, "projector_type": "mlp_gelu"}
        return {"cls": "MlpProjector", "model_type": kind, "params": params}

    tower = {
        "image_size": see.image_size,
        "model_name": "siglip",
        "select_feature": "same",
        "select_layer": -1,
        "width": see.hidden_size,
        "layers": see.num_hidden_layers,
        "heads": see.num_attention_heads,
        "patch_size": see.patch_size,
        "mlp_ratio": see.mlp_ratio,
    }
    codes = {
        "image_token_size": vq.num_embeddings,
        "n_embed": vq.embed_dim,
        "ch": vq.base_channels,
        "ch_mult": list(vq.channel_multiplier),
        "z_channels": vq.latent_channels,
    }
    head = {"image_token_embed": vq.projection_dim, "image_token_size": vq.num_embeddings, "n_embed": width}
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "aligner_config": projector("aligner", see.hidden_size, see.projection_dim, see.depth),
        "gen_aligner_config": projector("gen_aligner", vq.embed_dim, vq.projection_dim, vq.num_hidden_layers),
        "gen_head_config": {"cls": "vision_head", "model_type": "gen_head", "params": head},
        "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": codes},
        "language_config": language | {"model_type": "llama"},
        "vision_config": {"cls": "CLIPVisionTower", "model_type": "vision", "params": tower},
    }


def _known(kind: type[C], section: dict) -> C:
    """The configuration that a section describes, as far as it says so."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in section.items() if name in names})


class Projector(nn.Module):
    """The aligners: `depth` linear layers with GELU between them."""

    def __init__(self, size: int, out: int, depth: int):
        super().__init__()
        self.fc1 = nn.Linear(size, out)
        self.hidden_layers = nn.ModuleList(nn.Linear(out, out) for _ in range(1, depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        for layer in self.hidden_layers:
            x = layer(F.gelu(x))
        return x


class CodeHead(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        self.proj_out = nn.Linear(config.image_token_embed_dim, config.projection_dim)
        self.vision_head = nn.Linear(config.projection_dim, config.num_embeddings)

    def forward(self, x: Tensor) -> Tensor:
        return self.vision_head(F.gelu(self.proj_out(x)))


class PackedHead:
    """The head on weights packed for the CPU."""

    def __init__(self, head: CodeHead, rows: int):
        self.inner = Packed([head.proj_out.weight], rows, head.proj_out.bias)
        self.outer = Packed([head.vision_head.weight], rows, head.vision_head.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x, "gelu"))


class Janus(CodedPictures):
    """Everything with weights. Pixels are (B, 3, H, W) in [-1, 1] throughout; codes are (B, L) in row-major order."""

    def __init__(self, config: JanusConfig):
        super().__init__()
        self.config = config
        vision, vq = config.vision, config.vq
        self.vision_model = Tower(vision)
        self.aligner = Projector(vision.hidden_size, vision.projection_dim, vision.depth)
        self.vqmodel = VQ16(vq)
        self.generation_embeddings = nn.Embedding(config.num_codes, vq.embed_dim)
        self.generation_aligner = Projector(vq.embed_dim, vq.projection_dim, vq.num_hidden_layers)
        self.generation_head = CodeHead(vq)
        self.language_model = Llama(config.language)

    def initialise(self, std: float = 0.02) -> None:
        """Fresh weights for training from scratch: N(0, std), residual outputs smaller with depth (as in GPT-2)."""
        trunk = [
            self.language_model,
            self.generation_embeddings,
            self.generation_aligner,
            self.generation_head,
            self.aligner,
        ]
        outputs = ("o_proj", "down_proj")
        for name, module in nn.ModuleList(trunk).named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                depth = 2 * self.config.language.num_hidden_layers if name.endswith(outputs) else 1
                nn.init.normal_(module.weight, std=std / depth**0.5)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        return self.language_model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.lm_head.weight.dtype

    # The language model's two vocabularies.

    def embed_text(self, ids: Tensor) -> Tensor:
        return self.language_model.embed(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """(...) image codes to (..., D) language-model inputs."""
        return self.generation_aligner(self.generation_embeddings(codes))

    def hidden(self, embeds: Tensor, cache: KVCache | None = None, **keywords) -> Tensor:
        return self.language_model(embeds, cache=cache, **keywords)

    def code_logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., number of codes): what the next image code is."""
        return self.generation_head(hidden)

    def code_logits_of_rows(self, hidden: Tensor, rows: int) -> Tensor:
        """The same for (N, D), in blocks of exactly `rows` rows."""
        return padded_rows(packed(self.generation_head, rows, PackedHead) or self.generation_head, rows, hidden)

    def text_logits(self, hidden: Tensor) -> Tensor:
        return self.language_model.lm_head(hidden)

    # Looking.

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalised pixels to (B, patches, D): the tower's patch tokens in the language model's space."""
        tower = self.vision_model.post_layernorm.weight
        return self.aligner(self.vision_model(pixels.to(tower)).to(self.device))
