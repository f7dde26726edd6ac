"""Refusing values that make no sense, with a message that says what was expected and what came.

Checks on tensors look at the values, which a transformed tensor (``torch.func.vmap``, ``torch.func.grad``) or a graph
that is being compiled does not have; there they step aside.
"""

import torch
from torch import Tensor


def positive(name: str, value: float) -> None:
    """Refuse a number that is not greater than zero."""
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, got {value}")


def at_least(name: str, value: float, low: float) -> None:
    """Refuse a number below ``low``."""
    if not value >= low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def in_range(name: str, value: float | Tensor, low: float, high: float) -> None:
    """Refuse a number, or a tensor with an entry, outside the closed interval from ``low`` to ``high``."""
    if isinstance(value, Tensor):
        if not has_values(value) or value.numel() == 0:
            return
        smallest, largest = value.min().item(), value.max().item()
    else:
        smallest = largest = value
    if not (low <= smallest and largest <= high):
        came = smallest if not low <= smallest else largest
        raise ValueError(f"{name} must lie in [{low}, {high}], got {came}")


def labels(name: str, target: Tensor, classes: int) -> None:
    """Refuse class labels outside 0, ..., ``classes`` - 1."""
    in_range(name, target, 0, classes - 1)


def finite(name: str, tensor: Tensor) -> None:
    """Refuse a tensor with an infinite or undefined entry."""
    bad = int((~torch.isfinite(tensor)).sum()) if has_values(tensor) else 0
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} infinite or undefined entries")


def has_values(tensor: Tensor) -> bool:
    """Whether checks can look at a tensor's values. Where they cannot, what is computed for a check alone is wasted."""
    return not (torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(tensor))
