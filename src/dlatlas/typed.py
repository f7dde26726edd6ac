"""Shapes and dtypes in signatures, checked at run time."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

F = TypeVar("F", bound=Callable)

# With the numeric tower an int is welcome where a float is asked for: temperature=1 means 1.0.
_checker = beartype(conf=BeartypeConf(is_pep484_tower=True))


def typed(function: F) -> F:
    """Check jaxtyping annotations on every call, except while ``torch.compile`` traces.

    A wrong shape, dtype or type raises ``jaxtyping.TypeCheckError``, whose message names the argument, what was
    expected and what came.
    """
    checked = jaxtyped(typechecker=_checker)(function)

    @functools.wraps(function)
    def call(*args, **kwargs):
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return checked(*args, **kwargs)

    return call
