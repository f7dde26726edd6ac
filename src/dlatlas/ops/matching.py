"""Matching the hidden units of two networks: permutations that leave a network's function as it is.

A permutation is an integer tensor p (m,): unit i of the permuted network is unit p[i] of the old one. A specification
says which permutation acts on which axis of which parameter; an axis that no permutation moves has None.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

Spec = Mapping[str, tuple[str | None, ...]]


@typed
def mlp_spec(layers: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    r"""Specification for a chain of linear layers with biases: hidden units can be permuted, inputs and outputs not.

    .. math:: W_l \to P_l W_l P_{l-1}^\top, \qquad b_l \to P_l b_l, \qquad P_0 = P_L = I

    Parameters
    ----------
    layers
        Names of the layers in order; their parameters are called ``"<name>.weight"`` and ``"<name>.bias"``.

    Returns
    -------
    dict
        The permutation of the outputs of a layer has the layer's name.

    Raises
    ------
    ValueError
        For fewer than two layers, or a name that occurs twice.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    validate.at_least("number of layers", len(layers), 2)
    if len(set(layers)) < len(layers):
        raise ValueError(f"layers must have different names, got {list(layers)}")
    hidden = [*layers[:-1], None]
    spec: dict[str, tuple[str | None, ...]] = {}
    for layer, before, after in zip(layers, [None, *layers[:-1]], hidden, strict=True):
        spec[f"{layer}.weight"], spec[f"{layer}.bias"] = (after, before), (after,)
    return spec


@typed
def best_assignment(gain: Float[Tensor, "m m"]) -> Int[Tensor, " m"]:
    r"""The permutation with the largest total gain.

    .. math:: p = \arg\max_p \sum_i G_{i\,p(i)}

    Parameters
    ----------
    gain
        :math:`G_{ij}`, what it is worth to put unit j of one network in the place of unit i of the other.

    Returns
    -------
    Tensor
        p (m,), on the device of the gain.

    Raises
    ------
    ValueError
        When a gain is not finite.

    Notes
    -----
    Solved by SciPy on the CPU, so it works neither under ``vmap`` nor under ``grad``.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    validate.finite("gain", gain)
    _, columns = linear_sum_assignment(gain.detach().cpu().numpy(), maximize=True)
    return torch.as_tensor(columns, device=gain.device)


@typed
def apply_perms(params: Mapping[str, Tensor], perms: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    r"""Permute the hidden units of a network; its outputs stay the same.

    .. math:: W_l \to P_l W_l P_{l-1}^\top, \qquad b_l \to P_l b_l

    Parameters
    ----------
    params
        Parameters by name. Those that the specification does not name stay as they are.
    perms
        Permutations (m,) by name.
    spec
        The permutation of every axis, see `mlp_spec`.

    Returns
    -------
    dict
        The permuted parameters.

    Raises
    ------
    ValueError
        When a parameter of the specification is missing, has another number of axes, or a permutation does not fit.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    _check(params, spec)
    permuted = dict(params)
    for name, axes in spec.items():
        for axis, key in enumerate(axes):
            if key is not None:
                permuted[name] = _permuted(permuted[name], perms[key], axis, key)
    return permuted


@typed
def matching_gain(
    params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor], perms: Mapping[str, Tensor], key: str, spec: Spec
) -> Float[Tensor, "m m"]:
    r"""What each assignment of units is worth in one layer, while all other permutations stay.

    .. math:: G_l = W_l^a P_{l-1} W_l^{b\top} + W_{l+1}^{a\top} P_{l+1} W_{l+1}^b + b_l^a b_l^{b\top}

    Parameters
    ----------
    params_a, params_b
        The two networks.
    perms
        The permutations of the second network so far.
    key
        The permutation to be improved.
    spec
        The permutation of every axis.

    Returns
    -------
    Tensor
        (m, m); the best permutation of layer l is its `best_assignment`.

    Raises
    ------
    ValueError
        When the permutation is not in the specification, or acts on two axes of one parameter, where the gain is not
        linear.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    _check(params_a, spec)
    _check(params_b, spec)
    touched = {name: axes for name, axes in spec.items() if key in axes}
    if not touched:
        raise ValueError(f"key must be a permutation of the specification, got {key!r}")
    total = None
    for name, axes in touched.items():
        if axes.count(key) > 1:
            raise ValueError(f"{key} must act on one axis of {name}, got axes {axes}")
        axis, b = axes.index(key), params_b[name]
        for other_axis, other in enumerate(axes):
            if other is not None and other != key:
                b = _permuted(b, perms[other], other_axis, other)
        rows_a, rows_b = (w.movedim(axis, 0).flatten(1) if w.dim() > 1 else w[:, None] for w in (params_a[name], b))
        gain = rows_a @ rows_b.mT
        total = gain if total is None else total + gain
    return total


@typed
def weight_matching(
    params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor], spec: Spec, *, seed: int = 0
) -> dict[str, Tensor]:
    r"""Permutations that bring the second network near the first, by coordinate steps over the layers.

    .. math:: \min_P \sum_l \lVert W_l^a - P_l W_l^b P_{l-1}^\top \rVert_F^2 + \lVert b_l^a - P_l b_l^b \rVert^2

    One layer at a time is a linear assignment (`matching_gain`), so the distance never grows. With one hidden layer the
    first step is the global optimum; with more the result is a local one.

    Parameters
    ----------
    params_a, params_b
        The two networks.
    spec
        The permutation of every axis, see `mlp_spec`.
    seed
        Of the order in which layers are visited.

    Returns
    -------
    dict
        Permutations by name, for `apply_perms` on the second network.

    Raises
    ------
    ValueError
        As `matching_gain`, or when the networks have different shapes.

    Notes
    -----
    Solved by SciPy on the CPU, so it works neither under ``vmap`` nor under ``grad``.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    params_a, params_b = ({name: p.double() for name, p in params.items()} for params in (params_a, params_b))
    sizes = _sizes(params_b, spec)
    if sizes != _sizes(params_a, spec):
        raise ValueError(f"params_a must have the layer sizes {sizes} of params_b, got {_sizes(params_a, spec)}")
    device = next(iter(params_b.values())).device
    perms = {key: torch.arange(m, device=device) for key, m in sizes.items()}
    generator, keys = torch.Generator().manual_seed(seed), list(sizes)
    changed = True
    while changed:
        changed = False
        for index in torch.randperm(len(keys), generator=generator).tolist():
            gain = matching_gain(params_a, params_b, perms, keys[index], spec)
            best = best_assignment(gain)
            rows = torch.arange(len(gain), device=device)
            better = (gain[rows, best] - gain[rows, perms[keys[index]]]).sum()
            # A tie, or a gain of the size of rounding errors, would let the search go round in circles.
            if better > 1e-12 * gain.abs().sum():
                perms[keys[index]], changed = best, True
    return perms


def _check(params: Mapping[str, Tensor], spec: Spec) -> None:
    for name, axes in spec.items():
        if name not in params:
            raise ValueError(f"params must have {name}, as the specification says; got {', '.join(params)}")
        if params[name].dim() != len(axes):
            raise ValueError(f"{name} must have {len(axes)} axes, got shape {tuple(params[name].shape)}")


def _sizes(params: Mapping[str, Tensor], spec: Spec) -> dict[str, int]:
    _check(params, spec)
    return {key: m for name, axes in spec.items() for key, m in zip(axes, params[name].shape, strict=True) if key}


def _permuted(tensor: Tensor, perm: Tensor, axis: int, key: str) -> Tensor:
    if len(perm) != tensor.shape[axis]:
        raise ValueError(f"permutation {key} must have {tensor.shape[axis]} entries, got {len(perm)}")
    return tensor.index_select(axis, perm)
