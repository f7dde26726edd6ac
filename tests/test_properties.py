"""What every public function must do: keep dtype and device, differentiate, vmap, and leave its inputs alone.

Test modules list their calls as ``EXAMPLES = [Example(...), ...]``.
"""

import importlib.util
import inspect
import pkgutil

import pytest
import torch
from torch.utils import _pytree as pytree

import dlatlas
from tests.examples import Example, Make

INFRASTRUCTURE = {"lab", "plots", "publish", "data", "models", "progress", "registry", "typed"}
METHOD_PACKAGES = [m.name for m in pkgutil.iter_modules(dlatlas.__path__) if m.name not in INFRASTRUCTURE]
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def method_modules():
    for package in METHOD_PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(f"dlatlas.{package}").__path__):
            yield package, module.name


def public_functions(package: str, name: str):
    module = importlib.import_module(f"dlatlas.{package}.{name}")
    return {
        attribute: value
        for attribute, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not attribute.startswith("_")
    }


def examples_of(package: str, name: str) -> list[Example]:
    test_module = f"tests.{package}.test_{name}"
    if importlib.util.find_spec(test_module) is None:
        return []
    return getattr(importlib.import_module(test_module), "EXAMPLES", [])


def examples() -> list[Example]:
    return [example for package, name in method_modules() for example in examples_of(package, name)]


def named(example: Example) -> str:
    return f"{example.function.__module__.removeprefix('dlatlas.')}.{example.function.__name__}"


def arguments(example: Example, dtype: torch.dtype, device: str = "cpu", seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return example.arguments(Make(dtype, torch.device(device), generator))


def float_leaves(tree):
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, torch.Tensor) and x.is_floating_point()]


every_example = pytest.mark.parametrize("example", examples(), ids=named)


@pytest.mark.parametrize(("package", "name"), list(method_modules()))
def test_every_public_function_has_an_example(package, name):
    covered = {example.function.__name__ for example in examples_of(package, name)}
    missing = set(public_functions(package, name)) - covered
    assert not missing, f"tests/{package}/test_{name}.py lists no Example for {sorted(missing)}"


@every_example
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_keeps_dtype_and_device_and_is_finite(example, dtype, device):
    results = float_leaves(example.function(**arguments(example, dtype, device)))
    for result in results:
        assert result.dtype == dtype
        assert result.device.type == device
        assert torch.isfinite(result).all()


@every_example
def test_leaves_its_inputs_alone(example):
    given, fresh = (arguments(example, torch.float64) for _ in range(2))
    example.function(**given)
    for name in given:
        for left, right in zip(pytree.tree_leaves(given[name]), pytree.tree_leaves(fresh[name]), strict=True):
            if isinstance(left, torch.Tensor):
                assert torch.equal(left, right), f"{name} was changed in place"


@every_example
def test_float32_agrees_with_float64(example):
    """Single precision loses digits, not the meaning."""
    single = float_leaves(example.function(**arguments(example, torch.float32)))
    double = float_leaves(example.function(**arguments(example, torch.float64)))
    for left, right in zip(single, double, strict=True):
        torch.testing.assert_close(left.double(), right, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("example", [e for e in examples() if e.differentiable], ids=named)
def test_gradient_is_finite(example):
    given = arguments(example, torch.float64)
    inputs = {name: given[name].clone().requires_grad_() for name in example.differentiable}
    total = sum(x.sum() for x in float_leaves(example.function(**{**given, **inputs})))
    for name, gradient in zip(inputs, torch.autograd.grad(total, inputs.values()), strict=True):
        assert torch.isfinite(gradient).all(), f"gradient of {name}"


@pytest.mark.parametrize("example", [e for e in examples() if e.vmap], ids=named)
def test_vmap_equals_a_loop(example):
    calls = [arguments(example, torch.float64, seed=seed) for seed in range(3)]
    mapped = [name for name, value in calls[0].items() if isinstance(value, torch.Tensor)]
    fixed = {name: value for name, value in calls[0].items() if name not in mapped}
    stacked = [torch.stack([call[name] for call in calls]) for name in mapped]

    def one(*values):
        return example.function(**fixed, **dict(zip(mapped, values, strict=True)))

    together = torch.vmap(one, randomness="different")(*stacked)
    for index, call in enumerate(calls):
        alone = one(*(call[name] for name in mapped))
        for left, right in zip(float_leaves(together), float_leaves(alone), strict=True):
            torch.testing.assert_close(left[index], right, atol=1e-9, rtol=1e-7)
