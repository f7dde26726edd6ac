"""Facts about calibration."""

import pytest
import torch

from dlatlas.ops.calibration import expected_calibration_error
from tests.examples import Example

EXAMPLES = [
    Example(
        expected_calibration_error,
        lambda make: {"p": make.simplex(12, 4), "y": make.labels(12, classes=4), "bins": 5},
        differentiable=("p",),
    )
]


def test_hand_case():
    """Bin (0.5, 0.75]: confidence 0.7 twice, one right. Bin (0.75, 1]: confidence 0.9, wrong."""
    p = torch.tensor([[0.7, 0.3], [0.3, 0.7], [0.9, 0.1]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1])
    assert expected_calibration_error(p, y, bins=4).item() == pytest.approx((2 * 0.2 + 0.9) / 3)


def test_is_zero_for_calibrated_and_for_certain_and_right():
    certain = torch.eye(3, dtype=torch.float64)
    assert expected_calibration_error(certain, torch.arange(3)) == 0
    p = torch.tensor([[0.75, 0.25]] * 4, dtype=torch.float64)
    assert expected_calibration_error(p, torch.tensor([0, 0, 0, 1])).item() == pytest.approx(0, abs=1e-12)


def test_one_bin_is_confidence_minus_accuracy():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(50, 3, generator=generator, dtype=torch.float64).softmax(-1)
    y = torch.randint(3, (50,), generator=generator)
    expected = (p.amax(-1).mean() - (p.argmax(-1) == y).double().mean()).abs()
    torch.testing.assert_close(expected_calibration_error(p, y, bins=1), expected)


@pytest.mark.parametrize(
    ("p", "y", "bins", "message"),
    [
        ([[0.5, 0.6]], [0], 5, "sum of a row of p"),
        ([[1.5, -0.5]], [0], 5, "p must lie"),
        ([[0.5, 0.5]], [2], 5, "y must lie"),
        ([[0.5, 0.5]], [0], 0, "bins must be at least 1"),
    ],
)
def test_refuses(p, y, bins, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(torch.tensor(p), torch.tensor(y), bins)
