"""Kernels of infinitely wide deep convolutional networks: closed form, spectrum, rates of learning."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernels import arccos_k0, arccos_k1
from dlatlas.typed import typed

KINDS = ("rfk", "ntk")


@typed
def kernel_of_cosines(
    cosines: Float[Tensor, "*shape patches"], *, filters: Sequence[int], kind: str
) -> Float[Tensor, "*shape"]:
    r"""Hierarchical kernel, as a function of the cosines between corresponding patches.

    .. math::
        K^1_i &= k_1(t_i), & K^{\ell+1}_j &= k_1\Bigl(\tfrac{1}{s} \sum_{i \in j} K^\ell_i\Bigr) \\
        \Theta^1_i &= k_1(t_i) + t_i\, k_0(t_i), & \Theta^{\ell+1}_j &= K^{\ell+1}_j
        + \Bigl(\tfrac{1}{s} \sum_{i \in j} \Theta^\ell_i\Bigr)\, k_0\Bigl(\tfrac{1}{s} \sum_{i \in j} K^\ell_i\Bigr)

    with :math:`s = s_{\ell+1}`; the output is the mean over the nodes that remain.

    Parameters
    ----------
    cosines
        :math:`t_i = \langle x_i, y_i\rangle`, patches in the last axis.
    filters
        :math:`s_2, ..., s_L`, children of a node in each layer after the first; empty for one layer.
    kind
        ``"rfk"`` for the random feature kernel :math:`K^L` (the covariance of the random network), ``"ntk"`` for the
        tangent kernel :math:`\Theta^L`.

    Returns
    -------
    Tensor
        The kernel; on the diagonal 1 for ``"rfk"``, and :math:`L + 1` for ``"ntk"``.

    Raises
    ------
    ValueError
        For an unknown kind, or a number of patches that the filters do not divide.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.one_of("kind", kind, KINDS)
    if any(s < 1 for s in filters) or cosines.shape[-1] % math.prod(filters):
        raise ValueError(f"filters must be positive and divide {cosines.shape[-1]} patches, got {tuple(filters)}")
    covariance = arccos_k1(cosines)
    tangent = covariance + cosines * arccos_k0(cosines)
    for s in filters:
        covariance, tangent = (kernel.unflatten(-1, (-1, s)).mean(-1) for kernel in (covariance, tangent))
        slope = arccos_k0(covariance)
        covariance = arccos_k1(covariance)
        tangent = covariance + tangent * slope
    return {"rfk": covariance, "ntk": tangent}[kind].mean(-1)


@typed
def hierarchical_kernel(
    x: Float[Tensor, "n patches s1"], y: Float[Tensor, "m patches s1"], *, filters: Sequence[int], kind: str = "ntk"
) -> Float[Tensor, "n m"]:
    r"""Kernel of an infinitely wide deep convolutional network with non-overlapping patches.

    .. math:: \mathcal K(x, y) = \mathcal K\bigl(\langle x_1, y_1\rangle, \dots, \langle x_p, y_p\rangle\bigr)

    by the recursion of `kernel_of_cosines`. One patch and ``filters`` of ones give the fully connected network.

    Parameters
    ----------
    x, y
        Inputs: patches of :math:`s_1` pixels, each of norm 1.
    filters, kind
        As for `kernel_of_cosines`.

    Returns
    -------
    Tensor
        The kernel matrix, (n, m).

    Raises
    ------
    ValueError
        For a patch that is not of unit norm, and as `kernel_of_cosines`.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    rounding = math.sqrt(torch.finfo(x.dtype).eps)
    for name, patches in (("x", x), ("y", y)):
        validate.in_range(f"norm of the patches of {name}", patches.norm(dim=-1), 1 - rounding, 1 + rounding)
    return kernel_of_cosines(torch.einsum("nps,mps->nmp", x, y), filters=filters, kind=kind)


@typed
def torus_spectrum(values: Float[Tensor, "*half"]) -> tuple[Float[Tensor, "*half"], Float[Tensor, "*half"]]:
    r"""Eigenvalues of a kernel on a torus that is even and translation invariant in every angle.

    .. math:: \Lambda_{k_1 \dots k_p} = \frac{1}{N^p} \sum_{j_1, \dots, j_p = 0}^{N-1} \mathcal K(j)\,
        \prod_{a=1}^p \cos\frac{2\pi k_a j_a}{N}

    Being even, the kernel is needed on the angles :math:`0, \dots, \pi` alone, and the discrete Fourier transform is a
    cosine transform along each axis.

    Parameters
    ----------
    values
        :math:`\mathcal K` at the angles :math:`2\pi j/N`, :math:`j = 0, \dots, N/2`, one axis an angle.

    Returns
    -------
    tuple of Tensor
        The eigenvalues by frequency, :math:`k_a = 0, \dots, N/2`, for angles that are uniform on the torus, and how
        many frequency vectors each stands for (the signs of its entries).

    Raises
    ------
    ValueError
        For an axis with fewer than two angles.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.at_least("number of angles along each axis", min(values.shape, default=0), 2)
    multiplicities = torch.ones_like(values)
    for axis, half in enumerate(values.shape):
        weights = torch.full((half,), 2.0, dtype=values.dtype, device=values.device)
        weights[0] = weights[-1] = 1.0
        k = torch.arange(half, dtype=values.dtype, device=values.device)
        transform = torch.cos(math.pi * k[:, None] * k / (half - 1)) * weights / (2 * (half - 1))
        values = torch.tensordot(values.movedim(axis, -1), transform.mT, dims=1).movedim(-1, axis)
        multiplicities = multiplicities * weights.reshape(-1, *[1] * (values.ndim - axis - 1))
    return values, multiplicities


@typed
def effective_dimension(patch_size: int, filters: Sequence[int]) -> int:
    r"""Dimension of the inputs that one node of a layer sees.

    .. math:: d_{\text{eff}}(\ell) = (s_1 - 1)\, s_2 \cdots s_\ell

    Parameters
    ----------
    patch_size
        :math:`s_1`, at least 2: a patch of norm 1 has one coordinate less than pixels.
    filters
        :math:`s_2, \dots, s_\ell`.

    Returns
    -------
    int
        :math:`d_{\text{eff}}(\ell)`.

    Raises
    ------
    ValueError
        For patches with less than two pixels, or filters below 1.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.at_least("patch_size", patch_size, 2)
    validate.at_least("smallest filter", min(filters, default=1), 1)
    return (patch_size - 1) * math.prod(filters)


@typed
def learning_exponent(*, nu_target: float, nu: float, local_dim: int, input_dim: int) -> float:
    r"""Exponent :math:`\beta` of the test error :math:`n^{-\beta}` of ridgeless regression on a local target.

    .. math:: \beta = \min\bigl(2\nu_T,\; 4\nu + 2 d\bigr)\; \frac{1 + 2\nu/D}{2\nu + d}

    The student resolves :math:`n` eigenfunctions. Among all of them the eigenvalue falls like
    :math:`n^{-1-2\nu/D}`, while in the sector of the target it falls like :math:`k^{-2\nu-d}`. For a student that sees
    nothing but the local inputs, :math:`D = d`, the second factor is :math:`1/d`.

    Parameters
    ----------
    nu_target
        :math:`\nu_T`, exponent of the covariance of the target: 1/2 for a tangent kernel, 3/2 for a random feature
        kernel.
    nu
        :math:`\nu`, the same for the student.
    local_dim
        :math:`d = d_{\text{eff}}(\ell)`, dimension of the inputs that the target depends on.
    input_dim
        :math:`D = d_{\text{eff}}(L)`, dimension of the inputs that the student sees.

    Returns
    -------
    float
        :math:`\beta`.

    Raises
    ------
    ValueError
        For exponents that are not positive, or ``local_dim`` outside 1, ..., ``input_dim``.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.positive("nu_target", nu_target)
    validate.positive("nu", nu)
    validate.in_range("local_dim", local_dim, 1, input_dim)
    return min(2 * nu_target, 4 * nu + 2 * local_dim) * (1 + 2 * nu / input_dim) / (2 * nu + local_dim)
