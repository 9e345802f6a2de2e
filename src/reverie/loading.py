"""Loading a checkpoint of any family onto a device, once it is known what and where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reverie.fitting import Fitting
from reverie.models.registry import Source
from reverie.precision import warn_of_slow

if TYPE_CHECKING:
    import torch

AS_IT_IS = Fitting()


def load_model(
    source: Source,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    fitting: Fitting = AS_IT_IS,
) -> tuple[Any, Any]:
    """The model and its tokenizer (None for a pipeline, which has its own); the arguments are those of `reverie.load`.
    ValueError for a model that cannot be placed so, for which there is no room, or whose files are not complete."""
    import torch

    from reverie.models.heap import keep_memory
    from reverie.room import check_room

    if device_map is None and here(device) == "cpu":
        keep_memory()
    if device_map is None and not (fitting.offload or fitting.quantise):
        check_room(source, dtype, here(device))
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if device_map is None:
        warn_of_slow(kind, here(device))
    assert source.folder is not None
    if source.family == "llamagen":
        from reverie.models.llamagen_checkpoint import load_llamagen

        if device_map is not None:
            raise ValueError(f"{source.name} stays on one device, as every LlamaGen; give device, not device_map.")
        where, words = here(device), source.text_encoder
        return load_llamagen(source.folder, text_encoder=words, dtype=kind, device=where)
    if source.family == "diffusion":
        from reverie.models.diffusion_adapters import add_adapters
        from reverie.models.diffusion_checkpoint import load_pipeline

        if device_map is not None:
            raise ValueError("a pipeline is not spread over devices by device_map; give offload.")
        pipeline = load_pipeline(source.folder, dtype=kind, device=here(device), **fitting.said())
        for folder in source.adapters:
            add_adapters(pipeline, folder)
        return pipeline, None
    if source.family == "thinkdiff":
        from reverie.models.thinkdiff_checkpoint import load_thinkdiff

        if device_map is not None:
            raise ValueError("a ThinkDiff is not spread over devices; leave device_map out.")
        return load_thinkdiff(source.folder, dtype=kind, device=here(device)), None
    if source.family == "showo":
        from reverie.models.showo_checkpoint import load_showo

        if device_map is not None:
            raise ValueError("a Show-o is not spread over devices; leave device_map out.")
        return load_showo(source.folder, dtype=kind, device=here(device))
    from reverie.models.janus_checkpoint import load_janus

    return load_janus(source.folder, dtype=kind, device=here(device), device_map=device_map)


def here(device: str | None) -> str:
    """The device of that name, or the best one of this machine; ValueError if it is not here."""
    import torch

    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    found["mps"] = int(torch.backends.mps.is_available())
    if device is None:
        return next((name for name in ("cuda", "xpu", "mps") if found[name]), "cpu")
    name, _, number = device.partition(":")
    if int(number or 0) >= found[name]:
        raise ValueError(f"device={device!r} is not on this machine; leave it out, or use cpu.")
    return device
