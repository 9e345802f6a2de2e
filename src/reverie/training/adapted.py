"""What learns of a large model: LoRA adapters put into its layers in place, or all of its weights.

The network stays the object that a pipeline holds, so roll-outs, encoders and previews see what has been learnt at
once, and no second copy is needed for the reference: with adapters it is the same network with them switched off.
Checkpoints of training hold what learns and nothing else: a 20B transformer with adapters saves megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.diffusion_adapters import CONFIG, WEIGHTS
from .adapters import Lora


class Adapted:
    """A network and what learns of it: `lora.rank` 0 trains all weights. `frozen`: a copy is kept for the reference
    where there are no adapters to switch off."""

    def __init__(self, network: nn.Module, lora: Lora, frozen: bool = False):
        self.network, self.lora, self.learns = network, lora, True
        self._frozen: dict[str, Tensor] = {}
        network.requires_grad_(True)
        if lora.rank:
            inject(network, lora)
        elif frozen:
            self._frozen = {name: p.detach().clone() for name, p in network.named_parameters()}

    @classmethod
    def still(cls, network: nn.Module) -> Adapted:
        """A network that does not learn: its own reference."""
        one = cls.__new__(cls)
        one.network, one.lora, one.learns, one._frozen = network, Lora(), False, {}
        return one

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The network as it was at the start. Call it without gradient."""
        if not self.learns:
            yield self.network
            return
        if self.lora.rank:
            with adapters_off(self.network):
                yield self.network
            return
        if not self._frozen:
            raise ValueError("this network kept no copy of its first weights; a KL needs one, or LoRA adapters")
        with swapped(dict(self.network.named_parameters()), self._frozen):
            yield self.network


def inject(network: nn.Module, lora: Lora) -> None:
    """Adapters on the linear layers that learn, in place; nothing else learns any more. ValueError without peft."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("LoRA needs the library peft; install reverie[diffusion], or leave lora out.") from error
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    targets = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and lora.inside in name
        # A head that shares its weights with a table could not be merged without moving the table.
        if id(module.weight) not in tables
    ]
    if not targets:
        raise ValueError(f"lora.inside={lora.inside!r}: no linear layer that learns has this in its name.")
    network.requires_grad_(False)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, bias="none")
    inject_adapter_in_model(config, network)
    for name, parameter in network.named_parameters():
        if ".lora_" in name:  # steps of an optimiser would be lost in the rounding of bf16 weights
            parameter.data = parameter.data.float()


@contextmanager
def adapters_off(network: nn.Module) -> Iterator[None]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    learning = [p for p in network.parameters() if p.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for p in learning:  # peft stops their gradients when it switches them off
            p.requires_grad_(True)


@contextmanager
def swapped(live: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[None]:
    """The values of `other` in the place of the live ones of the same names."""
    held = {name: live[name].data for name in other}

    def put(values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            live[name].data = value
        torch.clear_autocast_cache()  # it holds weights in bf16 by their parameter, whatever its data has become

    put(other)
    try:
        yield
    finally:
        put(held)


class Learning(nn.Module):
    """The parameters that learn of several networks, each under its policy's name: the `model` of a task. What does not
    learn is neither saved nor moved."""

    def __init__(self, **networks: nn.Module):
        super().__init__()
        for name, network in networks.items():
            part = nn.Module()
            for inner, parameter in network.named_parameters():
                if parameter.requires_grad:
                    part.register_parameter(inner.replace(".", "/"), parameter)
            self.add_module(name, part)

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Tensors that checkpoints hold too, such as a copy that follows."""
        part = nn.Module()
        for inner, tensor in tensors.items():
            part.register_buffer(inner.replace(".", "/"), tensor)
        self.add_module(name, part)


def follower(network: nn.Module) -> dict[str, Tensor]:
    """A copy of what learns, to be moved by `follow`."""
    return {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def follow(slow: Mapping[str, Tensor], network: nn.Module, rate: float) -> None:
    """Moves the copy by `rate` of the way towards the network."""
    live = dict(network.named_parameters())
    for name, value in slow.items():
        value.lerp_(live[name].to(value), rate)


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """The adapters, `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, on the CPU in bf16."""
    return {
        name.replace(".default.", "."): p.detach().to("cpu", torch.bfloat16).contiguous()
        for name, p in network.named_parameters()
        if ".lora_" in name
    }


def merge(network: nn.Module) -> None:
    """Adds the adapters to the weights, and takes them out."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(owner) if owner else network, leaf, module.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config  # else peft warns of a second set when new ones are put in


def save_adapter(network: nn.Module, lora: Lora, folder: Path) -> None:
    """Weights and configuration, as peft saves them; `models/diffusion_adapters.py` adds them again."""
    import json

    from safetensors.torch import save_file

    from ..files import write_atomically

    tensors = adapter_state(network)
    targets = sorted({name.rsplit(".lora_", 1)[0] for name in tensors})
    config: dict[str, Any] = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.alpha, "bias": "none"}
    text = json.dumps(config | {"target_modules": targets}, indent=1) + "\n"

    def write(part: Path) -> None:
        save_file(tensors, part)
        part.chmod(0o644)  # safetensors lets only the owner read

    write_atomically(folder / WEIGHTS, write)
    write_atomically(folder / CONFIG, lambda part: part.write_text(text, "utf-8"))
