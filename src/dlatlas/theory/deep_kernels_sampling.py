"""Sampling the posterior of a deep linear Gaussian process of finite width."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

_TARGET_ACCEPTANCE = 0.8
_LEAPFROG_STEPS = 10
_FIRST_STEP = 0.05


@typed
def linear_gp_grams(
    G0: Float[Tensor, "chains P P"],
    Y: Float[Tensor, "chains P outputs"],
    *,
    width: int,
    depth: int,
    noise: float,
    burn_in: int,
    samples: int,
    generator: torch.Generator,
) -> tuple[list[Float[Tensor, "chains P P"]], Float[Tensor, " chains"]]:
    r"""Posterior mean of the Gram matrices of a deep linear Gaussian process, by Hamiltonian Monte Carlo.

    .. math:: F_1 = G_0^{1/2} W_1, \qquad F_\ell = F_{\ell-1} W_\ell / \sqrt N, \qquad
        G_\ell = F_\ell F_\ell^\top / N, \qquad W_\ell \sim \mathcal N(0, 1)

    with the energy
    :math:`\frac12 \sum_\ell \lVert W_\ell \rVert^2 - N \sum_c \log \mathcal N(y_c; 0, G_L + \sigma^2 I)`: each output
    comes in :math:`N` copies. Every chain adapts its step during the burn-in and keeps it afterwards. Draws and
    decisions differ by chain, so it takes a leading axis in place of ``torch.func.vmap``.

    Parameters
    ----------
    G0
        Gram matrix of the inputs, one a chain.
    Y
        Outputs.
    width
        :math:`N`.
    depth
        Hidden layers :math:`L`.
    noise
        Variance :math:`\sigma^2`.
    burn_in
        Trajectories before the mean starts.
    samples
        Trajectories in the mean.
    generator
        Source of the chains, on the CPU.

    Returns
    -------
    tuple
        The posterior means of :math:`G_1, \dots, G_L`, and how many of the sampled trajectories were accepted.

    Raises
    ------
    ValueError
        For counts below 1, or a noise that is not positive.

    References
    ----------
    deep-kernel-machine
    """
    for name, count in (("width", width), ("depth", depth), ("burn_in", burn_in), ("samples", samples)):
        validate.at_least(name, count, 1)
    validate.positive("noise", noise)
    posterior = _Posterior(G0.detach(), Y.detach(), width, noise)

    def draw(shape: torch.Size | tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(G0)

    chains, P = G0.shape[:2]
    weights = [draw((chains, P if layer == 0 else width, width)) for layer in range(depth)]
    state = posterior.evaluate(weights)
    step = torch.full((chains, 1, 1), _FIRST_STEP, dtype=G0.dtype, device=G0.device)
    total = [torch.zeros_like(G0) for _ in range(depth)]
    accepted = torch.zeros(chains, dtype=G0.dtype, device=G0.device)
    for trajectory in range(burn_in + samples):
        momenta = [draw(W.shape) for W in weights]
        proposal, new_state, gain = posterior.leapfrog(weights, state, momenta, step)
        chance = torch.rand(chains, generator=generator, dtype=torch.float64).to(G0)
        accept = torch.log(chance) < gain
        weights = _where(accept, proposal, weights)
        state = tuple(_where(accept, new, old) for new, old in zip(new_state, state, strict=True))
        if trajectory < burn_in:
            step = step * torch.exp(0.1 * (accept.to(step) - _TARGET_ACCEPTANCE))[:, None, None]
        else:
            total = [mean + G / samples for mean, G in zip(total, state[2], strict=True)]
            accepted = accepted + accept.to(accepted) / samples
    return total, accepted


State = tuple[list[Tensor], list[Tensor], list[Tensor]]  # the energy (as a list of one), its gradients, Gram matrices


class _Posterior:
    """Energy of the weights of all chains, and Hamiltonian trajectories on it."""

    def __init__(self, G0: Tensor, Y: Tensor, width: int, noise: float) -> None:
        self.root, self.Y, self.width = torch.linalg.cholesky(G0), Y, width
        self.noise = noise * torch.eye(G0.shape[-1], dtype=G0.dtype, device=G0.device)

    def evaluate(self, weights: list[Tensor]) -> State:
        leaves = [W.detach().requires_grad_() for W in weights]
        with torch.enable_grad():
            energy, grams = self._energy(leaves)
            gradients = torch.autograd.grad(energy.sum(), leaves)
        return [energy.detach()], list(gradients), [G.detach() for G in grams]

    def leapfrog(
        self, weights: list[Tensor], state: State, momenta: list[Tensor], step: Tensor
    ) -> tuple[list[Tensor], State, Tensor]:
        """Proposed weights, their state, and the logarithm of the acceptance probability."""
        before = state[0][0] + _half_squares(momenta)
        for _ in range(_LEAPFROG_STEPS):
            momenta = [p - step / 2 * g for p, g in zip(momenta, state[1], strict=True)]
            weights = [W + step * p for W, p in zip(weights, momenta, strict=True)]
            state = self.evaluate(weights)
            momenta = [p - step / 2 * g for p, g in zip(momenta, state[1], strict=True)]
        return weights, state, before - state[0][0] - _half_squares(momenta)

    def _energy(self, weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        F, grams = self.root @ weights[0], []
        grams.append(F @ F.mT / self.width)
        for W in weights[1:]:
            F = F @ W / self.width**0.5
            grams.append(F @ F.mT / self.width)
        root = torch.linalg.cholesky(grams[-1] + self.noise)
        fit = torch.linalg.solve_triangular(root, self.Y, upper=False).square().sum((-2, -1)) / 2
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.width * (fit + self.Y.shape[-1] * log_det) + _half_squares(weights), grams


def _half_squares(tensors: list[Tensor]) -> Tensor:
    return sum(t.square().sum((-2, -1)) for t in tensors) / 2


def _where(accept: Tensor, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    return [torch.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True)]
