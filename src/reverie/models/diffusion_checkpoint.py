"""Loading pipelines of diffusers: what a folder is (model_index.json), and the library's own ways to make a large model
fit: dtype, offloading, quantisation, LoRA, compilation. diffusers and peft come with `reverie[diffusion]`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.models.quiet import errors_only, unless_large

if TYPE_CHECKING:
    import torch

INDEX = "model_index.json"
PIPELINES = (
    "QwenImagePipeline",
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)
"""Classes that models/diffusion_families.py has an adapter for."""
EDITORS = ("QwenImageEditPipeline", "QwenImageEditPlusPipeline")
PROCESSORS = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")
"""What prepares pictures for the language model of an editor; the released ones name the first."""
OFFLOADS = ("model", "sequential")
QUANTISED: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "int8": {"load_in_8bit": True},
}


def check_library() -> None:
    """ValueError where diffusers is not installed."""
    if find_spec("diffusers") is None:
        raise ValueError("this is a diffusion model, which needs diffusers: pip install 'reverie[diffusion]'.")


def read_index(folder: Path) -> dict[str, Any] | None:
    """The model_index.json of a pipeline's folder; None if it has none. ValueError if it cannot be painted with."""
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text("utf-8"))
        name = index.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a valid index of a pipeline ({error}); fetch it again.") from error
    if name not in PIPELINES:
        raise ValueError(f"{path} says {name!r}; this version can paint with {', '.join(PIPELINES)}.")
    # Quantised in another format, or in shards: any weight of the transformer will do here.
    if not any((folder / "transformer").glob("*.safetensors")):
        raise ValueError(f"{folder / 'transformer'} holds no weights (.safetensors); fetch the pipeline again.")
    return index


def can_write(index: dict[str, Any]) -> bool:
    """Whether the pipeline's text encoder is a language model that answers, and not only an encoder."""
    return index.get("text_encoder", [None, None])[1] == "Qwen2_5_VLForConditionalGeneration"


def fetch_pipeline(hub_id: str) -> Path | None:
    """A local snapshot of a pipeline's parts, and of nothing else: many repositories keep the same weights once more in
    single files. None for a repository that holds no pipeline."""
    from reverie.models.janus_checkpoint import resolve as fetch

    path = fetch(hub_id, [INDEX]) / INDEX
    if not path.is_file():
        return None
    check_library()
    parts = [name for name, what in json.loads(path.read_text("utf-8")).items() if isinstance(what, list) and all(what)]
    return fetch(hub_id, [INDEX, *(f"{part}/*" for part in parts)])


def load_pipeline(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    offload: str | None = None,
    quantise: str | None = None,
    lora: str | Path | None = None,
    compiled: bool = False,
    without: Sequence[str] = (),
) -> Any:
    """The pipeline in `folder`, ready to paint.

    dtype: by default float32 on the CPU and bfloat16 elsewhere.
    offload: `model` (one part at a time on the device) or `sequential` (one layer at a time).
    quantise: `nf4` or `int8`, of the transformer and the text encoders, by bitsandbytes on a GPU.
    lora: a file or folder of LoRA weights, as diffusers and peft save them.
    compiled: compiles the repeated blocks of the transformer; worth it for many images of one size.
    without: parts that are not read, such as a text encoder whose place is taken.
    """
    check_fitting(offload, quantise, lora)
    check_library()
    index = read_index(Path(folder))
    if index is None:
        raise ValueError(f"{folder} holds no {INDEX}, so it is no pipeline; give the folder that contains it.")
    import diffusers
    import torch
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    from reverie.models.folded_kl import fold_pipeline
    from reverie.models.stills import quicken_stills

    kind = dtype or (torch.float32 if device.startswith("cpu") else torch.bfloat16)
    settings: dict[str, Any] = dict.fromkeys(without)
    if (kind_of := index.get("processor", [None, None])[1]) in PROCESSORS and "processor" not in settings:
        settings["processor"] = _processor(kind_of, Path(folder) / "processor")
    if shared := (index.get("_reverie") or {}).get("vae"):
        settings["vae"] = _shared_autoencoder(shared, kind)
    if quantise is not None:
        settings["quantization_config"] = _quantisation(index, quantise, kind)
    try:
        # Its module asks for image processors that want torchvision, which nobody here uses.
        with errors_only(of_transformers):
            pipeline_class = getattr(diffusers, index["_class_name"])
        with unless_large(folder, of_diffusers, of_transformers):
            pipeline = pipeline_class.from_pretrained(folder, dtype=kind, **settings)
    except (OSError, ImportError) as error:
        raise ValueError(f"{folder} is not a complete pipeline: {str(error).strip().splitlines()[0]}") from error
    fold_pipeline(pipeline)
    if type(pipeline.vae).__name__ == "AutoencoderKLQwenImage":
        quicken_stills(pipeline.vae)
    if lora is not None:
        pipeline.load_lora_weights(str(lora))
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
    if compiled:
        pipeline.transformer.compile_repeated_blocks()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_fitting(offload: str | None, quantise: str | None, lora: str | Path | None) -> None:
    """ValueError for a way of fitting that there is not, or not here."""
    if offload is not None and offload not in OFFLOADS:
        raise ValueError(f"offload={offload!r}: must be one of {', '.join(OFFLOADS)}.")
    if quantise is not None and quantise not in QUANTISED:
        raise ValueError(f"quantise={quantise!r}: must be one of {', '.join(QUANTISED)}.")
    if lora is not None and not Path(lora).exists():
        raise ValueError(f"there are no LoRA weights at {lora}.")
    if quantise is not None and find_spec("bitsandbytes") is None:
        raise ValueError(f"quantise={quantise!r} needs bitsandbytes: pip install bitsandbytes.")


def settings_of(part: Any) -> dict[str, Any]:
    """What a part of diffusers was made with, to make another or to keep; where it was loaded from is nobody else's."""
    return {name: value for name, value in part.config.items() if name != "_name_or_path"}


def _processor(kind: str, folder: Path) -> Any:
    """A processor of Qwen-VL without its part for videos, for which transformers would want torchvision."""
    import transformers

    from reverie.vlms.transformers import without_videos

    return without_videos(getattr(transformers, kind)).from_pretrained(folder)


def _shared_autoencoder(name: str, dtype: torch.dtype) -> Any:
    """The image tokenizer of another model, without its codes: `"_reverie": {"vae": "atelier-janus"}` keeps a pipeline
    of the Atelier from holding it once more."""
    from reverie.models.folded_kl import from_vq
    from reverie.models.janus_checkpoint import load_janus
    from reverie.models.registry import resolve

    source = resolve(name)
    if source.family != "janus" or source.folder is None:
        raise ValueError(f"the pipeline paints with the image tokenizer of {name}, which is no Janus that is here.")
    janus, _ = load_janus(source.folder)
    return from_vq(janus.vqmodel).to(dtype)


def _quantisation(index: dict[str, Any], quantise: str, dtype: torch.dtype) -> Any:
    from diffusers import PipelineQuantizationConfig

    parts = [name for name in index if name == "transformer" or name.startswith("text_encoder")]
    settings = dict(QUANTISED[quantise])
    if "load_in_4bit" in settings:
        settings["bnb_4bit_compute_dtype"] = dtype
    backend = "bitsandbytes_4bit" if "load_in_4bit" in settings else "bitsandbytes_8bit"
    return PipelineQuantizationConfig(quant_backend=backend, quant_kwargs=settings, components_to_quantize=parts)
