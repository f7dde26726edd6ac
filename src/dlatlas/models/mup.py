"""The maximal update parametrisation for any model: initial scales and a learning rate for every parameter."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.typed import typed

RULES = ("sgd", "adam")
_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


@dataclass(frozen=True)
class MupScale:
    r"""How one parameter changes when the model grows from its base width.

    Parameters
    ----------
    init
        Factor on the initial weights of the standard parametrisation.
    sgd, adam
        Factors on the learning rate, by the kind of optimiser.
    """

    init: float
    sgd: float
    adam: float


@typed
def mup_scales(model: nn.Module, base: nn.Module) -> dict[str, MupScale]:
    r"""Compare a model with a narrow copy of it, and give the scale of every parameter in the mu-parametrisation.

    .. math::
        \begin{array}{l|ccc}
        & \text{initial weights} & \text{rate, SGD} & \text{rate, Adam} \\ \hline
        \text{vectors: from a fixed to a wide side, biases, gains} & 1 & r_{\rm out} & 1 \\
        \text{matrices between two wide sides} & 1 & r_{\rm out}/r_{\rm in} & 1/r_{\rm in} \\
        \text{readouts: from a wide to a fixed side} & r_{\rm in}^{-1/2} & 1/r_{\rm in} & 1/r_{\rm in}
        \end{array}

    :math:`r` is how much longer a side is than in the base model; a side that did not grow is fixed. The first axis of
    the weights of linear layers, convolutions and attention projections is their output, the second their input; all
    other parameters (biases, gains, embeddings, free tensors) are vectors along the axis that grew.

    Parameters
    ----------
    model
        A model whose initial weights have the variance 1/fan-in, or constant ones for embeddings and gains: the
        standard parametrisation, which is what PyTorch's layers have.
    base
        The same model at the width at which the learning rate was tuned.

    Returns
    -------
    dict
        A `MupScale` for every name in ``model.named_parameters()``.

    Raises
    ------
    ValueError
        When the two models do not have the same parameters up to the lengths of their axes.

    References
    ----------
    mu-parametrisation
    """
    shapes = {name: p.shape for name, p in base.named_parameters()}
    matrices = _names_of_matrices(model)
    scales = {}
    for name, p in model.named_parameters():
        if name not in shapes or len(shapes[name]) != p.dim():
            raise ValueError(f"base must have a parameter {name} with {p.dim()} axes, as the model has")
        growth = [large / small for large, small in zip(p.shape, shapes[name], strict=True)]
        scales[name] = _matrix_scale(growth) if name in matrices else _vector_scale(prod(growth))
    if len(shapes) != len(scales):
        raise ValueError(f"model must have the parameters of base, lacks {sorted(set(shapes) - set(scales))}")
    return scales


@typed
def mup_init_(model: nn.Module, scales: Mapping[str, MupScale]) -> nn.Module:
    """Scale the initial weights of a model in place, and return it.

    Parameters
    ----------
    model
        A model as its constructor leaves it.
    scales
        From `mup_scales`.

    References
    ----------
    mu-parametrisation
    """
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(scales[name].init)
    return model


@typed
def mup_groups(
    parameters: Mapping[str, Tensor], scales: Mapping[str, MupScale], *, lr: float, rule: str
) -> list[dict[str, Any]]:
    r"""Parameter groups for a torch optimiser, each with its own learning rate.

    Parameters
    ----------
    parameters
        Parameters by name: of a model, or stacked ones of an ensemble.
    scales
        From `mup_scales`.
    lr
        Learning rate of the base model.
    rule
        ``"sgd"`` for updates proportional to the gradient, with or without momentum; ``"adam"`` for updates whose size
        does not depend on that of the gradient: Adam and its relatives, without weight decay or with decoupled decay.

    Returns
    -------
    list of dict
        One group for each learning rate.

    Raises
    ------
    ValueError
        For an unknown rule or a rate that is not positive.

    References
    ----------
    mu-parametrisation
    """
    validate.one_of("rule", rule, RULES)
    validate.positive("lr", lr)
    groups: dict[float, list[Tensor]] = {}
    for name, p in parameters.items():
        groups.setdefault(lr * getattr(scales[name], rule), []).append(p)
    return [{"params": params, "lr": rate} for rate, params in groups.items()]


def _names_of_matrices(model: nn.Module) -> set[str]:
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _MATRICES)
        for name, p in module.named_parameters(recurse=False)
        if p.dim() >= 2
    }


def _matrix_scale(growth: list[float]) -> MupScale:
    out, into = growth[:2]
    if into == 1:
        return _vector_scale(out)
    readout = out == 1
    return MupScale(init=1 / sqrt(into) if readout else 1.0, sgd=out / into, adam=1 / into)


def _vector_scale(out: float) -> MupScale:
    return MupScale(init=1.0, sgd=out, adam=1.0)
