"""Find the classification head of a network, and set its dropout and pooling.

Shapes: F features before the head, C classes.
"""

from torch import Tensor, nn
from torch.nn import functional


class BackboneError(ValueError):
    """A backbone or its weights cannot be built or loaded. The message says what to do instead."""


class DropoutLinear(nn.Linear):
    """A linear layer with dropout on its input.

    Its parameters have the names of `nn.Linear`, so state dicts fit with and without dropout.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, rate: float = 0.0
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.rate = rate

    def forward(self, features: Tensor) -> Tensor:
        """Map features [..., F] to logits [..., C]."""
        dropped = functional.dropout(features, self.rate, self.training)
        return super().forward(dropped)

    def extra_repr(self) -> str:
        """Return the sizes and the dropout rate."""
        sizes = super().extra_repr()
        return f"{sizes}, rate={self.rate}"


def find_head_name(backbone: nn.Module) -> str:
    """Return the dotted name of the layer that computes the logits, such as `fc` or `classifier.6`.

    It is the last registered `nn.Linear`, or the last `nn.Conv2d` in a network without linear
    layers (SqueezeNet).

    Raises:
        BackboneError: The network has neither.
    """
    for layer_type in (nn.Linear, nn.Conv2d):
        names: list[str] = [
            name for name, module in backbone.named_modules() if isinstance(module, layer_type)
        ]
        if names:
            return names[-1]
    raise BackboneError(
        f"{type(backbone).__name__} has no classification layer: expected an nn.Linear, "
        "or an nn.Conv2d in a network without linear layers"
    )


def get_head(backbone: nn.Module) -> nn.Linear | nn.Conv2d:
    """Return the layer that computes the logits; its weight is [C, F], or [C, F, 1, 1]."""
    name = find_head_name(backbone)
    head = backbone.get_submodule(name)
    assert isinstance(head, nn.Linear | nn.Conv2d)
    return head


def set_dropout(backbone: nn.Module, rate: float) -> None:
    """Set the dropout rate of the features before the head.

    If the head's parent module has dropout layers (AlexNet, EfficientNet, Inception, MobileNet,
    VGG, ...), the rate of all of them is set. Otherwise the head becomes a `DropoutLinear` with the
    same parameters. Dropout inside blocks and stochastic depth do not change.
    """
    check_dropout_rate(rate)
    name = find_head_name(backbone)
    parent_name = name.rpartition(".")[0]
    parent = backbone.get_submodule(parent_name)
    dropout_layers = [layer for layer in parent.children() if isinstance(layer, nn.Dropout)]
    for layer in dropout_layers:
        layer.p = rate
    if dropout_layers:
        return
    head = backbone.get_submodule(name)
    if not isinstance(head, nn.Linear):
        raise BackboneError(
            f"dropout needs a linear head or a dropout layer next to it; {name} is a convolution"
        )
    backbone.set_submodule(name, _add_dropout(head, rate))


def check_dropout_rate(rate: float) -> None:
    """Raise a BackboneError unless 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise BackboneError(f"dropout must be at least 0 and less than 1, got {rate}")


def set_pooling(backbone: nn.Module, pooling: str) -> None:
    """Pool the last feature map by `average` (as published) or by `max`."""
    if pooling not in ("average", "max"):
        raise BackboneError(f"unknown pooling {pooling!r}; expected 'average' or 'max'")
    if pooling == "average":
        return
    name = _find_global_pool(backbone)
    if name is None:
        raise BackboneError(
            f"pooling 'max' is not supported: {type(backbone).__name__} has no layer that averages "
            "its last feature map to one value per channel. Use pooling 'average', or a ResNet, "
            "RegNet, EfficientNet, ConvNeXt, or Swin"
        )
    backbone.set_submodule(name, nn.AdaptiveMaxPool2d(1))


def _add_dropout(linear: nn.Linear, rate: float) -> DropoutLinear:
    has_bias = linear.bias is not None
    layer = DropoutLinear(linear.in_features, linear.out_features, has_bias, rate)
    layer.weight = linear.weight
    layer.bias = linear.bias
    return layer.train(linear.training)


def _find_global_pool(backbone: nn.Module) -> str | None:
    """Return the last global pool that is a child of the network or of the head's parent.

    Pools of squeeze-and-excitation are inside blocks.
    """
    head_parent = find_head_name(backbone).rpartition(".")[0]
    last = None
    for name, module in backbone.named_modules():
        if not isinstance(module, nn.AdaptiveAvgPool2d):
            continue
        is_global = module.output_size in (1, (1, 1))
        parent = name.rpartition(".")[0]
        if is_global and parent in ("", head_parent):
            last = name
    return last
