"""The last layers of a classifier: finding its head, and changing what stands in front of it.

Shapes: F features in front of the head, C classes.
"""

from torch import Tensor, nn
from torch.nn import functional


class BackboneError(ValueError):
    """A backbone or its weights cannot be had as asked. The message says what to do instead."""


class DropoutLinear(nn.Linear):
    """A linear layer that zeroes a share `rate` of its input features while training, and scales up the rest.

    It has the tensors of a plain `nn.Linear`, so a state dict fits whether the features are dropped or not.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, rate: float = 0.0
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.rate = rate

    def forward(self, features: Tensor) -> Tensor:
        """Map features [..., F] to logits [..., C]."""
        return super().forward(functional.dropout(features, self.rate, self.training))

    def extra_repr(self) -> str:
        """Show the rate beside the sizes."""
        return f"{super().extra_repr()}, rate={self.rate}"


def head_name(backbone: nn.Module) -> str:
    """Return the dotted name of the layer that gives the logits, such as `fc`, `classifier.6` or `heads.head`.

    That is the last `nn.Linear` in the order of registration; in a network without any (SqueezeNet), the last
    `nn.Conv2d`.

    Raises:
        BackboneError: there is neither.
    """
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [
            name for name, module in backbone.named_modules() if isinstance(module, kind)
        ]
        if names:
            return names[-1]
    raise BackboneError(
        f"{type(backbone).__name__} has no classification layer that can be found: expected its last nn.Linear, "
        "or its last nn.Conv2d where it has no nn.Linear"
    )


def head(backbone: nn.Module) -> nn.Linear | nn.Conv2d:
    """Return the layer that gives the logits: its `weight` is [C, F], or [C, F, 1, 1] for a convolution.

    Raises:
        BackboneError: as for `head_name`.
    """
    found = backbone.get_submodule(head_name(backbone))
    assert isinstance(found, nn.Linear | nn.Conv2d)
    return found


def set_dropout(backbone: nn.Module, rate: float) -> None:
    """Drop this share of the features in front of the head while training.

    Where the family has dropout layers beside its head (AlexNet, EfficientNet, Inception, MobileNet, VGG, ...), their
    rate is set, all of them alike. Where it has none, the head becomes a `DropoutLinear` with the same tensors. Dropout
    inside blocks and stochastic depth stay as they are.

    Raises:
        BackboneError: `rate` lies outside 0 <= rate < 1.
    """
    check_rate(rate)
    name = head_name(backbone)
    beside = [
        module for module in _parent(backbone, name).children() if isinstance(module, nn.Dropout)
    ]
    for layer in beside:
        layer.p = rate
    if not beside:
        plain = backbone.get_submodule(name)
        if not isinstance(plain, nn.Linear):
            raise BackboneError(
                f"dropout needs a linear head or a dropout layer beside it; {name} is a convolution"
            )
        backbone.set_submodule(name, _with_dropout(plain, rate))


def check_rate(rate: float) -> None:
    """Refuse a dropout rate outside 0 <= rate < 1 by a BackboneError."""
    if not 0 <= rate < 1:
        raise BackboneError(f"dropout must be at least 0 and less than 1, got {rate}")


def set_pooling(backbone: nn.Module, pooling: str) -> None:
    """Reduce the last feature map to one vector by its `average`, as published, or by its `max`.

    Raises:
        BackboneError: another word, or `max` for a family whose last pool is not a layer with one value per channel.
    """
    if pooling not in ("average", "max"):
        raise BackboneError(f"unknown pooling {pooling!r}; expected 'average' or 'max'")
    if pooling == "average":
        return
    name = _final_pool(backbone)
    if name is None:
        raise BackboneError(
            f"pooling 'max' cannot be had: {type(backbone).__name__} has no layer that averages its last feature map "
            "to one value per channel; use pooling 'average', or a ResNet, RegNet, EfficientNet, ConvNeXt or Swin"
        )
    backbone.set_submodule(name, nn.AdaptiveMaxPool2d(1))


def _with_dropout(plain: nn.Linear, rate: float) -> DropoutLinear:
    dropped = DropoutLinear(plain.in_features, plain.out_features, plain.bias is not None, rate)
    dropped.weight, dropped.bias = plain.weight, plain.bias
    return dropped.train(plain.training)


def _final_pool(backbone: nn.Module) -> str | None:
    """Pools of squeeze-and-excitation lie inside blocks; the last one is the network's own child, or the head's."""
    beside = head_name(backbone).rpartition(".")[0]
    names = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d)
        and module.output_size in (1, (1, 1))
        and name.rpartition(".")[0] in ("", beside)
    ]
    return names[-1] if names else None


def _parent(backbone: nn.Module, name: str) -> nn.Module:
    return backbone.get_submodule(name.rpartition(".")[0])
