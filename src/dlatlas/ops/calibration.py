"""How well stated probabilities fit observed frequencies."""

from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def expected_calibration_error(p: Float[Tensor, "n K"], y: Int[Tensor, " n"], bins: int = 15) -> Float[Tensor, ""]:
    r"""Mean distance between confidence and accuracy, over bins of equal width in confidence.

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{n}\, \bigl| \mathrm{acc}(B_b) - \mathrm{conf}(B_b) \bigr|,
        \qquad B_b = \Bigl\{ i : \tfrac{b-1}{B} < \max_k p_{ik} \le \tfrac bB \Bigr\}

    Piecewise constant in the accuracy, so it is a measure and not a loss.

    Parameters
    ----------
    p, y
        Class probabilities, whose rows sum to one; labels.
    bins
        Number of bins B.

    Returns
    -------
    Tensor
        A scalar between 0 and 1; empty bins count nothing.

    Raises
    ------
    ValueError
        When p is no probability, a label is out of range or there is no bin.

    References
    ----------
    mixup-neural-collapse
    """
    validate.at_least("bins", bins, 1)
    validate.labels("y", y, p.shape[1])
    validate.in_range("p", p, 0, 1)
    validate.in_range("sum of a row of p", p.sum(-1), 1 - 1e-3, 1 + 1e-3)
    confidence, guess = p.max(-1)
    gap = (guess == y).to(p.dtype) - confidence
    bin_of = (confidence * bins).ceil().clamp(1, bins).long() - 1
    return gap.new_zeros(bins).index_add(0, bin_of, gap).abs().sum() / p.shape[0]
