"""Number the layers of a network from stem to head."""

from collections.abc import Iterable, Iterator

from torch import nn
from torchvision.models.googlenet import InceptionAux as GoogLeNetAux
from torchvision.models.inception import InceptionAux

from cls_models.backbones.heads import find_head_name

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_AUXILIARY_HEADS = (GoogLeNetAux, InceptionAux)


def get_layer_ids(backbone: nn.Module) -> dict[str, int]:
    """Return the layer number of each parameter, by dotted name; the stem is 0, the head is last.

    A layer is a child of the network, or an item of a child that is a Sequential, ModuleList, or
    ModuleDict, at any depth: the blocks of a ResNet, the dense layers of a DenseNet, the blocks and
    patch mergings of a Swin. If another child holds more than half of all parameters, as the
    encoder of a ViT does, its children are treated as the network's. Modules without weights join
    the layer before them: a batch norm its convolution, an encoder's final norm the last block, and
    position embeddings the stem. Auxiliary heads belong to the head's layer.

    The order is that of registration, which is the order of execution in torchvision's classifiers.

    Raises:
        BackboneError: The network has no head.
    """
    head_name = find_head_name(backbone)
    head_prefix = ""  # for a network that is a single linear layer
    if head_name:
        head_prefix = f"{head_name}."
    weights = get_weight_names(backbone)

    layer_ids: dict[str, int] = {}
    head_names: list[str] = []
    number = 0
    has_weights = False  # whether the current layer has any
    half = _count_elements(backbone.parameters()) / 2
    for unit, names in _list_units(backbone, "", half):
        is_auxiliary = isinstance(unit, _AUXILIARY_HEADS)
        own = []
        for name in names:
            if is_auxiliary or name.startswith(head_prefix):
                head_names.append(name)
            else:
                own.append(name)

        if not weights.isdisjoint(own):
            if has_weights:
                number += 1
            has_weights = True
        layer_ids.update(dict.fromkeys(own, number))

    head_id = number + 1 if layer_ids else 0
    layer_ids.update(dict.fromkeys(head_names, head_id))
    return {name: layer_ids[name] for name, _ in backbone.named_parameters()}


def get_weight_names(module: nn.Module) -> frozenset[str]:
    """Return the names of the weights of linear layers, convolutions, and attention.

    Excluded are biases, norms, class tokens, position embeddings and biases, layer scales, and
    logit scales. In torchvision these are parameters of norms, or their names do not end in
    "weight".
    """
    names = set()
    for path, owner in module.named_modules():
        if isinstance(owner, _NORMS):
            continue
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.ndim >= 2 and name.endswith("weight"):
                names.add(f"{path}.{name}".removeprefix("."))
    return frozenset(names)


def _list_units(
    module: nn.Module, prefix: str, half: float
) -> Iterator[tuple[nn.Module, list[str]]]:
    """Yield each submodule that can be a layer, with the names of its parameters.

    `half` is half the number of elements of the whole network's parameters.
    """
    yield module, [prefix + name for name, _ in module.named_parameters(recurse=False)]

    is_container = isinstance(module, _CONTAINERS)
    for name, child in module.named_children():
        # An item of a container is a block of any size: the last stage of a MaxViT holds 57%.
        is_body = not is_container and _count_elements(child.parameters()) > half
        has_children = any(True for _ in child.children())
        child_prefix = f"{prefix}{name}."
        if isinstance(child, _CONTAINERS) or (is_body and has_children):
            yield from _list_units(child, child_prefix, half)
        else:
            yield child, [child_prefix + inner for inner, _ in child.named_parameters()]


def _count_elements(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
