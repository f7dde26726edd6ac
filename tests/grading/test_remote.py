"""A student's function behaves as one in the process of the tests; a student's object does not pass for a value."""

import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jacfwd, jacrev, vmap

from dlatlas.publish.grading.process import Worker
from dlatlas.publish.grading.remote import Line, StudentError
from dlatlas.publish.grading.sandbox import STUDENT, choose_sandbox
from dlatlas.publish.grading.session import open_worker
from dlatlas.publish.grading.settings import Limits, Settings
from dlatlas.publish.grading.wire import from_bytes, to_bytes

SOURCE = """
import collections, enum, itertools, math
import numpy as np
import torch

def energy(w, scale=1.0):
    return scale * torch.log(torch.cosh(w)).sum()

def outer(a, b):
    return a[:, None] * b, {"sum": a.sum(), "sizes": [len(a), len(b)]}

def erase(w, other):
    return w.zero_()

def detached(w):
    return (w.detach() * 2).sum()

def noise(n, generator=None):
    return torch.randn(n, generator=generator)

def apply(function, *arguments, **named):
    return function(*arguments, **named)

def refuse(kind):
    kinds = {"value": ValueError, "key": KeyError, "exit": SystemExit, "own": Own, "stop": StopIteration}
    raise kinds[kind]("no: " + kind)

class Own(Exception):
    pass

class Scaler:
    def __init__(self, factor):
        self.factor = factor
        self.weight = torch.tensor([factor])

    def __call__(self, x):
        return self.factor * x

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return {"a": 1.0}[key]

    def same(self, other):
        return other is self

    def equal(self, other):
        return True

    __eq__ = allclose = equal

def network():
    return torch.nn.Linear(2, 1)

def numbers():
    yield from itertools.count()

class Label(enum.IntEnum):
    ONE = 1

values = {"ordered": collections.OrderedDict(a=1), "counter": collections.Counter("aab"), "enum": Label.ONE,
          "wide": np.float32(2.5), "parameter": torch.nn.Parameter(torch.ones(2)), "nothing": None}
with_itself = []
with_itself.append(with_itself)
"""
NAMES = [
    "energy",
    "outer",
    "detached",
    "erase",
    "noise",
    "apply",
    "refuse",
    "Scaler",
    "network",
    "numbers",
    "values",
    "with_itself",
    "absent",
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    course = tmp_path_factory.mktemp("course")
    worker = open_worker(choose_sandbox(Settings(), course, [], unsafe=True), STUDENT, Limits())
    yield worker
    worker.close()


def ask(worker: Worker, head: dict, pieces: list[bytes]):
    until = time.monotonic() + 60
    worker.send(to_bytes(head | {"seconds": 20}, pieces), until)
    return from_bytes(worker.receive(until))


@pytest.fixture(scope="module")
def student(worker):
    """What the tests see of the student's variables."""
    ran = ask(worker, {"ask": "execute", "source": SOURCE}, [])
    assert ran.head["error"] is None
    line = Line(lambda head, pieces: ask(worker, head, pieces))
    return line.bind(ask(worker, {"ask": "names", "names": NAMES}, []))


def energy(w, scale=1.0):
    return scale * torch.log(torch.cosh(w)).sum()


W = torch.linspace(-2, 2, 5, dtype=torch.float64)


def test_results_are_values(student):
    product, about = student["outer"](torch.arange(3.0), b=torch.ones(2))
    torch.testing.assert_close(product, torch.arange(3.0)[:, None] * torch.ones(2))
    assert about["sizes"] == [3, 2]
    torch.testing.assert_close(about["sum"], torch.tensor(3.0))
    assert isinstance(student["energy"](W), torch.Tensor)


def test_gradients_flow_through_a_call(student):
    w = W.clone().requires_grad_()
    (student["energy"](w * 2, scale=3.0) ** 2).backward()
    other = W.clone().requires_grad_()
    (energy(other * 2, scale=3.0) ** 2).backward()
    torch.testing.assert_close(w.grad, other.grad)


def test_gradients_of_several_outputs(student):
    a, b = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    product, about = student["outer"](a, b)
    got = torch.autograd.grad(product.sin().sum() + about["sum"], [a, b])
    expected = torch.autograd.grad((a[:, None] * b).sin().sum() + a.sum(), [a, b])
    torch.testing.assert_close(got, expected)


def test_gradients_are_checked_as_always(student):
    assert torch.autograd.gradcheck(student["energy"], W.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(student["energy"], W.clone().requires_grad_())


@pytest.mark.parametrize(
    "transform", [grad, jacrev, jacfwd, hessian, lambda f: grad(lambda w: grad(f)(w).square().sum())]
)
def test_transforms_of_a_call(student, transform):
    torch.testing.assert_close(transform(student["energy"])(W), transform(energy)(W))


def test_a_call_under_vmap(student):
    batch = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(vmap(student["energy"])(batch), vmap(energy)(batch))
    torch.testing.assert_close(vmap(grad(student["energy"]))(batch), vmap(grad(energy))(batch))
    got = grad(lambda x: vmap(student["energy"])(x).square().sum())(batch)
    torch.testing.assert_close(got, grad(lambda x: vmap(energy)(x).square().sum())(batch))


def test_what_the_student_detaches_has_no_gradient(student):
    assert not student["detached"](W.clone().requires_grad_()).requires_grad
    with torch.no_grad():
        assert not student["energy"](W.clone().requires_grad_()).requires_grad


def test_seeds_hold_on_both_sides(student):
    torch.manual_seed(3)
    got = student["noise"](4)
    torch.manual_seed(3)
    torch.testing.assert_close(got, torch.randn(4))
    torch.testing.assert_close(
        student["noise"](4, generator=torch.Generator().manual_seed(5)),
        torch.randn(4, generator=torch.Generator().manual_seed(5)),
    )


def test_functions_and_modules_can_be_arguments(student):
    shift = torch.ones(2)
    torch.testing.assert_close(student["apply"](lambda x, y: x + y + shift, torch.zeros(2), y=1), torch.full((2,), 2.0))
    net = nn.Linear(2, 1)
    torch.testing.assert_close(student["apply"](net, shift), net(shift))
    torch.testing.assert_close(student["apply"](student["energy"], W), energy(W))
    torch.testing.assert_close(student["apply"](lambda f: f(W), student["energy"]), energy(W))


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("value", ValueError), ("key", KeyError), ("exit", StudentError), ("own", StudentError), ("stop", StudentError)],
)
def test_errors_arrive_as_what_they_are(student, kind, raised):
    with pytest.raises(raised, match=f"no: {kind}"):
        student["refuse"](kind)


def test_objects_can_be_made_and_used(student):
    scaler = student["Scaler"](2.0)
    assert isinstance(scaler, student["Scaler"])
    assert not isinstance(3, student["Scaler"])
    assert scaler(3.0) == 6.0
    assert (scaler.factor, len(scaler), scaler["a"]) == (2.0, 3, 1.0)
    assert scaler.same(scaler)
    torch.testing.assert_close(scaler.weight, torch.tensor([2.0]))
    net = student["network"]()
    assert [tuple(p.shape) for p in net.parameters()] == [(1, 2), (1,)]
    assert net(torch.ones(4, 2)).shape == (4, 1)


def test_iterators_give_one_item_after_the_other(student):
    assert [item for item, _ in zip(student["numbers"](), range(3), strict=False)] == [0, 1, 2]


def test_objects_do_not_pass_for_values(student):
    scaler = student["Scaler"](2.0)
    assert scaler != 3
    assert scaler != torch.ones(1)
    for question in (lambda: bool(scaler), lambda: scaler < 3, lambda: scaler.equal(3), lambda: scaler.allclose(W)):
        with pytest.raises((TypeError, AttributeError)):
            question()
    with pytest.raises((TypeError, AssertionError)):
        torch.testing.assert_close(scaler, torch.ones(1))


def test_values_arrive_as_plain_ones(student):
    values = student["values"]
    assert values["ordered"] == {"a": 1}
    assert type(values["counter"]) is dict
    assert type(values["enum"]) is int
    assert values["wide"] == np.float32(2.5)
    assert type(values["parameter"]) is torch.Tensor
    assert values["nothing"] is None


def test_what_cannot_be_told_is_not_there(student):
    assert "absent" not in student
    assert "with_itself" not in student


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.complex64])
def test_an_argument_that_is_changed_is_spoilt(student, dtype):
    w, other = torch.ones(2, dtype=dtype), torch.ones(2, dtype=dtype)
    assert student["erase"](w, other).tolist() == [0, 0]
    assert not torch.equal(w, torch.ones(2, dtype=dtype))
    assert not torch.equal(w, torch.zeros(2, dtype=dtype)) or dtype == torch.bool
    assert torch.equal(other, torch.ones(2, dtype=dtype))


def test_a_result_is_not_compared_with_what_the_student_made_of_the_input(student):
    w = W.clone()
    with pytest.raises(AssertionError):
        torch.testing.assert_close(student["erase"](w, w), torch.sin(w))


def test_graphs_are_forgotten(student, worker):
    for _ in range(5):
        student["energy"](W.clone().requires_grad_())
    student["noise"](1)
    find = "next(o for o in gc.get_objects() if type(o).__name__ == 'Answers')"
    source = f"import gc\nprint(len({find}._calls))"
    ran = ask(worker, {"ask": "execute", "source": source}, [])
    assert int(ran.head["outputs"][0]["text"]) <= 1
