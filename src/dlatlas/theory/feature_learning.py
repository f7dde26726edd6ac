"""abc-parametrisations: how width enters a network, which choices learn features, and how far activations move."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from dlatlas.models.parametrised_mlp import ACTIVATION_FUNCTIONS, Parameters, ScaledMLP
from dlatlas.ops import validate
from dlatlas.typed import typed

PARAMETRISATIONS = ("mup", "ntk", "standard", "standard-c0", "mean-field")
_ROUNDING = 1e-9


class ABC(NamedTuple):
    r"""Exponents of an abc-parametrisation.

    Parameters
    ----------
    a, b
        :math:`a_1, ..., a_{L+1}` and :math:`b_1, ..., b_{L+1}`, one a layer: multipliers :math:`n^{-a_\ell}` in the
        forward pass and standard deviations :math:`n^{-b_\ell}` at the start.
    c
        The learning rate is :math:`\eta\, n^{-c}`.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    c: float


class Classification(NamedTuple):
    """What happens to an abc-parametrised network as its width grows; see `abc_classify`."""

    stable: bool
    nontrivial: bool
    r: float
    regime: str


@typed
def abc_table(name: str, L: int) -> ABC:
    r"""Exponents of the named parametrisations of a network with L hidden layers.

    Parameters
    ----------
    name
        ``"mup"``, ``"ntk"``, ``"standard"`` (with the rate :math:`\eta/n`, which it needs to be stable),
        ``"standard-c0"`` (with the rate :math:`\eta`) or ``"mean-field"`` (one hidden layer).
    L
        Hidden layers, at least 1.

    Returns
    -------
    ABC
        Exponents :math:`a, b` of the L + 1 layers, and :math:`c`.

    Raises
    ------
    ValueError
        For an unknown name, no hidden layer, or the mean-field parametrisation with more than one.

    References
    ----------
    mu-parametrisation
    """
    validate.one_of("name", name, PARAMETRISATIONS)
    validate.at_least("L", L, 1)
    hidden = L - 1
    if name == "mean-field":
        validate.in_range("L of the mean-field parametrisation", L, 1, 1)
        return ABC((0.0, 1.0), (0.0, 0.0), -1.0)
    if name == "ntk":
        return ABC((0.0,) + (0.5,) * L, (0.0,) * (L + 1), 0.0)
    if name == "mup":
        return ABC((-0.5,) + (0.0,) * hidden + (0.5,), (0.5,) * (L + 1), 0.0)
    return ABC((0.0,) * (L + 1), (0.0,) + (0.5,) * L, 0.0 if name == "standard-c0" else 1.0)


@typed
def abc_between(s: float, L: int) -> ABC:
    r"""A line of parametrisations from mu-P to the NTK.

    .. math:: a_1 = \tfrac{s-1}{2},\; a_\ell = \tfrac s2,\; a_{L+1} = \tfrac12, \qquad
        b_\ell = \tfrac{1-s}{2}, \qquad c = 0

    All of them are stable and non-trivial, and :math:`r = s/2`.

    Parameters
    ----------
    s
        0 for mu-P, 1 for the NTK parametrisation.
    L
        Hidden layers, at least 1.

    Returns
    -------
    ABC
        The exponents.

    Raises
    ------
    ValueError
        For s outside [0, 1], or no hidden layer.

    References
    ----------
    mu-parametrisation
    """
    validate.in_range("s", s, 0.0, 1.0)
    validate.at_least("L", L, 1)
    return ABC(((s - 1) / 2,) + (s / 2,) * (L - 1) + (0.5,), ((1 - s) / 2,) * (L + 1), 0.0)


@typed
def abc_shift(exponents: ABC, t: float) -> ABC:
    r"""The same training in other clothes: :math:`(a_\ell, b_\ell, c) \to (a_\ell + t, b_\ell - t, c - 2t)`.

    Parameters
    ----------
    exponents, t
        A parametrisation, and the shift.

    Returns
    -------
    ABC
        A parametrisation with the same trajectories under stochastic gradient descent.

    References
    ----------
    mu-parametrisation
    """
    a, b, c = exponents
    return ABC(tuple(x + t for x in a), tuple(x - t for x in b), c - 2 * t)


@typed
def abc_movement(a: Sequence[float], b: Sequence[float], c: float) -> tuple[float, ...]:
    r"""Exponents with which the activations of the hidden layers move, :math:`\Delta x^\ell \sim n^{-r_\ell}`.

    .. math::
        r_\ell = \min(a_{L+1} + b_{L+1},\, 2 a_{L+1} + c) + c - 1
        + \min_{k \le \ell} \bigl[2 a_k + \mathbb 1\{k = 1\}\bigr]

    Parameters
    ----------
    a, b, c
        Exponents of L + 1 layers, as in `ABC`; for stochastic gradient descent and inputs of a fixed dimension.

    Returns
    -------
    tuple of float
        :math:`r_1, \dots, r_L`; the last is the r of `abc_classify`.

    Raises
    ------
    ValueError
        For fewer than two layers, or sequences of different length.

    References
    ----------
    mu-parametrisation
    """
    validate.at_least("number of layers in a", len(a), 2)
    validate.in_range("number of layers in b", len(b), len(a), len(a))
    own = [2 * x + (index == 0) for index, x in enumerate(a[:-1])]
    backward = min(a[-1] + b[-1], 2 * a[-1] + c)
    return tuple(backward + c - 1 + smallest for smallest in accumulate(own, min))


@typed
def abc_classify(a: Sequence[float], b: Sequence[float], c: float) -> Classification:
    r"""Decide from the exponents whether the infinitely wide network trains, and whether its features move.

    .. math::
        r = \min(a_{L+1} + b_{L+1},\, 2 a_{L+1} + c) + c - 1
        + \min_{\ell \le L} \bigl[2 a_\ell + \mathbb 1\{\ell = 1\}\bigr]

    Features move by :math:`n^{-r}` in one step. *Stable*: :math:`a_1 + b_1 = 0`, :math:`a_\ell + b_\ell = \frac12`,
    :math:`a_{L+1} + b_{L+1} \ge \frac12`, :math:`r \ge 0`, :math:`2 a_{L+1} + c \ge 1`,
    :math:`a_{L+1} + b_{L+1} + r \ge 1`. *Non-trivial*: equality in one of the last two. Then features are learnt if
    and only if :math:`r = 0`, and training is that of a kernel if :math:`r > 0`.

    Parameters
    ----------
    a, b, c
        Exponents of L + 1 layers, as in `ABC`; for stochastic gradient descent and inputs of a fixed dimension.

    Returns
    -------
    Classification
        ``stable``, ``nontrivial``, ``r``, and ``regime``: ``"feature learning"``, ``"kernel"``, ``"trivial"`` or
        ``"unstable"``.

    Raises
    ------
    ValueError
        For fewer than two layers, or sequences of different length.

    References
    ----------
    mu-parametrisation
    """
    r = abc_movement(a, b, c)[-1]
    start, step = a[-1] + b[-1], 2 * a[-1] + c
    forward = _zero(a[0] + b[0]) and all(_zero(x + y - 0.5) for x, y in zip(a[1:-1], b[1:-1], strict=True))
    smallest = min(start - 0.5, r, step - 1, start + r - 1)
    stable = forward and smallest >= -_ROUNDING
    nontrivial = _zero(step - 1) or _zero(start + r - 1)
    if not stable:
        regime = "unstable"
    elif not nontrivial:
        regime = "trivial"
    else:
        regime = "feature learning" if _zero(r) else "kernel"
    return Classification(stable, nontrivial, r, regime)


class ABCMLP(ScaledMLP):
    r"""A fully connected network without biases in any abc-parametrisation.

    .. math:: h^\ell = n^{-a_\ell}\, w^\ell \phi(h^{\ell-1}), \qquad w^\ell_{ij} \sim N(0, n^{-2 b_\ell})

    Parameters
    ----------
    inputs, width, outputs
        Dimensions; all L hidden layers have the width n.
    exponents
        `ABC` with L + 1 layers.
    act
        As for `dlatlas.models.parametrised_mlp.NTKMLP`.

    Raises
    ------
    ValueError
        For fewer than two layers, or what `ScaledMLP` refuses.

    References
    ----------
    mu-parametrisation
    """

    def __init__(self, inputs: int, width: int, outputs: int, exponents: ABC, act: str = "relu"):
        validate.at_least("number of layers in exponents", len(exponents.a), 2)
        super().__init__([inputs, *[width] * (len(exponents.a) - 1), outputs], act, 0.0)
        self.width, self.exponents = width, exponents
        with torch.no_grad():
            for weight, b in zip(self.weights, exponents.b, strict=True):
                weight *= width**-b

    @property
    def factors(self) -> list[float]:
        return [self.width**-a for a in self.exponents.a]

    def lr(self, eta: float) -> float:
        r"""Learning rate :math:`\eta\, n^{-c}` for the weights w.

        Raises
        ------
        ValueError
            For a rate that is not positive, and for an unstable parametrisation: one rate for all parametrisations,
            without the factor that each one needs, makes the activations or the outputs grow with the width.
        """
        validate.positive("eta", eta)
        found = abc_classify(*self.exponents)
        if not found.stable:
            raise ValueError(f"exponents must be those of a stable parametrisation, got {self.exponents}: {found}")
        return eta * self.width**-self.exponents.c


@typed
def coord_check(
    net: ScaledMLP,
    params: Parameters,
    x: Float[Tensor, "n d"],
    loss: Callable[[Tensor], Tensor],
    *,
    lr: float,
    steps: int,
) -> Float[Tensor, " layers"]:
    r"""How far the activations of every layer move in a few steps of full-batch gradient descent.

    .. math:: \Delta_\ell = \Bigl( \frac{1}{n\, m_\ell} \sum_{i=1}^n
        \bigl\lVert \phi(h^\ell_t(x_i)) - \phi(h^\ell_0(x_i)) \bigr\rVert^2 \Bigr)^{1/2}

    with :math:`h^L` itself in place of :math:`\phi(h^L)` for the outputs.

    Parameters
    ----------
    net
        Gives the architecture and the parametrisation.
    params
        Its parameters at the start.
    x
        Inputs; rows are samples.
    loss
        From the outputs (n, c) to a scalar.
    lr, steps
        Learning rate, including its power of the width, and number of steps.

    Returns
    -------
    Tensor
        One root mean square a layer of weights, the outputs last.

    Raises
    ------
    ValueError
        When the rate or the number of steps is not positive.

    References
    ----------
    mu-parametrisation
    """
    validate.positive("lr", lr)
    validate.at_least("steps", steps, 1)
    slope = grad(lambda p: loss(net.preactivations(p, x)[-1]))
    moved = params
    for _ in range(steps):
        gradients = slope(moved)
        moved = {name: p - lr * gradients[name] for name, p in moved.items()}
    pairs = zip(_activations(net, params, x), _activations(net, moved, x), strict=True)
    return torch.stack([(after - before).square().mean().sqrt() for before, after in pairs])


def _activations(net: ScaledMLP, params: Parameters, x: Tensor) -> list[Tensor]:
    *hidden, f = net.preactivations(params, x)
    return [ACTIVATION_FUNCTIONS[net.act](h) for h in hidden] + [f]


def _zero(value: float) -> bool:
    return math.isclose(value, 0.0, abs_tol=_ROUNDING)
