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
    r"""A fully connected network whose layers are :math:`h^\ell = a_\ell W^\ell \phi(h^{\ell-1}) + c\, b^\ell`.

    The parametrisation is the choice of the fixed factors :math:`a_\ell, c` and of the standard deviations at
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
        r"""The factors :math:`a_\ell` in front of the weights."""
        raise NotImplementedError

    @property
    def bias_factor(self) -> float:
        """The factor :math:`c` in front of the biases."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d) to (n, outputs)."""
        return self.preactivations(dict(self.named_parameters()), x)[-1]

    def preactivations(self, params: Parameters, x: Tensor, shifts: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The values :math:`h^1, ..., h^L` of all layers, with a constant added to each where ``shifts`` gives one.

        Parameters may have leading axes of their own, for several networks, where ``x`` has the same: (..., n, d).
        """
        layers, signal = [], x
        for index, factor in enumerate(self.factors):
            h = factor * signal @ params[f"weights.{index}"].mT
            if self.biases is not None:
                h = h + self.bias_factor * params[f"biases.{index}"][..., None, :]
            if shifts is not None:
                h = h + shifts[index]
            layers.append(h)
            signal = ACTIVATION_FUNCTIONS[self.act](h)
        return layers


class NTKMLP(ScaledMLP):
    r"""A network in the NTK parametrisation: every parameter is N(0, 1), and the scale is in the forward pass.

    .. math:: h^\ell = \frac{1}{\sqrt{m_{\ell-1}}} W^\ell \phi(h^{\ell-1}) + \beta\, b^\ell, \qquad f = h^L

    Parameters
    ----------
    widths
        :math:`m_0, ..., m_L`: input, hidden layers, output.
    act
        :math:`\phi`: ``"relu"``, ``"erf"`` or ``"linear"``.
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

    .. math:: h^\ell = W^\ell \phi(h^{\ell-1}) + b^\ell, \qquad
        W^\ell_{ij} \sim N(0, 1/m_{\ell-1}), \quad b^\ell_i \sim N(0, \beta^2)

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
