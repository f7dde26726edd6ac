"""Contextual bandits by online neural regression: the application of the chapter on the neural tangent kernel."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.models.parametrised_mlp import NTKMLP, Parameters
from dlatlas.ops import validate
from dlatlas.theory.neural_tangent_kernel import layer_factors
from dlatlas.theory.neural_tangent_kernel_rules import SMALLEST
from dlatlas.typed import typed


@typed
def perturbed_output(
    f: Callable[..., Tensor],
    theta: Float[Tensor, "*nets p"],
    theta0: Float[Tensor, "*nets p"],
    x: Tensor,
    eps: Float[Tensor, "*nets copies p"],
    *,
    c_p: float,
    m: int,
) -> Float[Tensor, "*nets copies n"]:
    r"""Network outputs with a random linear function of the displacement added, once for each of S copies.

    .. math:: \tilde f_s(\theta; x) = f(\theta; x)
        + \frac{c_p}{m^{1/4}} \sum_{j=1}^{p} (\theta - \theta_0)_j\, \epsilon_{s,j}

    Parameters
    ----------
    f
        ``f(theta, x)``, one output an example: (n,).
    theta, theta0
        Parameters now and at initialisation.
    x
        What ``f`` takes.
    eps
        Signs :math:`\epsilon_s \in \{-1, 1\}^p`, drawn once for each copy.
    c_p
        Size of the perturbation, at least 0.
    m
        Width of the network.

    Returns
    -------
    Tensor
        (S, n).

    Raises
    ------
    ValueError
        For a negative ``c_p`` or a width below 1.

    References
    ----------
    neural-square-fast-cb
    """
    validate.at_least("c_p", c_p, 0.0)
    validate.at_least("m", m, 1)
    return f(theta, x)[..., None, :] + _perturbation(theta, theta0, eps, c_p / m**0.25)


class OnlineRegressor:
    r"""Networks that learn the losses of arms one round at a time, several independent runs side by side.

    .. math:: \hat y = g\Bigl(\tfrac1S \sum_s \tilde f_s(\theta; x)\Bigr), \qquad
        \theta \leftarrow \mathrm{Proj}_{\lVert \theta - \theta_0 \rVert \le \rho}
        \Bigl(\theta - \eta\, \tfrac1S \sum_s \bigl(g(\tilde f_s(\theta; x)) - y\bigr)
        \nabla_\theta \tilde f_s(\theta; x)\Bigr)

    With the identity for the link :math:`g` this is a gradient step on the squared loss, with the logistic function one
    on the cross-entropy.

    Parameters
    ----------
    nets
        One network a run, of one architecture, with one output and no biases.
    link
        :math:`g`: ``torch.nn.Identity()`` (NeuSquareCB and the baselines) or ``torch.sigmoid`` (NeuFastCB).
    rate
        :math:`\eta`, one number or one a run, (R,).
    radius
        :math:`\rho`.
    c_p, copies
        Size of the perturbation, and how many copies S it has.
    generator
        Draws the signs of the perturbation.

    Raises
    ------
    ValueError
        For networks with biases, a ``rate`` or ``radius`` that is not positive, a negative ``c_p``, or no copies.

    References
    ----------
    neural-square-fast-cb
    """

    def __init__(
        self,
        nets: Sequence[NTKMLP],
        link: Callable[[Tensor], Tensor],
        *,
        rate: float | Tensor,
        radius: float,
        c_p: float,
        copies: int,
        generator: torch.Generator,
    ):
        validate.in_range("rate", rate, SMALLEST, math.inf)
        validate.positive("radius", radius)
        validate.at_least("copies", copies, 1)
        validate.at_least("c_p", c_p, 0.0)
        if nets[0].biases is not None:
            raise ValueError(f"nets must have no biases, got beta={nets[0].beta}; a constant context does the same")
        self.net, self.link, self.radius = nets[0], link, radius
        self.shapes = {name: parameter.shape for name, parameter in self.net.named_parameters()}
        self.theta0 = torch.stack([nn.utils.parameters_to_vector(net.parameters()).detach() for net in nets])
        self.theta = self.theta0.clone()
        self.rate = torch.as_tensor(rate).to(self.theta).reshape(-1, 1)
        shape = (len(nets), copies, self.theta.shape[1])
        self.eps = (2 * torch.randint(2, shape, generator=generator, device=generator.device) - 1).to(self.theta)
        self.scale = c_p / self.net.widths[1] ** 0.25
        self.perturbation = _perturbation(self.theta, self.theta0, self.eps, self.scale)

    def predict(self, x: Float[Tensor, "runs arms d"]) -> Float[Tensor, "runs arms"]:
        """Predicted losses of all arms."""
        return self.link(self._output(x) + self.perturbation.mean(1))

    def update(self, x: Float[Tensor, "runs d"], y: Float[Tensor, " runs"]) -> None:
        """One projected gradient step on the observed losses ``y`` of the chosen arms ``x``."""
        x = x[:, None]
        residual = (self.link(self._output(x) + self.perturbation[..., 0]) - y[:, None])[:, None] / self.eps.shape[1]
        outer = [(delta.mT * entering).flatten(1) for entering, delta in self.factors(x)]
        gradient = residual.sum(-1) * torch.cat(outer, dim=1) + self.scale * (residual @ self.eps)[:, 0]
        displacement = self.theta - self.rate * gradient - self.theta0
        norm = displacement.norm(dim=1, keepdim=True)
        self.theta = self.theta0 + displacement * (self.radius / norm.clamp_min(self.radius))
        self.perturbation = _perturbation(self.theta, self.theta0, self.eps, self.scale)

    def factors(self, x: Float[Tensor, "runs arms d"]) -> list[tuple[Tensor, Tensor]]:
        """The two factors of every layer's gradient at every arm: see `layer_factors`."""
        return layer_factors(self.net, self._by_name(self.theta), x)

    def _output(self, x: Tensor) -> Tensor:
        return self.net.preactivations(self._by_name(self.theta), x)[-1].squeeze(-1)

    def _by_name(self, theta: Tensor) -> Parameters:
        pieces = theta.split([shape.numel() for shape in self.shapes.values()], dim=-1)
        return {
            name: piece.unflatten(-1, shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


class NeuralUCB:
    r"""Optimism from the tangent kernel, with a diagonal covariance.

    .. math:: b = \arg\min_a\; \hat y_a - \nu \sqrt{\textstyle\sum_j g_{a,j}^2 / Z_j}, \qquad
        Z \leftarrow Z + g_b^2, \qquad g_a = \nabla_\theta f(\theta; x_a)

    Parameters
    ----------
    strength
        :math:`\nu \ge 0`, one number or one a run, (R,).
    ridge
        Initial value of :math:`Z`, greater than 0.

    Raises
    ------
    ValueError
        For a negative ``strength``, or a ``ridge`` that is not positive.

    References
    ----------
    neural-square-fast-cb
    """

    def __init__(self, strength: float | Tensor, ridge: float = 1.0):
        validate.in_range("strength", strength, 0.0, math.inf)
        validate.positive("ridge", ridge)
        self.strength, self.ridge = torch.as_tensor(strength).reshape(-1, 1), ridge
        self.precision: list[Tensor] | None = None

    def __call__(self, regressor: OnlineRegressor, x: Float[Tensor, "runs arms d"]) -> Float[Tensor, "runs arms"]:
        """All probability on the arm with the least optimistic loss, which is then counted as seen."""
        squares = [(e.square(), d.square()) for e, d in regressor.factors(x)]
        if self.precision is None:
            self.precision = [self.ridge * torch.ones_like(d[:, 0, :, None] * e[:, 0, None, :]) for e, d in squares]
        variance = sum(((e @ (1 / z).mT) * d).sum(-1) for (e, d), z in zip(squares, self.precision, strict=True))
        arm = (regressor.predict(x) - self.strength.to(variance) * variance.sqrt()).argmin(-1)
        runs = torch.arange(len(arm), device=arm.device)
        for (e, d), z in zip(squares, self.precision, strict=True):
            z += d[runs, arm, :, None] * e[runs, arm, None, :]
        return nn.functional.one_hot(arm, x.shape[1]).to(variance)


@dataclass(frozen=True)
class BlockBandit:
    """A bandit whose arm ``a`` shows the context in the a-th of K blocks, and zeros elsewhere.

    Parameters
    ----------
    contexts
        (R, T, d), for R runs and T rounds.
    losses
        Losses in [0, 1] of all K arms, (R, T, K): losses, not rewards.
    reference
        The arms of the policy against which regret is counted, (R, T).

    Raises
    ------
    ValueError
        For losses outside [0, 1] (rewards, for example), or a reference that is not one of the arms.

    References
    ----------
    neural-square-fast-cb
    """

    contexts: Float[Tensor, "runs rounds d"]
    losses: Float[Tensor, "runs rounds arms"]
    reference: Int[Tensor, "runs rounds"]

    def __post_init__(self):
        validate.in_range("losses (not rewards)", self.losses, 0.0, 1.0)
        validate.labels("reference", self.reference, self.losses.shape[-1])

    def features(self, t: int) -> Float[Tensor, "runs arms arms*d"]:
        """What the learner sees in round ``t``."""
        arms = self.losses.shape[-1]
        blocks = torch.eye(arms).to(self.contexts)[:, :, None] * self.contexts[:, t, None, None, :]
        return blocks.flatten(2)


@typed
def run_bandit(
    regressor: OnlineRegressor,
    policy: Callable[..., Tensor],
    env: BlockBandit,
    T: int,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "runs T"]:
    r"""Play ``T`` rounds: predict, draw an arm, observe its loss alone, learn.

    .. math:: R_t = \sum_{\tau \le t} \bigl(y_{\tau, a_\tau} - y_{\tau, \pi^*(x_\tau)}\bigr)

    Parameters
    ----------
    regressor
        Predicts losses; it is trained on the way.
    policy
        ``policy(regressor, features)`` gives the probabilities of the arms, (runs, arms).
    env
        Contexts, losses, and the policy :math:`\pi^*` that regret is counted against.
    T
        Rounds.
    generator
        Draws the arms.

    Returns
    -------
    Tensor
        The cumulative regret after each round.

    Raises
    ------
    ValueError
        When the environment has fewer rounds.

    References
    ----------
    neural-square-fast-cb
    """
    validate.in_range("T", T, 1, env.losses.shape[1])
    runs = torch.arange(len(env.losses), device=env.losses.device)
    regret = []
    for t in range(T):
        x = env.features(t)
        p = policy(regressor, x).to(generator.device)
        arm = torch.multinomial(p, 1, generator=generator)[:, 0].to(runs.device)
        y = env.losses[runs, t, arm]
        regressor.update(x[runs, arm], y)
        regret.append(y - env.losses[runs, t, env.reference[:, t]])
    return torch.stack(regret, dim=1).cumsum(1)


def _perturbation(theta: Tensor, theta0: Tensor, eps: Tensor, scale: float) -> Tensor:
    """What every copy adds to all outputs, (..., copies, 1)."""
    return scale * (eps @ (theta - theta0)[..., None])
