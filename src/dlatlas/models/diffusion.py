"""A class-conditional diffusion model of small images."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.models.unet import UNet
from dlatlas.ops.validate import at_least, in_range, labels
from dlatlas.typed import typed

LARGEST_BETA = 0.999
COSINE_OFFSET = 0.008


class Diffusion(nn.Module):
    r"""A variance-preserving diffusion model with classifier-free guidance.

    .. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, \qquad t = 0, \dots, T - 1

    Images live in [-1, 1] here; `sample` gives them in [0, 1]. The network, a U-Net, predicts the velocity v, from
    which follow the noise and the clean image. A label may be `no_class`: the model is then unconditional.

    .. math:: v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, x_0

    Parameters
    ----------
    classes
        Number of classes K; the label K stands for none.
    image_size, channels, depth, condition
        Of the network, see `dlatlas.models.unet.UNet`.
    levels
        Number of noise levels T; :math:`\bar\alpha` follows the cosine schedule.
    """

    alpha_bar: Float[Tensor, "T"]

    def __init__(
        self,
        classes: int,
        *,
        image_size: int = 16,
        channels: Sequence[int] = (48, 64),
        depth: int = 2,
        condition: int = 64,
        levels: int = 1000,
    ) -> None:
        super().__init__()
        at_least("classes", classes, 1)
        self.classes, self.image_size, self.levels = classes, image_size, levels
        self.register_buffer("alpha_bar", cosine_schedule(levels))
        self.network = UNet(classes + 1, image_size=image_size, channels=channels, depth=depth, condition=condition)

    @property
    def no_class(self) -> int:
        """The label that stands for no class."""
        return self.classes

    @typed
    def noised(
        self, x0: Float[Tensor, "n 3 h w"], t: Int[Tensor, "n"], noise: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        r"""Give :math:`x_t` for clean images in [-1, 1], levels t and standard normal noise."""
        signal, sigma = self._scales(t)
        return signal * x0 + sigma * noise

    @typed
    def velocity(
        self, x: Float[Tensor, "n 3 h w"], t: Int[Tensor, "n"], label: Int[Tensor, "n"]
    ) -> Float[Tensor, "n 3 h w"]:
        r"""Predict the velocity :math:`\hat v` from :math:`x_t`, its level, and its label or `no_class`."""
        labels("t", t, self.levels)
        return self.network(x, t, label)

    @typed
    def denoised(
        self, x: Float[Tensor, "n 3 h w"], t: Int[Tensor, "n"], label: Int[Tensor, "n"]
    ) -> Float[Tensor, "n 3 h w"]:
        r"""Predict the clean image, :math:`\hat x_0 = \sqrt{\bar\alpha_t}\, x_t - \sqrt{1 - \bar\alpha_t}\, \hat v`."""
        signal, sigma = self._scales(t)
        return signal * x - sigma * self.velocity(x, t, label)

    @typed
    def forward(
        self, x: Float[Tensor, "n 3 h w"], t: Int[Tensor, "n"], label: Int[Tensor, "n"]
    ) -> Float[Tensor, "n 3 h w"]:
        r"""Predict the noise, :math:`\hat\epsilon = \sqrt{1 - \bar\alpha_t}\, x_t + \sqrt{\bar\alpha_t}\, \hat v`."""
        return self._noise_in(x, t, self.velocity(x, t, label))

    @typed
    def guided(
        self, x: Float[Tensor, "n 3 h w"], t: Int[Tensor, "n"], label: Int[Tensor, "n"], guidance: float
    ) -> Float[Tensor, "n 3 h w"]:
        r"""Predict the noise with classifier-free guidance.

        .. math:: \hat\epsilon = \hat\epsilon_\varnothing + s\,(\hat\epsilon_y - \hat\epsilon_\varnothing)

        Parameters
        ----------
        x, t, label
            As for `velocity`.
        guidance
            Scale s: 0 ignores the label, 1 is the conditional model, more exaggerates the class.
        """
        return self._noise_in(x, t, self._guided_velocity(x, t, label, guidance))

    @torch.no_grad()
    @typed
    def sample(
        self,
        label: Int[Tensor, "n"],
        *,
        generator: torch.Generator,
        guidance: float = 3.0,
        steps: int = 30,
        eta: float = 0.0,
    ) -> Float[Tensor, "n 3 h w"]:
        r"""Draw images with the sampler of denoising diffusion implicit models (DDIM).

        .. math:: x_s = \sqrt{\bar\alpha_s}\, \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\, \hat\epsilon + \sigma z,
            \qquad \sigma = \eta \sqrt{\frac{1 - \bar\alpha_s}{1 - \bar\alpha_t}}
            \sqrt{1 - \frac{\bar\alpha_t}{\bar\alpha_s}}

        Parameters
        ----------
        label
            Class of each image, or `no_class`.
        generator
            A CPU generator of the noise.
        guidance
            Scale of `guided`.
        steps
            Levels that the sampler visits, at most T.
        eta
            :math:`\eta` in [0, 1]: 0 is deterministic given the first noise, 1 is ancestral sampling.

        Returns
        -------
        Tensor
            Images in [0, 1].
        """
        in_range("steps", steps, 1, self.levels)
        in_range("eta", eta, 0.0, 1.0)
        x = self._noise(len(label), generator)
        path = torch.linspace(self.levels - 1, 0, steps).round().long().tolist()
        for now, following in zip(path, [*path[1:], None], strict=True):
            x = self._stepped(x, now, following, label, guidance, eta, generator)
        return to_unit(x)

    @typed
    def loss(
        self,
        images: Float[Tensor, "n 3 h w"],
        label: Int[Tensor, "n"],
        *,
        generator: torch.Generator,
        dropout: float = 0.15,
    ) -> Float[Tensor, ""]:
        r"""Mean squared error of the velocity at random levels.

        .. math:: \lVert \hat v(x_t, t, y) - v \rVert^2, \qquad
            v = \sqrt{\bar\alpha_t}\, \epsilon - \sqrt{1 - \bar\alpha_t}\, x_0

        Parameters
        ----------
        images
            In [0, 1].
        label
            Their classes.
        generator
            A CPU generator of levels, noise and dropped labels.
        dropout
            Probability with which a label is replaced by `no_class`.
        """
        in_range("dropout", dropout, 0.0, 1.0)
        n, device = len(images), images.device
        t = torch.randint(self.levels, (n,), generator=generator).to(device)
        kept = (torch.rand(n, generator=generator) >= dropout).to(device)
        x0, noise = 2 * images - 1, self._noise(n, generator)
        signal, sigma = self._scales(t)
        label = label.where(kept, torch.full_like(label, self.no_class))
        predicted = self.velocity(self.noised(x0, t, noise), t, label)
        return F.mse_loss(predicted, signal * noise - sigma * x0)

    def _guided_velocity(self, x: Tensor, t: Tensor, label: Tensor, guidance: float) -> Tensor:
        nothing = torch.full_like(label, self.no_class)
        both = self.velocity(torch.cat([x, x]), torch.cat([t, t]), torch.cat([nothing, label]))
        without, given = both.chunk(2)
        return without + guidance * (given - without)

    def _stepped(
        self,
        x: Tensor,
        now: int,
        following: int | None,
        label: Tensor,
        guidance: float,
        eta: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Go from one level to another one, or to the clean image."""
        velocity = self._guided_velocity(x, torch.full_like(label, now), label, guidance)
        alpha = self.alpha_bar[now]
        clean = (alpha.sqrt() * x - (1 - alpha).sqrt() * velocity).clamp(-1, 1)
        if following is None:
            return clean
        noise = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        beyond = self.alpha_bar[following]
        sigma = eta * ((1 - beyond) / (1 - alpha) * (1 - alpha / beyond)).sqrt()
        fresh = self._noise(len(x), generator)
        return beyond.sqrt() * clean + (1 - beyond - sigma**2).clamp_min(0).sqrt() * noise + sigma * fresh

    def _noise_in(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        signal, sigma = self._scales(t)
        return sigma * x + signal * velocity

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the clean image and of the noise."""
        alpha = self.alpha_bar[t][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def _noise(self, n: int, generator: torch.Generator) -> Tensor:
        shape = (n, 3, self.image_size, self.image_size)
        return torch.randn(shape, generator=generator).to(self.alpha_bar)


@typed
def cosine_schedule(levels: int) -> Float[Tensor, "levels"]:
    r"""Give :math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` of the cosine schedule.

    .. math:: 1 - \beta_t = \max\!\left(10^{-3}, \frac{f(t + 1)}{f(t)}\right), \qquad
        f(t) = \cos^2\!\left(\frac{t / T + 0.008}{1.008} \cdot \frac{\pi}{2}\right)

    Parameters
    ----------
    levels
        Number of noise levels T.
    """
    at_least("levels", levels, 1)
    time = torch.arange(levels + 1, dtype=torch.float64) / levels
    f = torch.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2).square()
    return (f[1:] / f[:-1]).clamp(1 - LARGEST_BETA, 1.0).cumprod(0).float()


@typed
def to_unit(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Map images from [-1, 1] to [0, 1]."""
    return ((x + 1) / 2).clamp(0, 1)
