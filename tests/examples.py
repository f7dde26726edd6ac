"""How a test module tells the generic tests what to call a public function with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Make:
    """Random arguments of one dtype on one device; the same seed gives the same arguments."""

    dtype: torch.dtype
    device: torch.device
    generator: torch.Generator

    def normal(self, *shape: int) -> torch.Tensor:
        return self._on_device(torch.randn(*shape, generator=self.generator, dtype=torch.float64))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return self._on_device(low + (high - low) * torch.rand(*shape, generator=self.generator, dtype=torch.float64))

    def simplex(self, *shape: int) -> torch.Tensor:
        """Strictly positive rows that sum to one."""
        return self._on_device(torch.softmax(torch.randn(*shape, generator=self.generator, dtype=torch.float64), -1))

    def labels(self, *shape: int, classes: int) -> torch.Tensor:
        return torch.randint(classes, shape, generator=self.generator).to(self.device)

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, self.dtype)


@dataclass(frozen=True)
class Example:
    """One valid call of a public function.

    Parameters
    ----------
    function
        The function under test.
    arguments
        From a `Make` to the keyword arguments of a valid call.
    differentiable
        Names of the float tensor arguments that must receive a finite gradient; empty where the function is not
        differentiable.
    vmap
        Whether the function works under ``torch.func.vmap`` over its tensor arguments. False only where its docstring
        says why.
    """

    function: Callable[..., Any]
    arguments: Callable[[Make], dict[str, Any]]
    differentiable: tuple[str, ...] = ()
    vmap: bool = True
