"""Facts that the methods of theory/simplicity_bias must satisfy: variance of representations."""

from math import comb

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.simplicity_bias_representation import (
    boolean_feature_data,
    parity_shares,
    variance_explained,
    variance_shares,
)
from tests.examples import Example, Make


def bits(make: Make) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {"n": 16, "specs": {"A": 1, "B": 2}, "dim": 6, "generator": generator, "dtype": make.dtype}


def factorial(make: Make) -> dict:
    cells = torch.arange(12, device=make.device) % 4
    return {"R": make.normal(12, 5), "a": cells // 2, "b": cells % 2}


EXAMPLES = [
    Example(boolean_feature_data, bits, vmap=False),
    Example(
        variance_explained,
        lambda make: {"R": make.normal(9, 4), "labels": torch.arange(9, device=make.device) % 3, "classes": 3},
        differentiable=("R",),
    ),
    Example(variance_shares, factorial, differentiable=("R",)),
    Example(
        parity_shares,
        lambda make: {
            "dim": 6,
            "degrees": torch.tensor([1, 2, 3], device=make.device),
            "depth": 2,
            "dtype": make.dtype,
        },
        vmap=False,
    ),
]


class TestData:
    def test_features_are_parities_balanced_and_independent(self):
        specs = {"A": 1, "B": 3, "C": 2}
        x, labels = boolean_feature_data(640, specs, 9, generator=torch.Generator().manual_seed(1))
        assert x.shape == (640, 9)
        assert set(x.unique().tolist()) == {-1.0, 1.0}
        for name, start, size in (("A", 0, 1), ("B", 1, 3), ("C", 4, 2)):
            assert torch.equal(labels[name], (x[:, start : start + size].prod(1) > 0).long())
        cell = 4 * labels["A"] + 2 * labels["B"] + labels["C"]
        assert cell.bincount().tolist() == [80] * 8

    def test_nuisance_bits_differ_between_draws(self):
        draws = [boolean_feature_data(8, {"A": 1}, 20, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
        (first, _), (second, _) = draws
        assert not torch.equal(first[:, 1:], second[:, 1:])

    @pytest.mark.parametrize(
        ("n", "specs", "dim", "message"),
        [
            (6, {"A": 1, "B": 1}, 4, "multiple of 4"),
            (4, {}, 4, "features"),
            (4, {"A": 0}, 4, "group"),
            (4, {"A": 2}, 1, "dim"),
        ],
    )
    def test_bad_input(self, n, specs, dim, message):
        with pytest.raises(ValueError, match=message):
            boolean_feature_data(n, specs, dim, generator=torch.Generator())


class TestShares:
    def test_nine_to_one(self):
        cells = torch.arange(20) % 4
        a, b = cells // 2, cells % 2
        R = torch.cat([3 * F.one_hot(a), F.one_hot(b)], 1).double()
        shares = torch.stack(list(variance_shares(R, a, b).values()))
        torch.testing.assert_close(shares, torch.tensor([0.9, 0.1, 0.0, 0.0], dtype=torch.float64))

    def test_interaction(self):
        cells = torch.arange(8) % 4
        R = ((cells // 2 + cells % 2) % 2).double()[:, None]
        shares = variance_shares(R, cells // 2, cells % 2)
        assert shares["interaction"].item() == pytest.approx(1)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 1000))
    def test_add_up_and_ignore_rotation_and_scale(self, seed):
        make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(seed))
        arguments = factorial(make)
        shares = variance_shares(**arguments)
        assert sum(shares.values()).item() == pytest.approx(1)
        assert min(share.item() for share in shares.values()) > -1e-12
        rotation = torch.linalg.qr(make.normal(5, 5)).Q
        turned = variance_shares(**arguments | {"R": 0.3 * arguments["R"] @ rotation - 2})
        for name, share in shares.items():
            torch.testing.assert_close(turned[name], share)

    def test_class_means_are_least_squares(self):
        generator = torch.Generator().manual_seed(2)
        R = torch.randn(30, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(3, (30,), generator=generator)
        one_hot = F.one_hot(labels, 3).double()
        left = (R - one_hot @ torch.linalg.lstsq(one_hot, R).solution).square().sum()
        expected = 1 - left / (R - R.mean(0)).square().sum()
        torch.testing.assert_close(variance_explained(R, labels, 3), expected)

    def test_bad_input(self):
        cells = torch.arange(12) % 4
        with pytest.raises(ValueError, match="counts of the combinations"):
            variance_shares(torch.randn(12, 2), cells // 2, cells // 2)
        with pytest.raises(ValueError, match="a must lie"):
            variance_shares(torch.randn(12, 2), cells, cells % 2)
        with pytest.raises(ValueError, match="variance of R"):
            variance_explained(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]), 2)
        with pytest.raises(ValueError, match="smallest class"):
            variance_explained(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), 3)


class TestParities:
    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_all_shares_add_up(self, depth):
        shares = parity_shares(7, torch.arange(1, 8), depth)
        counts = torch.tensor([comb(7, k) for k in range(1, 8)], dtype=torch.float64)
        assert (counts @ shares).item() == pytest.approx(1)
        assert (shares >= -1e-12).all()

    def test_one_layer_has_no_odd_parities_beyond_single_bits(self):
        shares = parity_shares(8, torch.tensor([1, 2, 3, 5]), 1)
        assert shares[[2, 3]].abs().max() < 1e-12
        assert shares[0] > shares[1] > 0

    def test_wide_random_layer(self):
        X = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6)
        torch.manual_seed(0)
        R = torch.relu(X @ torch.randn(6, 40_000))
        for k in (1, 2):
            share = variance_explained(R, (X[:, :k].prod(1) > 0).long(), 2)
            assert share.item() == pytest.approx(parity_shares(6, torch.tensor([k]), 1).item(), rel=0.05)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="degrees"):
            parity_shares(4, torch.tensor([5]), 1)
        with pytest.raises(ValueError, match="depth"):
            parity_shares(4, torch.tensor([1]), 0)
