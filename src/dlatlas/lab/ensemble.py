"""All seeds of one arm as a single stacked model."""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from dlatlas.lab.run import Run

IGNORED = -100  # the label that torch's cross-entropy leaves out


class Ensemble:
    """S independently initialised copies of a network, their parameters stacked to (S, ...).

    Copy s is built with the global random state seeded for s alone, so it does not depend on how many copies there are,
    and two ensembles from the same factory start equal. Any elementwise optimiser trains all copies at once: the
    gradient of the summed loss with respect to copy s is the gradient of its own loss.

    Parameters
    ----------
    factory
        Builds one copy, a plain ``torch.nn.Module``.
    run
        Gives the number of seeds S and the device.

    Notes
    -----
    The copies run together through ``torch.func.vmap``. A network whose attribute ``stackable`` is true takes stacked
    parameters and inputs by itself (`dlatlas.models.mlp.MLP` does) and is called once, which is faster. A network that
    vmap cannot take (control flow that depends on data) is run in a loop over seeds instead, with the same results and
    interface; a warning says so once.
    """

    def __init__(self, factory: Callable[[], nn.Module], run: "Run"):
        modules = [_build(factory, run, seed) for seed in range(run.seeds)]
        self._stack(modules)

    def _stack(self, modules: list[nn.Module]) -> None:
        self._template = modules[0]
        self._parameters, self._buffers = torch.func.stack_module_state(modules)
        self._slots = _slots(self._template)
        self.seeds = len(modules)
        self._looped = False

    def __call__(self, *inputs: Tensor) -> Any:
        """Apply copy s to row s of every input: (S, n, ...) to (S, n, ...).

        Raises
        ------
        ValueError
            If the first axis of an input does not have one entry for each seed.
        """
        for x in inputs:
            if x.shape[:1] != (self.seeds,):
                raise ValueError(
                    f"inputs must have shape ({self.seeds}, ...), one row for each seed, got {tuple(x.shape)}"
                )
        return self._apply(inputs, in_dim=0)

    def shared(self, *inputs: Tensor) -> Any:
        """Apply every copy to the same input: (n, ...) to (S, n, ...)."""
        return self._apply(inputs, in_dim=None)

    def functional(self, parameters: dict[str, Tensor], *inputs: Tensor) -> Any:
        """Apply the network of one seed with the given parameters, for ``torch.func.grad`` and its relatives.

        Buffers are those of seed 0.
        """
        buffers = {name: value[0] for name, value in self._buffers.items()}
        return torch.func.functional_call(self._template, (parameters, buffers), inputs)

    def parameters(self) -> Iterator[Tensor]:
        """The stacked parameters, for an optimiser."""
        return iter(self._parameters.values())

    def parameter_dict(self) -> dict[str, Tensor]:
        """The stacked parameters by name, each (S, ...)."""
        return dict(self._parameters)

    def buffer_dict(self) -> dict[str, Tensor]:
        """The stacked buffers (running statistics, masks) by name, each (S, ...)."""
        return dict(self._buffers)

    def module(self, seed: int) -> nn.Module:
        """A plain network that holds a copy of one seed's parameters and buffers."""
        module = copy.deepcopy(self._template)
        stacked = self._parameters | self._buffers
        with torch.no_grad():
            for name, value in [*module.named_parameters(), *module.named_buffers()]:
                value.copy_(stacked[name][seed])
        return module

    def clone(self) -> "Ensemble":
        """An independent copy of the whole ensemble: a teacher, a snapshot, a restart."""
        twin = copy.copy(self)
        twin._template = copy.deepcopy(self._template)
        twin._slots = _slots(twin._template)
        twin._parameters = {k: v.detach().clone().requires_grad_(v.requires_grad) for k, v in self._parameters.items()}
        twin._buffers = {k: v.detach().clone() for k, v in self._buffers.items()}
        return twin

    def train(self, mode: bool = True) -> "Ensemble":
        """Switch every copy to training (or evaluation) mode."""
        self._template.train(mode)
        return self

    def eval(self) -> "Ensemble":
        """Switch every copy to evaluation mode."""
        return self.train(False)

    def _apply(self, inputs: tuple[Tensor, ...], in_dim: int | None) -> Any:
        if not self._looped:
            try:
                return self._together(inputs, in_dim)
            except RuntimeError as error:
                result = self._one_by_one(inputs, in_dim)  # an error of the network itself is raised again here
                self._looped = True
                network, reason = type(self._template).__name__, str(error).splitlines()[0]
                warnings.warn(f"vmap cannot run {network}; looping over {self.seeds} seeds ({reason})", stacklevel=3)
                return result
        return self._one_by_one(inputs, in_dim)

    def _together(self, inputs: tuple[Tensor, ...], in_dim: int | None) -> Any:
        state = self._state()
        if getattr(self._template, "stackable", False):
            return self._call(*state, *(x if in_dim == 0 else x.expand(self.seeds, *x.shape) for x in inputs))
        in_dims = (*[0] * len(state), *[in_dim] * len(inputs))
        return torch.vmap(self._call, in_dims=in_dims, randomness="different")(*state, *inputs)

    def _one_by_one(self, inputs: tuple[Tensor, ...], in_dim: int | None) -> Any:
        results = []
        for seed in range(self.seeds):
            own = inputs if in_dim is None else [x[seed] for x in inputs]
            results.append(self._call(*(value[seed] for value in self._state()), *own))
        return pytree.tree_map(lambda *leaves: torch.stack(leaves), *results)

    def _state(self) -> list[Tensor]:
        return [*self._parameters.values(), *self._buffers.values()]

    def _call(self, *values: Tensor) -> Any:
        """Apply the network of one seed: its parameters and buffers, then the inputs.

        It is `torch.func.functional_call` without the names: for a small network, finding them again in every call
        takes a tenth of the time of the call.
        """
        before = [place[name] for place, name, _ in self._slots]
        try:
            for place, name, position in self._slots:
                place[name] = values[position]
            return self._template(*values[len(self._parameters) + len(self._buffers) :])
        finally:
            for (place, name, _), value in zip(self._slots, before, strict=True):
                place[name] = value


def _slots(module: nn.Module) -> list[tuple[dict[str, Any], str, int]]:
    """Every place where a network keeps a parameter or buffer, with its position in the state; ties share one."""
    state = [*module.parameters(), *module.buffers()]
    position = {id(tensor): number for number, tensor in enumerate(state)}
    places = [place for part in module.modules() for place in (part._parameters, part._buffers)]
    kept = [(place, name, value) for place in places for name, value in place.items() if value is not None]
    return [(place, name, position[id(value)]) for place, name, value in kept]


def per_seed(function: Callable) -> Callable:
    """Map a function of one seed over the leading seed axis of every tensor argument.

    Trees of tensors are mapped leaf by leaf; arguments that hold no tensor, and all keyword arguments, are the same for
    every seed. Random draws inside the function differ from seed to seed.

    Notes
    -----
    The function runs through ``torch.func.vmap``. The cross-entropy of integer labels, the loss of most chapters, is
    computed without it, with the same values: mapped, it takes a quarter of a small network's training step.
    """

    @functools.wraps(function)
    def mapped(*arguments, **settings):
        if function is F.cross_entropy and not settings and _are_logits_and_labels(*arguments):
            return _cross_entropy(*arguments)
        in_dims = pytree.tree_map(lambda leaf: 0 if isinstance(leaf, Tensor) else None, arguments)
        return torch.vmap(functools.partial(function, **settings), in_dims=in_dims, randomness="different")(*arguments)

    return mapped


def _are_logits_and_labels(*arguments: Any) -> bool:
    tensors = len(arguments) == 2 and all(isinstance(argument, Tensor) for argument in arguments)
    return tensors and arguments[0].dim() == arguments[1].dim() + 1 >= 3 and not arguments[1].is_floating_point()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each seed: logits (S, n, k, ...), labels (S, n, ...), result (S,)."""
    losses = F.cross_entropy(logits.movedim(2, 1), labels, reduction="none").flatten(1)
    return losses.sum(1) / (labels != IGNORED).flatten(1).sum(1)


def clip_grad_norm(nets: Ensemble, max_norm: float) -> Tensor:
    """Scale the gradient of each seed down to norm ``max_norm`` where it is longer; return the norms before, (S,)."""
    gradients = [p.grad for p in nets.parameters() if p.grad is not None]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    scale = (max_norm / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
    return norms


def _build(factory: Callable[[], nn.Module], run: "Run", seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(run.generator("initialisation", seed).initial_seed())
        return factory().to(run.device)
