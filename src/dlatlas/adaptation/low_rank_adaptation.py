"""The interface of all adapters, which train few numbers in place of a weight, and the plain low-rank one, LoRA."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dlatlas.ops import validate
from dlatlas.typed import typed


class Adapter(nn.Module):
    r"""What is trained in place of a weight: a parametrisation of the weight by few numbers and a frozen tensor.

    An adapter is built from the weight that it adapts. `adapt` registers it with ``torch.nn.utils.parametrize``, so
    that ``layer.weight`` *is* the adapted weight wherever the layer reads it, and `merge` stores that very tensor.
    """

    def forward(self, frozen: Tensor) -> Tensor:
        """Give the adapted weight."""
        raise NotImplementedError

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Give the frozen tensor for which the adapter, as it is now, gives this weight."""
        raise NotImplementedError

    def penalty(self) -> Float[Tensor, ""]:
        """Give what the method adds to the loss for this weight, before its factor: nothing, unless it says so."""
        return torch.zeros((), device=next(self.parameters()).device)


class AdditiveAdapter(Adapter):
    r"""An adapter of the form :math:`W = W_{\text{frozen}} + \Delta(\theta)`; a method has to say what `delta` is."""

    def delta(self) -> Tensor:
        r"""Give :math:`\Delta(\theta)`, in the shape of the weight."""
        raise NotImplementedError

    def forward(self, frozen: Tensor) -> Tensor:
        return frozen + self.delta()

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight - self.delta().detach()


def adapt(
    model: nn.Module,
    adapter: Callable[[Tensor], Adapter],
    layers: Sequence[str],
    *,
    also_train: Sequence[str] = (),
) -> nn.Module:
    """Copy a model, freeze it, and put an adapter on the weight of some of its layers.

    Works on modules, so there is nothing to map with ``torch.vmap``; the adapted model can be mapped.

    Parameters
    ----------
    model
        Any module; it stays as it is.
    adapter
        Builds the adapter of a weight, for example ``functools.partial(PiSSA, r=4)``.
    layers
        Names of linear or convolutional layers, as in ``model.named_modules()``.
    also_train
        Names of modules or parameters that are trained as they are, such as ``"head"``.

    Returns
    -------
    Module
        The adapted copy, in which adapters and ``also_train`` require gradients and nothing else does.

    Raises
    ------
    ValueError
        When a layer has no weight of its own, or a name in ``also_train`` names no parameter.

    References
    ----------
    pissa
    """
    adapted = copy.deepcopy(model).requires_grad_(False)
    _unfreeze(adapted, also_train)
    for name in layers:
        layer = adapted.get_submodule(name)
        if "weight" not in layer._parameters:
            raise ValueError(f"layers must have a weight of their own, got {name!r}, a {type(layer).__name__}")
        parametrize.register_parametrization(layer, "weight", adapter(layer.weight.detach()))
    return adapted


def merge(model: nn.Module) -> nn.Module:
    """Copy an adapted model without its adapters: plain layers that hold the adapted weights, bit for bit.

    Works on modules, so there is nothing to map with ``torch.vmap``.

    Parameters
    ----------
    model
        A module from `adapt`; it stays as it is.

    Returns
    -------
    Module
        The merged copy: the same layers as before `adapt`, the same outputs as now.

    References
    ----------
    pissa
    """
    merged = copy.deepcopy(model)
    for layer in list(merged.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            _store_weight(layer)
    return merged


def adapters(model: nn.Module) -> Iterator[Adapter]:
    """Give the adapters of a model, in the order of its layers.

    Works on modules, so there is nothing to map with ``torch.vmap``.

    Parameters
    ----------
    model
        A module from `adapt`, or one that contains such modules.

    Returns
    -------
    Iterator
        The adapters themselves, not copies; none for a model without.

    References
    ----------
    pissa
    """
    return (module for module in model.modules() if isinstance(module, Adapter))


def trainable_parameters(model: nn.Module) -> int:
    """Count the numbers that training moves: entries of the parameters that require a gradient.

    Works on modules, so there is nothing to map with ``torch.vmap``.

    Parameters
    ----------
    model
        Any module, an adapter included.

    Returns
    -------
    int
        The number of entries, 0 or more.

    References
    ----------
    pissa
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class LoRA(AdditiveAdapter):
    r"""Low-rank adaptation: a product of two thin matrices that starts at zero.

    .. math:: W = W_0 + \frac{\alpha}{r} B A, \qquad A_{ij} \sim U(-1/\sqrt n, 1/\sqrt n), \quad B = 0

    Parameters
    ----------
    weight
        :math:`W_0`: a matrix (m, n), or a kernel (out, in, h, w), which is read as the matrix (out h, in w).
    r
        Rank, from 1 to min(m, n).
    alpha
        :math:`\alpha`; r when not given, for a factor of 1.

    Raises
    ------
    ValueError
        When r is out of range or alpha is not positive.

    References
    ----------
    pissa
    """

    def __init__(self, weight: Tensor, r: int, *, alpha: float | None = None):
        super().__init__()
        matrix = as_matrix(weight)
        validate.in_range("r", r, 1, min(matrix.shape))
        validate.positive("alpha", r if alpha is None else alpha)
        self.shape, self.scale = weight.shape, 1.0 if alpha is None else alpha / r
        A, B = self._initial(matrix, r)
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)

    def _initial(self, matrix: Tensor, r: int) -> tuple[Tensor, Tensor]:
        A = nn.init.kaiming_uniform_(matrix.new_empty(r, matrix.shape[1]), a=math.sqrt(5))
        return A, matrix.new_zeros(matrix.shape[0], r)

    def delta(self) -> Tensor:
        return as_weight(self.scale * self.B @ self.A, self.shape)


@typed
def as_matrix(weight: Float[Tensor, "..."]) -> Float[Tensor, "m n"]:
    """Read a weight as a matrix: a linear layer's as it is, a kernel (out, in, h, w) as (out h, in w).

    Parameters
    ----------
    weight
        (m, n), or (out, in, h, w).

    Returns
    -------
    Tensor
        (m, n) or (out h, in w), a view where possible.

    Raises
    ------
    ValueError
        When the weight has another number of axes.

    References
    ----------
    flora-tucker
    """
    if weight.dim() == 2:
        return weight
    if weight.dim() != 4:
        raise ValueError(f"weight must have 2 axes or 4, got shape {tuple(weight.shape)}")
    return weight.transpose(1, 2).flatten(0, 1).flatten(1, 2)


@typed
def as_weight(matrix: Float[Tensor, "m n"], shape: Sequence[int]) -> Float[Tensor, "..."]:
    """Undo `as_matrix`.

    Parameters
    ----------
    matrix
        (m, n), or (out h, in w).
    shape
        Shape of the weight that it came from, of length 2 or 4.

    Returns
    -------
    Tensor
        The weight in that shape.

    Raises
    ------
    ValueError
        When the shape has another number of axes, or another size than the matrix.

    References
    ----------
    flora-tucker
    """
    if len(shape) not in (2, 4) or math.prod(shape) != matrix.numel():
        raise ValueError(f"shape must have 2 axes or 4 and {matrix.numel()} entries, got {tuple(shape)}")
    if len(shape) == 2:
        return matrix
    out, inputs, height, width = shape
    return matrix.unflatten(1, (inputs, width)).unflatten(0, (out, height)).transpose(1, 2)


def _unfreeze(model: nn.Module, names: Sequence[str]) -> None:
    for wanted in names:
        chosen = [p for name, p in model.named_parameters() if name == wanted or name.startswith(f"{wanted}.")]
        if not chosen:
            raise ValueError(f"also_train must name modules or parameters of the model, got {wanted!r}")
        for parameter in chosen:
            parameter.requires_grad_(True)


def _store_weight(layer: nn.Module) -> None:
    """Make a parametrised layer plain again, with the weight that it has now."""
    # parametrize.remove_parametrizations edits the class of the layer, which copies of a layer share.
    weight = layer.weight.detach()
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    layer.weight = nn.Parameter(weight, requires_grad=False)
