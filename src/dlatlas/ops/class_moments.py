"""Means and covariances within and between classes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def class_means(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int
) -> Float[Tensor, "{classes} d"]:
    r"""Mean of the features of every class.

    .. math:: \bar h_k = \frac{1}{n_k} \sum_{i : y_i = k} h_i

    Parameters
    ----------
    features, labels
        One row a sample; labels from 0 to ``classes`` - 1.
    classes
        Number of classes K.

    Returns
    -------
    Tensor
        (K, d).

    Raises
    ------
    ValueError
        When a class has no samples, or a label is out of range.
    """
    validate.labels("labels", labels, classes)
    member = (labels[:, None] == torch.arange(classes, device=labels.device)).to(features.dtype)
    counts = member.sum(0)
    validate.in_range("samples of the smallest class", counts, 1, torch.inf)
    return (member / counts).mT @ features


@typed
def class_covariances(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], classes: int
) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"]]:
    r"""Pooled covariance within classes, and covariance of the class means.

    .. math:: \Sigma_W = \frac1n \sum_i (h_i - \bar h_{y_i})(h_i - \bar h_{y_i})^\top, \qquad
        \Sigma_B = \frac1K \sum_k (\bar h_k - \bar h)(\bar h_k - \bar h)^\top, \qquad
        \bar h = \frac1K \sum_k \bar h_k

    All samples weigh the same within, all classes weigh the same between, also when the classes differ in size.

    Parameters
    ----------
    features, labels, classes
        As in `class_means`.

    Returns
    -------
    tuple
        :math:`\Sigma_W` and :math:`\Sigma_B`, (d, d) each.

    Raises
    ------
    ValueError
        When a class has no samples, or a label is out of range.
    """
    means = class_means(features, labels, classes)
    deviations = features - means[labels]
    centred = means - means.mean(0)
    return deviations.mT @ deviations / features.shape[0], centred.mT @ centred / classes
