"""Facts about the overlap of masks."""

import pytest
import torch
from jaxtyping import TypeCheckError

from dlatlas.ops.dice import dice_loss
from tests.examples import Example

EXAMPLES = [
    Example(
        dice_loss,
        lambda make: {"logits": make.normal(3, 4, 5), "mask": make.uniform(3, 4, 5)},
        differentiable=("logits", "mask"),
    ),
    Example(
        dice_loss,
        lambda make: {"logits": make.normal(3, 6), "mask": make.normal(3, 6) > 0, "eps": 0.1},
        differentiable=("logits",),
    ),
]


def test_hand_case():
    logits = torch.tensor([[100.0, 100.0, -100.0, -100.0]])
    mask = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    assert dice_loss(logits, mask).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))
    assert dice_loss(logits, mask, eps=1e-6).item() == pytest.approx(0.5, abs=1e-5)


def test_is_a_mean_over_images():
    logits, mask = torch.randn(3, 2, 2), (torch.rand(3, 2, 2) > 0.3).float()
    apart = torch.stack([dice_loss(z[None], m[None]) for z, m in zip(logits, mask, strict=True)])
    torch.testing.assert_close(dice_loss(logits, mask), apart.mean())


def test_perfect_and_empty_images_have_no_loss():
    mask = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert dice_loss(1000 * (mask - 0.5), mask).item() == pytest.approx(0, abs=1e-6)


def test_refuses():
    with pytest.raises(ValueError, match="pixels in all masks"):
        dice_loss(torch.randn(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="mask must lie"):
        dice_loss(torch.randn(2, 4), torch.full((2, 4), 2.0))
    with pytest.raises(ValueError, match="eps must be greater than 0"):
        dice_loss(torch.randn(2, 4), torch.ones(2, 4), eps=0)
    with pytest.raises(TypeCheckError):
        dice_loss(torch.randn(2, 4), torch.ones(2, 3))
