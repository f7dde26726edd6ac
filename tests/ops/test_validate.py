import math

import pytest
import torch

from dlatlas.ops import validate
from tests.examples import Example

EXAMPLES = [
    Example(validate.positive, lambda make: {"name": "temperature", "value": 0.5}, vmap=False),
    Example(validate.at_least, lambda make: {"name": "tau", "value": 0.0, "low": 0}, vmap=False),
    Example(validate.one_of, lambda make: {"name": "kind", "value": "a", "choices": ("a", "b")}, vmap=False),
    Example(validate.in_range, lambda make: {"name": "p", "value": make.uniform(3), "low": 0, "high": 1}, vmap=False),
    Example(validate.labels, lambda make: {"name": "y", "target": make.labels(5, classes=3), "classes": 3}, vmap=False),
    Example(validate.finite, lambda make: {"name": "x", "tensor": make.normal(5)}, vmap=False),
    Example(validate.has_values, lambda make: {"tensor": make.normal(5)}, vmap=False),
]


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        (lambda: validate.positive("temperature", 0.0), "temperature must be greater than 0, got 0.0"),
        (lambda: validate.positive("temperature", math.nan), "temperature must be greater than 0, got nan"),
        (lambda: validate.at_least("tau", -1.0, 0), "tau must be at least 0, got -1.0"),
        (lambda: validate.one_of("kind", "c", ("a", "b")), "kind must be one of a, b; got 'c'"),
        (lambda: validate.in_range("beta", 1.5, 0, 1), r"beta must lie in \[0, 1\], got 1.5"),
        (lambda: validate.in_range("beta", torch.tensor([0.5, -2.0]), 0, 1), r"beta must lie in \[0, 1\], got -2.0"),
        (lambda: validate.in_range("beta", torch.tensor([math.nan]), 0, 1), r"beta must lie in \[0, 1\], got nan"),
        (lambda: validate.labels("target", torch.tensor([0, 3]), 3), r"target must lie in \[0, 2\], got 3"),
        (lambda: validate.finite("x", torch.tensor([1.0, math.inf])), "x must be finite, got 1 infinite"),
    ],
)
def test_refusal_names_argument_expectation_and_value(refuse, message):
    with pytest.raises(ValueError, match=message):
        refuse()


def test_steps_aside_under_vmap_and_grad():
    def checked(x):
        validate.in_range("x", x, 0, 1)
        validate.finite("x", x)
        return x.sum()

    outside = torch.full((2, 3), 5.0)
    assert torch.vmap(checked)(outside).tolist() == [15.0, 15.0]
    assert torch.func.grad(lambda x: torch.vmap(checked)(x).sum())(outside).tolist() == torch.ones(2, 3).tolist()
