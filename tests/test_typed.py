import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from torch import Tensor

from dlatlas.typed import typed


@typed
def loss(logits: Float[Tensor, "n k"], target: Int[Tensor, "n"], *, scale: float = 1.0) -> Float[Tensor, ""]:
    return scale * torch.nn.functional.cross_entropy(logits, target)


LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
TARGET = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    "arguments",
    [(LOGITS, TARGET[:3]), (LOGITS, TARGET.float()), (LOGITS[0], TARGET), (LOGITS.long(), TARGET)],
    ids=["length", "dtype of target", "dimensions", "dtype of logits"],
)
def test_refusal_names_the_argument_and_what_came(arguments):
    with pytest.raises(TypeCheckError, match=r"parameter '(logits|target)'[\s\S]*Actual value"):
        loss(*arguments)


def test_an_integer_is_welcome_where_a_float_is_asked_for():
    torch.testing.assert_close(loss(LOGITS, TARGET, scale=1), loss(LOGITS, TARGET))
    with pytest.raises(TypeCheckError, match="scale"):
        loss(LOGITS, TARGET, scale="1")


def test_works_under_vmap_and_grad():
    together = torch.vmap(loss)(LOGITS.expand(2, 4, 3), TARGET.expand(2, 4))
    torch.testing.assert_close(together, loss(LOGITS, TARGET).expand(2))
    assert torch.func.grad(loss)(LOGITS, TARGET).shape == LOGITS.shape


def test_steps_aside_while_compiling():
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(LOGITS, TARGET), loss(LOGITS, TARGET))
