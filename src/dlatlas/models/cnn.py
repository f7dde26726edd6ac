"""A small convolutional network."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from dlatlas.models.inputs import check_shape
from dlatlas.ops.validate import at_least
from dlatlas.typed import typed


class CNN(nn.Module):
    r"""Stages of convolution 3×3 with stride 2, group normalisation and ReLU, then one linear layer.

    Every stage halves the image (rounded up); strides do this at a fraction of the cost of pooling. There are no batch
    statistics, so the output for an image does not depend on the rest of its batch, and training needs no state beside
    the parameters.

    Parameters
    ----------
    channels
        Output channels of each stage; each must be a multiple of ``groups``.
    classes
        Number of logits, K.
    image_size
        Height and width of the square images in pixels, at least 2 to the power of the number of stages.
    image_channels
        Channels of the images: 1 for grey, 3 for colour.
    groups
        Groups of channels that are normalised together; 0 leaves the normalisation out.

    Raises
    ------
    ValueError
        If there are no stages, a number is not positive, the image is too small for the stages or ``groups`` does not
        divide the channels.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32),
        classes: int = 10,
        *,
        image_size: int = 8,
        image_channels: int = 1,
        groups: int = 4,
    ) -> None:
        super().__init__()
        at_least("number of stages", len(channels), 1)
        for name, value in (
            ("classes", classes),
            ("image_channels", image_channels),
            ("smallest of channels", min(channels)),
        ):
            at_least(name, value, 1)
        _check_groups(groups, channels)
        at_least("image_size", image_size, 2 ** len(channels))
        self.image_size, self.image_channels = image_size, image_channels
        inputs = (image_channels, *channels[:-1])
        self.stages = nn.Sequential(
            *(_stage(i, o, groups) for i, o in zip(inputs, channels, strict=True)), nn.Flatten()
        )
        smallest = -(-image_size // 2 ** len(channels))
        self.head = nn.Linear(channels[-1] * smallest**2, classes)

    @typed
    def features(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n h"]:
        """Give the flattened output of the last stage, the input of the linear layer."""
        check_shape("x", x, self.image_channels, self.image_size, self.image_size)
        return self.stages(x)

    @typed
    def forward(self, x: Float[Tensor, "n c size size"]) -> Float[Tensor, "n k"]:
        """Give the logits."""
        return self.head(self.features(x))


def _check_groups(groups: int, channels: Sequence[int]) -> None:
    at_least("groups", groups, 0)
    for count in channels if groups else ():
        if count % groups:
            raise ValueError(f"groups must divide every number of channels, got groups={groups} and channels={count}")


def _stage(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    normalisation = [nn.GroupNorm(groups, outputs)] if groups else []
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), *normalisation, nn.ReLU())
