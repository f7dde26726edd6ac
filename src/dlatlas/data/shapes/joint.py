"""Joint distributions of the named factors: shortcuts, long tails and combinations that never occur."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from dlatlas.data.shapes.vocabulary import FACTORS, factor_of, index_of, values_of
from dlatlas.ops import validate

AXES = {factor: axis for axis, factor in enumerate(FACTORS)}
Words = str | Iterable[str]


def _uniform() -> Tensor:
    table = torch.ones([len(values) for values in FACTORS.values()], dtype=torch.float64)
    return table / table.sum()


@dataclass(frozen=True, eq=False)
class Joint:
    """A probability for every combination of shape, colour, texture, size and background.

    ``Joint()`` is uniform. Every method returns a new distribution, made from the one it is called on, and none of them
    ever gives weight to a combination that had none: ``Joint().only(texture="plain").long_tail("shape",
    50).correlate("shape", "colour", 0.9)``.

    Parameters
    ----------
    table
        Probabilities, one axis a factor in the order of ``FACTORS``.
    """

    table: Tensor = field(default_factory=_uniform)

    def __post_init__(self):
        sizes = tuple(len(values) for values in FACTORS.values())
        if self.table.shape != sizes:
            raise ValueError(f"table must have shape {sizes}, got {tuple(self.table.shape)}")
        validate.finite("table", self.table)
        validate.at_least("smallest entry of table", self.table.min().item(), 0.0)
        if not self.table.sum() > 0:
            raise ValueError("table must leave at least one combination, got only zeros")
        object.__setattr__(self, "table", self.table.double() / self.table.double().sum())

    def marginal(self, *factors: str) -> Tensor:
        """Distribution of some factors, one axis each in the order of the arguments."""
        kept = [_axis(factor) for factor in factors]
        summed = self.table.sum([axis for axis in AXES.values() if axis not in kept])
        return summed.permute([sorted(kept).index(axis) for axis in kept])

    def support(self, factor: str) -> list[str]:
        """Values of a factor that can occur."""
        return [value for value, p in zip(values_of(factor), self.marginal(factor), strict=True) if p > 0]

    def only(self, **values: Words) -> Self:
        """Given that factors take one of the given values: ``only(shape=("star", "heart"), texture="plain")``."""
        table = self.table
        for factor, words in values.items():
            chosen = [index_of(factor, word) for word in _words(words)]
            keep = torch.zeros(len(values_of(factor)), dtype=table.dtype)
            keep[chosen] = 1
            table = table * _along(factor, keep)
        return self._given(table, f"only({values})")

    def keep(self, combinations: Iterable[Iterable[str]]) -> Self:
        """Given that one of the combinations of values holds: the test set that belongs to `hold_out`."""
        return self._given(self.table * self._any_of(combinations), "keep")

    def hold_out(self, combinations: Iterable[Iterable[str]]) -> Self:
        """Given that none of the combinations of values holds: ``hold_out({("star", "red"), ("heart", "dots")})``."""
        return self._given(self.table * ~self._any_of(combinations), "hold_out")

    def reweigh(self, factor: str, weights: Mapping[str, float]) -> Self:
        """Give a factor's marginal these proportions (0 for values not named); the rest, given that factor, stays."""
        target = torch.zeros(len(values_of(factor)), dtype=self.table.dtype)
        for value, weight in weights.items():
            validate.at_least(f"weight of {value}", weight, 0.0)
            target[index_of(factor, value)] = weight
        now = self.marginal(factor)
        if impossible := [v for v, p, w in zip(values_of(factor), now, target, strict=True) if w > 0 and p == 0]:
            raise ValueError(f"weights must be 0 where nothing can occur, got a weight for {', '.join(impossible)}")
        return self._given(self.table * _along(factor, target / now.where(now > 0, 1)), "reweigh")

    def long_tail(self, factor: str, ratio: float) -> Self:
        """Let the frequencies of a factor's values fall geometrically, the first ``ratio`` times that of the last."""
        validate.at_least("ratio", ratio, 1.0)
        values = self.support(factor)
        steps = max(len(values) - 1, 1)
        return self.reweigh(factor, {value: ratio ** (-rank / steps) for rank, value in enumerate(values)})

    def correlate(self, factor: str, cue: str, strength: float, pairs: Mapping[str, str] | None = None) -> Self:
        r"""Make one factor predict another: with a probability the cue takes the partner of the factor's value.

        .. math:: p'(a, b, r) = (1 - s)\, p(a, b, r) + s\, p(a)\, p(b, r \mid a, b = \pi(a))

        The marginal of ``factor`` stays as it is.

        Parameters
        ----------
        factor, cue
            :math:`a` and :math:`b`, for example ``"shape"`` and ``"colour"``.
        strength
            :math:`s` in [0, 1].
        pairs
            :math:`\pi`, the partner of every value; by default the i-th possible value of the factor goes with the i-th
            of the cue, starting again where the cue has fewer.
        """
        validate.in_range("strength", strength, 0.0, 1.0)
        if _axis(factor) == _axis(cue):
            raise ValueError(f"factor and cue must differ, got {factor!r} twice")
        values, cues = self.support(factor), self.support(cue)
        pairs = pairs or {value: cues[rank % len(cues)] for rank, value in enumerate(values)}
        if missing := [value for value in values if value not in pairs]:
            raise ValueError(
                f"pairs must name a partner for every {factor} that occurs, got none for {', '.join(missing)}"
            )
        aligned = self._aligned(factor, cue, {value: pairs[value] for value in values})
        return type(self)((1 - strength) * self.table + strength * aligned)

    def _aligned(self, factor: str, cue: str, pairs: Mapping[str, str]) -> Tensor:
        """The table given that each value meets its partner, with the marginal of ``factor`` unchanged."""
        matched = self.table * self._any_of(pairs.items())
        before, after = self.marginal(factor), matched.sum([axis for axis in AXES.values() if axis != AXES[factor]])
        if alone := [f"{value} with {pairs[value]}" for value in pairs if after[index_of(factor, value)] == 0]:
            raise ValueError(
                f"every pair of {factor} and {cue} must be possible, but these are not: {', '.join(alone)}"
            )
        return matched * _along(factor, before / after.where(after > 0, 1))

    def _any_of(self, combinations: Iterable[Iterable[str]]) -> Tensor:
        """Where one of the combinations holds."""
        found = torch.zeros_like(self.table, dtype=torch.bool)
        for combination in combinations:
            cells: list[slice | int] = [slice(None)] * len(AXES)
            for value in _words(combination):
                cells[AXES[factor_of(value)]] = index_of(factor_of(value), value)
            found[tuple(cells)] = True
        return found

    def _given(self, table: Tensor, what: str) -> Self:
        if not table.sum() > 0:
            raise ValueError(f"{what} must leave at least one combination that can occur, got none")
        return type(self)(table)


def _words(words: Words) -> list[str]:
    return [words] if isinstance(words, str) else list(words)


def _axis(factor: str) -> int:
    values_of(factor)
    return AXES[factor]


def _along(factor: str, vector: Tensor) -> Tensor:
    """A vector over the values of a factor, shaped to multiply the table."""
    return vector.reshape([-1 if axis == AXES[factor] else 1 for axis in AXES.values()])
