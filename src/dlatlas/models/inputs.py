"""Refusing input that a network was not built for."""

from torch import Tensor


def check_shape(name: str, tensor: Tensor, *expected: int) -> None:
    """Refuse a tensor whose last dimensions are not the expected ones."""
    came = tuple(tensor.shape[-len(expected) :])
    if came != expected:
        wanted = ", ".join(["...", *map(str, expected)])
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(tensor.shape)}")
