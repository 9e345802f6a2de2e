"""The aligner of ThinkDiff: a small projector that writes vision-language features in the language of a T5 encoder.

After "I Think, Therefore I Diffuse" (arXiv 2502.10458) and its code. Features of a VLM or of a vision tower go in, the
vectors that come out stand where the output of a T5 encoder stands (after its final norm): a T5 decoder can read them,
and so can every diffusion transformer that reads its prompt through that encoder. Linear, GELU, Linear, RMSNorm; the
norm's weight starts as a copy of the encoder's final norm, because T5 attention is unscaled and takes only vectors of
the scale it knows.

On disk: the authors' checkpoints (`mm_projector.*` among leftovers of the frozen T5), and the same keys as safetensors
with the layers named in the header, which is what `save_aligner` writes.
"""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import write_atomically
from ..vlms.states import LAST, FeatureStates

PREFIX = "mm_projector."
NORMS = ("t5", "rms", "layer", "none")
PROJECTOR = re.compile(r"mlp(\d+)x_gelu(?:_(t5_norm|norm|rms_norm))?")


@dataclass(frozen=True)
class AlignerConfig:
    """source, target: widths of the features and of the T5. depth: linear layers; 0 hands the features through.
    norm: behind the second and every later layer: `t5` (RMSNorm, eps 1e-6), `rms` (torch's own eps), `layer`, `none`.
    """

    source: int
    target: int
    depth: int = 2
    norm: str = "t5"
    flat: bool = False
    """A lone linear layer whose keys carry no number, as the authors' type `linear` has them."""
    states: FeatureStates = LAST
    """Of which features of a language model are made; the authors' aligners all take the last layer's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", FeatureStates.told(self.states))  # a file's header has a mapping
        if self.source % self.states.parts:
            raise ValueError(f"Features of {self.states} cannot be {self.source} wide: all their states are as wide.")
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm!r}: must be one of {', '.join(NORMS)}.")
        if self.depth < 0 or (self.flat and self.depth != 1):
            raise ValueError(f"depth={self.depth}: must be 0 or more, and 1 where the keys carry no number.")
        if self.depth == 0 and self.source != self.target:
            raise ValueError(f"Without layers, features stay {self.source} wide and cannot become {self.target} wide.")

    @classmethod
    def from_type(
        cls, name: str, source: int, target: int, variant: str = "lvlm", states: FeatureStates = LAST
    ) -> AlignerConfig:
        """What the authors' `mm_projector_type` means in either variant, `lvlm` or `clip`.

        They differ in one name: `mlp2x_gelu` has no norm in the first and a LayerNorm in the second, which knows no
        others. ValueError for names the variant does not know.
        """
        if name == "linear":
            return cls(source, target, 1, "none", flat=True, states=states)
        if name == "identity":
            return cls(source, source, 0, "none", states=states)
        match = PROJECTOR.fullmatch(name)
        kinds = {None: "none", "t5_norm": "t5", "norm": "layer", "rms_norm": "rms"}
        if variant == "clip":
            kinds = {None: "layer", "t5_norm": "t5"}
        if match is None or match[1] == "0" or match[2] not in kinds:
            raise ValueError(f"There is no projector type {name!r} in the {variant} variant; use mlp2x_gelu_t5_norm.")
        return cls(source, target, int(match[1]), kinds[match[2]], states=states)


class T5Norm(nn.RMSNorm):
    """T5's norm: RMS over the width, a weight and no bias, in the precision of its weight."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Aligner(nn.Sequential):
    """(..., source) to (..., target). Children carry the numbers of the authors' checkpoints: 0, 1, 2, 3, ...

    Under autocast the matrix products are as narrow as it says, and the norm stays in the type of its weight.
    """

    def __init__(self, config: AlignerConfig):
        layers: list[nn.Module] = [nn.Linear(config.source, config.target)] if config.depth else []
        for _ in range(config.depth - 1):
            # A layer without norm keeps its place in the numbering.
            layers += [nn.GELU(), nn.Linear(config.target, config.target), _norm(config)]
        super().__init__(*layers)
        self.config = config

    @property
    def norms(self) -> list[nn.Module]:
        return [layer for layer in self if isinstance(layer, nn.RMSNorm | nn.LayerNorm)]

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU for an aligner without any."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def initialise(self, final_norm: Tensor | None = None, std: float | None = None) -> Aligner:
        """Linear layers by torch's rule (the LVLM variant), or normal with this `std` and zero biases (the CLIP
        variant, std 0.02); the weight of every norm becomes a copy of `final_norm` (target,), that of the T5 encoder.
        Without `final_norm`, norms start at 1 (the paper's ablation). The weights stay trainable, and are not tied.
        """
        for layer in self:
            if isinstance(layer, nn.Linear | nn.RMSNorm | nn.LayerNorm):
                layer.reset_parameters()
            if isinstance(layer, nn.Linear) and std is not None:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
        if final_norm is not None:
            if len(final_norm) != self.config.target:
                raise ValueError(
                    f"The T5 is {len(final_norm)} wide and the aligner writes {self.config.target}; make them equal."
                )
            for norm in self.norms:
                assert isinstance(norm.weight, Tensor)
                norm.weight.copy_(final_norm)
        return self

    def weights(self) -> dict[str, Tensor]:
        """The weights under the authors' keys."""
        return {self._key(name): tensor.detach() for name, tensor in self.state_dict().items()}

    def take(self, weights: dict[str, Tensor]) -> Aligner:
        """Weights under the authors' keys go in, in float32; all must be there in the right shape."""
        state = {}
        for name, mine in self.state_dict().items():
            key = self._key(name)
            if key not in weights:
                raise ValueError(f"The checkpoint lacks {key}, which an aligner of {self.config} has; check its type.")
            if weights[key].shape != mine.shape:
                raise ValueError(
                    f"The checkpoint has {key} in the shape {list(weights[key].shape)}, but {list(mine.shape)} is "
                    "needed; check that aligner, features and T5 belong together."
                )
            state[name] = weights[key].float()
        left = {key for key in weights if key.startswith(PREFIX)} - {self._key(name) for name in state}
        if left:
            raise ValueError(f"The checkpoint holds {min(left)}, for which this aligner has no layer; check its type.")
        self.load_state_dict(state)
        return self

    def _key(self, name: str) -> str:
        return PREFIX + (name.removeprefix("0.") if self.config.flat else name)


def _norm(config: AlignerConfig) -> nn.Module:
    kinds = {"t5": T5Norm, "rms": nn.RMSNorm, "layer": nn.LayerNorm}
    return kinds[config.norm](config.target) if config.norm in kinds else nn.Identity()


def load_aligner(
    path: str | Path, *, source: int | None = None, target: int | None = None, kind: str | None = None
) -> Aligner:
    """An aligner from the authors' checkpoint or ours, in float32 and evaluation mode.

    source, target: the widths it must have, if the caller knows them: of one of the states that make a feature, which
    for the authors' is the feature, and of what it writes. kind: the `norm` of its config where keys cannot
    tell: `rms` has the same keys as `t5`. Whatever else the file holds (optimizer, leftovers of the T5) is ignored.
    ValueError, in one sentence, for files without an aligner, with wrong widths, damaged or unsafe to open.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no aligner checkpoint {path}; give a .safetensors or .pth file.")
    weights, config = _read(path)
    if config is None:
        config = infer(weights, kind or "t5", path)
    state = config.source // config.states.parts
    for what, wanted, found in (("features", source, state), ("T5 vectors", target, config.target)):
        if wanted is not None and wanted != found:
            raise ValueError(f"{path} is an aligner for {what} {found} wide, but here they are {wanted} wide.")
    return Aligner(config).take(weights).eval()


def infer(weights: dict[str, Tensor], norm: str, path: Path) -> AlignerConfig:
    """The layers that these keys speak of; `norm` is taken for norms that have a weight and no bias."""
    if (lone := weights.get(PREFIX + "weight")) is not None:
        return AlignerConfig(lone.shape[1], lone.shape[0], 1, "none", flat=True)
    linear = [key for key, tensor in weights.items() if key.endswith(".weight") and tensor.ndim == 2]
    if PREFIX + "0.weight" not in linear:
        raise ValueError(f"{path} holds no aligner (no tensors {PREFIX}*); give a checkpoint of ThinkDiff.")
    if PREFIX + "3.bias" in weights:
        norm = "layer"
    elif PREFIX + "3.weight" not in weights:
        norm = "none"
    target, source = weights[PREFIX + "0.weight"].shape
    return AlignerConfig(source, target, len(linear), norm)


def _read(path: Path) -> tuple[dict[str, Tensor], AlignerConfig | None]:
    """The tensors of the aligner, and its config if the file tells."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                told = (file.metadata() or {}).get("aligner")
                weights = {key: file.get_tensor(key) for key in file.keys() if key.startswith(PREFIX)}  # noqa: SIM118
            return weights, AlignerConfig(**json.loads(told)) if told else None
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors and could run code, so it is not opened.") from error
    except (SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); fetch it again.") from error
    model = held.get("model", held) if isinstance(held, dict) else {}
    return {key: tensor for key, tensor in model.items() if key.startswith(PREFIX)}, None


def save_aligner(aligner: Aligner, path: str | Path) -> None:
    """Writes one safetensors file that says in its header how the aligner is built; it appears whole or not at all."""
    weights = {key: tensor.cpu().contiguous() for key, tensor in aligner.weights().items()}
    header = {"format": "pt", "aligner": json.dumps(asdict(aligner.config))}

    def write(part: Path) -> None:
        save_file(weights, part, metadata=header)
        part.chmod(0o644)  # safetensors lets only the owner read

    write_atomically(Path(path), write)
