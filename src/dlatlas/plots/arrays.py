"""From tensors or arrays over seeds to what is drawn."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray


def to_array(name: str, values: ArrayLike | torch.Tensor) -> NDArray:
    """Convert a tensor on any device, or anything array-like, to a finite float64 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(array)).sum())} infinite or undefined entries")
    return array


def to_seed_array(name: str, values: ArrayLike | torch.Tensor, *shape: int) -> NDArray:
    """Convert values over seeds, and refuse those that are not of shape (S, *shape) with S of at least 2."""
    array = to_array(name, values)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape or len(array) < 2:
        wanted = ", ".join(["S", *map(str, shape)])
        raise ValueError(f"{name} must have shape ({wanted}) with at least 2 seeds, got {array.shape}")
    return array
