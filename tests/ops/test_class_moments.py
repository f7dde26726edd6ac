"""Facts about means and covariances of classes."""

import numpy as np
import pytest
import torch

from dlatlas.ops.class_moments import class_covariances, class_means
from tests.examples import Example

EXAMPLES = [
    Example(
        function,
        lambda make: {"features": make.normal(9, 4), "labels": torch.arange(9, device=make.device) % 3, "classes": 3},
        differentiable=("features",),
    )
    for function in (class_means, class_covariances)
]


def unequal_classes():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([2, 0, 0, 1, 0, 1, 0])
    return torch.randn(7, 3, generator=generator, dtype=torch.float64), labels


def test_means_equal_a_loop():
    features, labels = unequal_classes()
    expected = torch.stack([features[labels == k].mean(0) for k in range(3)])
    torch.testing.assert_close(class_means(features, labels, 3), expected)


def test_within_equals_pooled_covariances():
    features, labels = unequal_classes()
    within, _ = class_covariances(features, labels, 3)
    scatter = sum(np.cov(features[labels == k].T, bias=True) * int((labels == k).sum()) for k in (0, 1))
    np.testing.assert_allclose(within, scatter / 7, atol=1e-12)


def test_between_gives_every_class_the_same_weight():
    features, labels = unequal_classes()
    _, between = class_covariances(features, labels, 3)
    np.testing.assert_allclose(between, np.cov(class_means(features, labels, 3).T, bias=True), atol=1e-12)


def test_law_of_total_covariance_for_equal_classes():
    features, _ = unequal_classes()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    within, between = class_covariances(features[:6], labels, 3)
    np.testing.assert_allclose(within + between, np.cov(features[:6].T, bias=True), atol=1e-12)


def test_refuses_an_empty_class_and_an_unknown_label():
    features, labels = unequal_classes()
    with pytest.raises(ValueError, match="samples of the smallest class"):
        class_means(features, labels, 4)
    with pytest.raises(ValueError, match="labels must lie"):
        class_covariances(features, labels, 2)
