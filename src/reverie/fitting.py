"""How a large pipeline of diffusers is made to fit, or to run faster, in that library's own ways."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from reverie.models.registry import Source


@dataclass(frozen=True)
class Fitting:
    """offload: `model`, one part at a time on the GPU, or `sequential`, one layer at a time. quantise: `nf4` or `int8`,
    of the transformer and the text encoders, by bitsandbytes. lora: a file or folder of LoRA weights, as diffusers and
    peft save them. compiled: compiles the repeated blocks of the transformer; worth it for many images of one size."""

    offload: str | None = None
    quantise: str | None = None
    lora: str | None = None
    compiled: bool = False

    def check(self, source: Source, device: str | None = None) -> None:
        """ValueError for what cannot be meant, or not of this model, before anything is loaded."""
        from reverie.models.diffusion_checkpoint import check_fitting

        said = self.said()
        if said and source.family not in (None, "diffusion"):  # of a hub id that is not listed its files will tell
            raise ValueError(f"{next(iter(said))}: {source.name} is no pipeline of diffusers; leave it out.")
        check_fitting(self.offload, self.quantise, self.lora)
        if source.adapters and (self.quantise or self.offload == "sequential"):
            raise ValueError(
                f"{source.name} has adapters, which can only be added to whole weights; no quantise, no sequential."
            )
        if self.offload and device is not None and device.startswith("cpu"):
            raise ValueError(f"offload={self.offload!r} keeps what a GPU has no room for; without one leave it out.")

    def said(self) -> dict[str, Any]:
        """What was asked for; a recipe keeps it, so that a replay loads the same."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, said: Any) -> Fitting:
        """From what `said` returned, or arguments of a command line, which may say more."""
        said = said if isinstance(said, dict) else vars(said)
        return cls(said.get("offload"), said.get("quantise"), said.get("lora"), bool(said.get("compiled")))
