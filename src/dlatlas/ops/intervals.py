"""Means over seeds, with their confidence intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from dlatlas.ops.validate import at_least, in_range

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the ends of its confidence interval: numbers, or arrays without the seed axis.

    As text, an interval of numbers is the mean and the ends: ``f"{interval:.2f}"`` is ``"0.31 [0.28, 0.34]"``.
    """

    mean: Any
    low: Any
    high: Any

    @property
    def reach(self) -> Any:
        """How far the ends are from the mean."""
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        mean, low, high = (format(value, spec or ".3g") for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"


def mean_interval(values: torch.Tensor | ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    r"""Student's t interval of the mean of independent values.

    .. math:: \bar v \pm t_{S-1,\,(1+c)/2}\, \frac{s}{\sqrt S}, \qquad s^2 = \frac{1}{S-1} \sum_s (v_s - \bar v)^2

    Parameters
    ----------
    values
        Values over seeds (S, ...), S at least 2: a tensor on any device, or anything array-like.
    confidence
        Probability c that the interval covers the expectation of normal values.

    Returns
    -------
    Interval
        Its numbers are floats for values (S,), arrays (...) else.

    Raises
    ------
    ValueError
        For fewer than two seeds, or a confidence outside [0, 1].

    Notes
    -----
    For figures and tables: the results are numbers and arrays, without gradients, and nothing for ``torch.vmap``.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    values = np.asarray(values, dtype=np.float64)
    at_least("number of seeds", len(np.atleast_1d(values)), 2)
    in_range("confidence", confidence, 0, 1)
    seeds, mean = len(values), values.mean(0)
    reach = stdtrit(seeds - 1, (1 + confidence) / 2) * values.std(0, ddof=1) / np.sqrt(seeds)
    ends = mean, mean - reach, mean + reach
    return Interval(*(map(float, ends) if values.ndim == 1 else ends))
