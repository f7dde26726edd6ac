"""Kernel ridge regression, and its learning curve as predicted from the spectrum of the kernel."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

_BISECTIONS = 45


@typed
def ridge_predict(
    K_train: Float[Tensor, "n n"], K_test: Float[Tensor, "m n"], y: Float[Tensor, "n *outputs"], *, ridge: float
) -> Float[Tensor, "m *outputs"]:
    r"""Predict by kernel ridge regression.

    .. math:: f(x) = \mathcal K(x, X)\,\bigl(\mathcal K(X, X) + \lambda I\bigr)^{-1} y

    Parameters
    ----------
    K_train
        :math:`\mathcal K(X, X)`, symmetric and positive semi-definite.
    K_test
        :math:`\mathcal K(x, X)`, one row a test point.
    y
        Targets, (n,) or (n, c).
    ridge
        :math:`\lambda`, at least 0; a small one stands for interpolation.

    Returns
    -------
    Tensor
        One prediction a test point, (m,) or (m, c).

    Raises
    ------
    ValueError
        For a negative ridge, or a regularised kernel matrix that is not positive definite.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.at_least("ridge", ridge, 0.0)
    n = K_train.shape[0]
    identity = torch.eye(n, dtype=K_train.dtype, device=K_train.device)
    factor, info = torch.linalg.cholesky_ex(K_train + ridge * identity)
    validate.in_range("first minor of K_train + ridge that is not positive (0: none)", info, 0, 0)
    return (K_test @ torch.cholesky_solve(y.reshape(n, -1), factor)).reshape(-1, *y.shape[1:])


@typed
def regression_curve(
    K_train: Float[Tensor, "n n"],
    K_test: Float[Tensor, "m n"],
    y: Float[Tensor, " n"],
    y_test: Float[Tensor, " m"],
    *,
    sizes: Sequence[int],
    ridge: float,
) -> Float[Tensor, " sizes"]:
    r"""Mean squared test error of kernel ridge regression on the first :math:`n` samples, for several :math:`n`.

    .. math:: \varepsilon(n) = \frac1m \sum_{j=1}^m \bigl(f_n(x_j) - y_j\bigr)^2

    Parameters
    ----------
    K_train, K_test, y, ridge
        As for `ridge_predict`.
    y_test
        Targets at the test points.
    sizes
        Numbers of training samples, each at most n.

    Returns
    -------
    Tensor
        One error a size.

    Raises
    ------
    ValueError
        For a size below 1 or above n, and as `ridge_predict`.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    for size in sizes:
        validate.in_range("size", size, 1, K_train.shape[0])
    predictions = [ridge_predict(K_train[:n, :n], K_test[:, :n], y[:n], ridge=ridge) for n in sizes]
    return torch.stack([(prediction - y_test).square().mean() for prediction in predictions])


@typed
def effective_ridge(
    eigenvalues: Float[Tensor, " modes"], multiplicities: Float[Tensor, " modes"], *, n: int, ridge: float
) -> Float[Tensor, ""]:
    r"""Eigenvalue below which a kernel regression on :math:`n` random samples does not learn.

    .. math:: \sum_i m_i \frac{\lambda_i}{\lambda_i + \kappa} + \frac{\delta}{\kappa} = n

    Found by bisection in :math:`\log\kappa`; the gradient does not flow through it.

    Parameters
    ----------
    eigenvalues
        :math:`\lambda_i` of the kernel as an operator on the input distribution, at least 0.
    multiplicities
        :math:`m_i`, how many eigenfunctions share each eigenvalue.
    n
        Number of samples.
    ridge
        :math:`\delta`: the ridge, plus the trace of modes that the list leaves out.

    Returns
    -------
    Tensor
        :math:`\kappa`, a scalar.

    Raises
    ------
    ValueError
        For n below 1, negative eigenvalues or a negative ridge.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.at_least("n", n, 1)
    validate.at_least("ridge", ridge, 0.0)
    validate.in_range("eigenvalues", eigenvalues, 0.0, math.inf)
    # kappa <= (trace + ridge)/n because l/(l + kappa) <= l/kappa; sixteen decades below is beyond rounding.
    high = torch.log(((multiplicities * eigenvalues).sum() + ridge) / n).detach()
    low = high - 16 * math.log(10.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        kappa = middle.exp()
        learnt = (multiplicities * (eigenvalues / (eigenvalues + kappa))).sum() + ridge / kappa
        low, high = torch.where(learnt > n, middle, low), torch.where(learnt > n, high, middle)
    return ((low + high) / 2).exp().detach()


@typed
def predicted_error(
    eigenvalues: Float[Tensor, " modes"],
    multiplicities: Float[Tensor, " modes"],
    power: Float[Tensor, " modes"],
    *,
    n: int,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> Float[Tensor, ""]:
    r"""Mean test error of kernel ridge regression, predicted from the spectrum.

    .. math:: \varepsilon(n) = \frac{1}{1 - \gamma}
        \Bigl[\sum_i w_i \Bigl(\frac{\kappa}{\lambda_i + \kappa}\Bigr)^2 + \sigma^2\Bigr], \qquad
        \gamma = \frac1n \sum_i m_i \Bigl(\frac{\lambda_i}{\lambda_i + \kappa}\Bigr)^2

    with :math:`\kappa` from `effective_ridge`. It takes the eigenfunctions at the samples for Gaussian variables.

    Parameters
    ----------
    eigenvalues, multiplicities, n, ridge
        As for `effective_ridge`.
    power
        :math:`w_i`, squared coefficients of the target, summed over the eigenfunctions of each eigenvalue.
    noise
        Variance :math:`\sigma^2` of the noise on the labels.

    Returns
    -------
    Tensor
        The error, a scalar, for test labels with the same noise.

    Raises
    ------
    ValueError
        As `effective_ridge`, and for a negative noise.

    References
    ----------
    wide-cnn-kernel-spectra
    """
    validate.at_least("noise", noise, 0.0)
    kappa = effective_ridge(eigenvalues, multiplicities, n=n, ridge=ridge)
    learnt = eigenvalues / (eigenvalues + kappa)
    gamma = (multiplicities * learnt.square()).sum() / n
    return ((power * (1 - learnt).square()).sum() + noise) / (1 - gamma)


@typed
def ridge_fit(
    phi: Float[Tensor, "n k"], y: Float[Tensor, "n *outputs"], *, ridge: float
) -> Float[Tensor, "k *outputs"]:
    r"""Coefficients of ridge regression on explicit features.

    .. math:: c = (\Phi^\top \Phi + \lambda I)^{-1} \Phi^\top y = \Phi^\top (\Phi \Phi^\top + \lambda I)^{-1} y

    The form with the smaller matrix is used.

    Parameters
    ----------
    phi
        Features :math:`\Phi`, one row a sample.
    y
        Targets, (n,) or (n, c).
    ridge
        :math:`\lambda`, at least 0.

    Returns
    -------
    Tensor
        (k,) or (k, c).

    Raises
    ------
    ValueError
        For a negative ridge, or a regularised matrix that is not positive definite.

    References
    ----------
    random-feature-attention-theory
    """
    n, k = phi.shape
    gram = phi @ phi.mT if n <= k else phi.mT @ phi
    if n <= k:
        return ridge_predict(gram, phi.mT, y, ridge=ridge)
    identity = torch.eye(k, dtype=phi.dtype, device=phi.device)
    flat = phi.mT @ y.reshape(n, -1)
    return ridge_predict(gram, identity, flat, ridge=ridge).reshape(k, *y.shape[1:])


@typed
def ridge_path(
    phi: Float[Tensor, "n k"], y: Float[Tensor, "n *outputs"], ridges: Float[Tensor, " r"]
) -> Float[Tensor, "r k *outputs"]:
    r"""Coefficients of `ridge_fit` for many ridges, by one eigendecomposition.

    .. math:: c_\lambda = V (\Lambda + \lambda I)^{-1} V^\top \Phi^\top y, \qquad \Phi^\top \Phi = V \Lambda V^\top

    Parameters
    ----------
    phi, y
        As for `ridge_fit`.
    ridges
        Values of :math:`\lambda`, all greater than 0.

    Returns
    -------
    Tensor
        One row of coefficients a ridge.

    Raises
    ------
    ValueError
        For a ridge that is not positive.

    References
    ----------
    more-is-better-rf
    """
    validate.in_range("ridges", ridges, torch.finfo(ridges.dtype).tiny, math.inf)
    n, k = phi.shape
    flat = y.reshape(n, -1)
    if n <= k:
        eigenvalues, modes = torch.linalg.eigh(phi @ phi.mT)
        left, right = phi.mT @ modes, modes.mT @ flat
    else:
        eigenvalues, modes = torch.linalg.eigh(phi.mT @ phi)
        left, right = modes, modes.mT @ (phi.mT @ flat)
    shrunk = right / (eigenvalues.clamp(min=0) + ridges[:, None])[..., None]
    return (left @ shrunk).reshape(-1, k, *y.shape[1:])


@typed
def truncated_lstsq(
    phi: Float[Tensor, "n k"], y: Float[Tensor, "n *outputs"], *, rcond: float = 1e-8
) -> Float[Tensor, "k *outputs"]:
    r"""Shortest least-squares coefficients, without the directions of small singular values.

    .. math:: c = \sum_{\sigma_i > \rho\, \sigma_1} v_i\, \frac{u_i^\top y}{\sigma_i}, \qquad \Phi = U \Sigma V^\top

    The truncation bounds the coefficients: :math:`\lVert c \rVert \le \lVert y \rVert / (\rho\, \sigma_1)`.

    Parameters
    ----------
    phi
        Features :math:`\Phi`, one row a sample.
    y
        Targets, (n,) or (n, c).
    rcond
        :math:`\rho`, between 0 and 1.

    Returns
    -------
    Tensor
        (k,) or (k, c).

    Raises
    ------
    ValueError
        For ``rcond`` outside [0, 1].

    References
    ----------
    bandlimited-random-weights
    """
    validate.in_range("rcond", rcond, 0.0, 1.0)
    U, s, Vh = torch.linalg.svd(phi, full_matrices=False)
    kept = s > rcond * s[..., :1]
    inverse = torch.where(kept, 1 / torch.where(kept, s, 1.0), 0.0)
    return (Vh.mT @ (inverse[:, None] * (U.mT @ y.reshape(phi.shape[0], -1)))).reshape(-1, *y.shape[1:])


@typed
def weighted_lstsq(
    phi: Float[Tensor, "*batch n m"], y: Float[Tensor, "*batch n"], w: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch m"]:
    r"""Coefficients of weighted least squares.

    .. math:: c = \arg\min_c \sum_i w_i \bigl(y_i - \varphi(x_i)^\top c\bigr)^2

    By a QR decomposition of :math:`\sqrt{w_i}\,\varphi(x_i)`.

    Parameters
    ----------
    phi, y, w
        Features at the points, at least as many points as features; values there; weights, at least 0.

    Returns
    -------
    Tensor
        ``(*batch, m)``.

    Raises
    ------
    ValueError
        For fewer points than features, or a negative weight.

    References
    ----------
    dpp-weighted-least-squares
    """
    validate.at_least("number of points", phi.shape[-2], phi.shape[-1])
    validate.in_range("w", w, 0.0, math.inf)
    root = w.sqrt()
    Q, R = torch.linalg.qr(root[..., None] * phi)
    right = Q.mT @ (root * y)[..., None]
    return torch.linalg.solve_triangular(R, right, upper=True)[..., 0]
