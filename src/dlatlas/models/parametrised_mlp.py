"""Fully connected networks in the NTK and in the standard parametrisation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.ops.kernels import ACTIVATIONS

ACTIVATION_FUNCTIONS = {"relu": torch.relu, "erf": torch.erf, "linear": lambda z: z}
Parameters = dict[str, Tensor]


class ScaledMLP(nn.Module):
    r"""A fully connected network whose layers are :math:`h^l = a_l W^l s(h^{l-1}) + c\, b^l`.

    The parametrisation is the choice of the fixed factors :math:`a_l, c` and of the standard deviations at
    initialisation: see `NTKMLP` and `StandardMLP`.
    """

    def __init__(self, widths: Sequence[int], act: str, beta: float):
        super().__init__()
        validate.one_of("act", act, ACTIVATIONS)
        validate.at_least("beta", beta, 0.0)
        validate.at_least("number of widths (input, hidden layers, output)", len(widths), 2)
        validate.at_least("smallest of the widths", min(widths), 1)
        self.widths, self.act, self.beta = tuple(widths), act, beta
        self.fan_in, self.fan_out = self.widths[:-1], self.widths[1:]
        self.weights = nn.ParameterList(torch.randn(o, i) for i, o in zip(self.fan_in, self.fan_out, strict=True))
        self.biases = nn.ParameterList(torch.randn(o) for o in self.fan_out) if beta > 0 else None

    @property
    def factors(self) -> list[float]:
        """The factors :math:`a_l` in front of the weights."""
        raise NotImplementedError

    @property
    def bias_factor(self) -> float:
        """The factor :math:`c` in front of the biases."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d) to (n, outputs)."""
        return self.preactivations(dict(self.named_parameters()), x)[-1]

    def preactivations(self, params: Parameters, x: Tensor, shifts: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The values :math:`h^1, ..., h^L` of all layers, with a constant added to each where ``shifts`` gives one."""
        layers, signal = [], x
        for index, factor in enumerate(self.factors):
            h = factor * signal @ params[f"weights.{index}"].mT
            if self.biases is not None:
                h = h + self.bias_factor * params[f"biases.{index}"]
            if shifts is not None:
                h = h + shifts[index]
            layers.append(h)
            signal = ACTIVATION_FUNCTIONS[self.act](h)
        return layers


class NTKMLP(ScaledMLP):
    r"""A network in the NTK parametrisation: every parameter is N(0, 1), and the scale is in the forward pass.

    .. math:: h^{l} = \frac{1}{\sqrt{n_{l-1}}} W^{l} s(h^{l-1}) + \beta\, b^{l}, \qquad f = h^{L}

    Parameters
    ----------
    widths
        :math:`n_0, ..., n_L`: input, hidden layers, output.
    act
        :math:`s`: ``"relu"``, ``"erf"`` or ``"linear"``.
    beta
        Scale :math:`\beta \ge 0` of the biases; at 0 there are none.

    References
    ----------
    neural-tangent-kernel
    """

    @property
    def factors(self) -> list[float]:
        return [1 / math.sqrt(n) for n in self.fan_in]

    @property
    def bias_factor(self) -> float:
        return self.beta


class StandardMLP(ScaledMLP):
    r"""A network in the standard parametrisation: the scale is in the initial weights.

    .. math:: h^{l} = W^{l} s(h^{l-1}) + b^{l}, \qquad W^l_{ij} \sim N(0, 1/n_{l-1}), \quad b^l_i \sim N(0, \beta^2)

    At initialisation it computes the same random functions as `NTKMLP`; the gradients differ.

    Parameters
    ----------
    widths, act, beta
        As for `NTKMLP`.

    References
    ----------
    neural-tangent-kernel
    """

    def __init__(self, widths: Sequence[int], act: str, beta: float):
        super().__init__(widths, act, beta)
        with torch.no_grad():
            for weight in self.weights:
                weight /= math.sqrt(weight.shape[1])
            for bias in self.biases or ():
                bias *= beta

    @property
    def factors(self) -> list[float]:
        return [1.0] * len(self.fan_in)

    @property
    def bias_factor(self) -> float:
        return 1.0
