"""The depth of every parameter: which layer it lies in, counted from the stem to the head."""

from collections.abc import Iterable, Iterator

from torch import nn
from torchvision.models.googlenet import InceptionAux as GoogLeNetAux
from torchvision.models.inception import InceptionAux

from cls_models.backbones.heads import head_name

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_AUXILIARY_HEADS = (GoogLeNetAux, InceptionAux)


def layer_ids(backbone: nn.Module) -> dict[str, int]:
    """Return the layer number of every parameter by its dotted name: the stem is 0, the head has the highest.

    A layer is a child of the network or, where the child is a Sequential, ModuleList or ModuleDict, an item of it, at
    any depth: a ResNet's blocks, a DenseNet's dense layers, the blocks and the patch mergings of a Swin. A child of
    another class that holds more than half of all the parameters, as the encoder of a ViT does, counts as the
    network's body, and its children as the network's. What has no weights of its own to speak of belongs to what
    came before it: a batch norm to its convolution, an encoder's last norm to the last block, and so do position
    embeddings to the stem. Auxiliary heads are in the head's layer.

    The order is the order of registration, which is the order of execution in all of torchvision's classifiers.

    Raises:
        ValueError: no head can be found.
    """
    head, weights = head_name(backbone), weight_names(backbone)
    in_head = f"{head}." if head else ""  # a network that is nothing but a linear layer
    numbers: dict[str, int] = {}
    last: set[str] = set()
    number, has_weights = 0, False
    for unit, names in _units(backbone, "", _size(backbone.parameters()) / 2):
        of_heads = {
            name for name in names if name.startswith(in_head) or isinstance(unit, _AUXILIARY_HEADS)
        }
        last |= of_heads
        own = [name for name in names if name not in of_heads]
        if has_weights and not weights.isdisjoint(own):
            number += 1
        has_weights = has_weights or not weights.isdisjoint(own)
        numbers.update(dict.fromkeys(own, number))
    numbers.update(dict.fromkeys(last, number + 1 if numbers else 0))
    return {name: numbers[name] for name, _ in backbone.named_parameters()}


def weight_names(module: nn.Module) -> frozenset[str]:
    """Return the dotted names of the parameters that multiply features: of linear layers, convolutions, attention.

    Not among them: biases, the scales of norms, class tokens, position embeddings and biases, layer scales, logit
    scales; in torchvision each of these is a parameter whose own name does not end in "weight", or a norm's.
    """
    return frozenset(
        f"{path}.{name}".removeprefix(".")
        for path, owner in module.named_modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if parameter.ndim >= 2 and name.endswith("weight") and not isinstance(owner, _NORMS)
    )


def _units(body: nn.Module, prefix: str, half: float) -> Iterator[tuple[nn.Module, list[str]]]:
    """Yield the parts that can be layers, each with the names of its parameters; `half` is of the whole network."""
    yield body, [prefix + name for name, _ in body.named_parameters(recurse=False)]
    for name, child in body.named_children():
        # An item of a container is a block, however large: the last stage of a MaxViT holds 57 % of it.
        is_body = not isinstance(body, _CONTAINERS) and _size(child.parameters()) > half
        if isinstance(child, _CONTAINERS) or (is_body and any(True for _ in child.children())):
            yield from _units(child, f"{prefix}{name}.", half)
        else:
            yield child, [f"{prefix}{name}.{inner}" for inner, _ in child.named_parameters()]


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
