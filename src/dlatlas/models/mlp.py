"""Multilayer perceptrons."""

from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.ops.validate import at_least, in_range, one_of
from dlatlas.typed import typed

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class Linear(nn.Linear):
    """An ``nn.Linear`` that also takes the parameters of S networks at once: weight (S, out, in), bias (S, out)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out); with stacked parameters, row s of (S, ..., in) by the layer of network s."""
        return super().forward(x) if self.weight.dim() == 2 else _stacked_linear(x, self.weight, self.bias)


class MLP(nn.Sequential):
    """Linear layers with activations between them: an ``nn.Sequential`` that can stop before its last layer."""

    @property
    def stackable(self) -> bool:
        """Whether all layers also take stacked parameters, so that an ensemble need not map over the networks.

        A layer of a subclass does not count, nor one with a parametrisation (low rank, weight norm): its weight is
        computed by a function that need not know of a seed axis.
        """
        return type(self) is MLP and all(type(layer) in (Linear, nn.Dropout, *ACTIVATIONS.values()) for layer in self)

    @typed
    def features(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n h"]:
        """Give the last hidden layer, the input of the final linear map."""
        check_shape("x", x, self[0].in_features)
        for layer in list(self)[:-1]:
            x = layer(x)
        return x

    @typed
    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n k"]:
        """Give the logits."""
        check_shape("x", x, self[0].in_features)
        return super().forward(x)


@typed
def mlp(*widths: int, activation: str = "relu", bias: bool = True, dropout: float = 0.0) -> MLP:
    r"""Build a multilayer perceptron with PyTorch's default initialisation.

    .. math:: h^0 = x, \qquad h^{l} = \phi(W^l h^{l-1} + b^l), \qquad z = W^L h^{L-1} + b^L

    Parameters
    ----------
    *widths
        Input dimension, widths of the hidden layers, output dimension: ``mlp(64, 128, 128, 10)`` has two hidden layers.
    activation
        The function φ, one of gelu, identity (a deep linear network), relu, sigmoid, silu, softplus, tanh.
    bias
        Whether the layers have biases b.
    dropout
        Probability, in [0, 1], with which a hidden unit is set to zero in training; 0 leaves the dropout layers out.

    Returns
    -------
    MLP
        A module from (n, widths[0]) to logits (n, widths[-1]).

    Raises
    ------
    ValueError
        If fewer than two widths are given, a width is not positive, the activation is not known or dropout is not a
        probability.
    """
    at_least("number of widths", len(widths), 2)
    for width in widths:
        at_least("width", width, 1)
    one_of("activation", activation, tuple(ACTIVATIONS))
    in_range("dropout", dropout, 0, 1)

    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [Linear(inputs, outputs, bias=bias), ACTIVATIONS[activation]()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return MLP(*layers, Linear(widths[-2], widths[-1], bias=bias))


def _stacked_linear(
    x: Float[Tensor, "S *n d"], weight: Float[Tensor, "S k d"], bias: Float[Tensor, "S k"] | None
) -> Tensor:
    """W x + b for S layers at once, computed as matrices times columns: the gradients of W are laid out as W is.

    The product x W' would give gradients of W', which autograd copies into the layout of W in every step.
    """
    columns = x.reshape(len(x), prod(x.shape[1:-1]), x.shape[-1]).mT
    z = weight @ columns if bias is None else torch.baddbmm(bias.unsqueeze(-1), weight, columns)
    return z.mT.reshape(*x.shape[:-1], weight.shape[-2])
