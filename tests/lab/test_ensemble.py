"""An ensemble of S equals S separate runs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dlatlas import lab
from dlatlas.lab.run import Run
from dlatlas.models.cnn import CNN
from dlatlas.models.mlp import MLP, mlp
from dlatlas.models.vit import ViT

IMAGES = (3, 16, 16)
ARCHITECTURES = {
    "mlp": (lambda: mlp(12, 16, 5), (12,)),
    "cnn": (lambda: CNN((8, 16), 5, image_size=16, image_channels=3), IMAGES),
    "vit": (lambda: ViT(5, image_size=16, patch_size=4, image_channels=3, dim=16, depth=2, heads=2), IMAGES),
}
OPTIMISERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def separate_run(module, optimiser, x, y, seed, run, steps):
    """One seed trained by itself, on the batches that this seed sees in the ensemble."""
    optimiser = optimiser(module.parameters())
    for xs, ys in lab.batches(x, y, size=8, steps=steps, run=run):
        optimiser.zero_grad()
        F.cross_entropy(module(xs[seed]), ys[seed]).backward()
        optimiser.step()
    return dict(module.named_parameters())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ensemble_equals_separate_runs(architecture, optimiser, dtype):
    run = Run("theory/grokking", "cpu", 3, torch.device("cpu"))
    build, shape = ARCHITECTURES[architecture]
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, *shape, generator=generator, dtype=dtype), torch.randint(5, (32,), generator=generator)

    nets = lab.Ensemble(lambda: build().to(dtype), run)
    alone = [separate_run(nets.module(s), OPTIMISERS[optimiser], x, y, s, run, steps=50) for s in range(run.seeds)]
    lab.fit(
        nets,
        F.cross_entropy,
        lab.batches(x, y, size=8, steps=50, run=run),
        optimiser=OPTIMISERS[optimiser](nets.parameters()),
    )

    for name, stacked in nets.parameter_dict().items():
        for seed in range(run.seeds):
            assert (stacked[seed] - alone[seed][name]).abs().max() < TOLERANCE[dtype], name


def test_copies_differ_and_depend_on_their_seed_alone(run):
    nets = lab.Ensemble(lambda: mlp(4, 3), run)
    fewer = lab.Ensemble(lambda: mlp(4, 3), Run(run.chapter, "cpu", 2, run.device))
    weight = next(nets.parameters())
    assert not torch.equal(weight[0], weight[1])
    assert torch.equal(weight[:2], next(fewer.parameters()))


def test_building_leaves_the_global_random_state_alone(run):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    lab.Ensemble(lambda: mlp(4, 3), run)
    assert torch.equal(torch.rand(1), expected)


def test_shared_input(run):
    nets = lab.Ensemble(lambda: mlp(4, 3), run)
    x = torch.randn(5, 4)
    assert torch.equal(nets.shared(x), nets(x.expand(run.seeds, 5, 4)))


def test_module_and_functional_are_one_seed(run):
    nets = lab.Ensemble(lambda: mlp(4, 8, 3), run)
    x = torch.randn(5, 4)
    together = nets.shared(x)
    torch.testing.assert_close(nets.module(2)(x), together[2])
    torch.testing.assert_close(
        lab.per_seed(nets.functional)(nets.parameter_dict(), x.expand(run.seeds, 5, 4)), together
    )


def test_clone_is_independent(run):
    nets = lab.Ensemble(lambda: mlp(4, 3), run)
    twin = nets.clone()
    with torch.no_grad():
        next(nets.parameters()).add_(1)
    assert not torch.equal(next(nets.parameters()), next(twin.parameters()))
    assert all(p.requires_grad and p.is_leaf for p in twin.parameters())


class Tied(nn.Module):
    """An autoencoder whose decoder is the transposed encoder, kept in two places."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(self.encoder(x).relu())


def test_tied_weights_stay_tied(run):
    nets = lab.Ensemble(Tied, run)
    x = torch.randn(run.seeds, 6, 4)
    assert len(list(nets.parameters())) == 3
    expected = torch.stack([nets.module(seed)(x[seed]) for seed in range(run.seeds)])
    torch.testing.assert_close(nets(x), expected)


def test_a_call_leaves_no_trace_in_the_networks_parts(run):
    nets = lab.Ensemble(lambda: mlp(4, 8, 3), run)
    with pytest.raises(ValueError, match="x"):
        nets(torch.randn(run.seeds, 6, 5))
    assert type(nets.module(0)[0].weight) is nn.Parameter


def test_dropout_differs_between_seeds_and_stops_in_eval(run):
    nets = lab.Ensemble(lambda: nn.Sequential(nn.Dropout(0.5)), run)
    ones = torch.ones(run.seeds, 1, 64)
    dropped = nets(ones)
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(nets.eval()(ones), ones)


def test_batch_statistics_are_per_seed(run):
    nets = lab.Ensemble(lambda: nn.Sequential(nn.BatchNorm1d(2)), run)
    x = torch.arange(4.0)[:, None, None] + torch.randn(run.seeds, 256, 2)
    nets(x)
    running = nets.buffer_dict()["0.running_mean"]
    torch.testing.assert_close(running, 0.1 * x.mean(1))


class Branching(nn.Module):
    """Control flow that depends on data, which vmap refuses."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else -self.linear(x)


def test_falls_back_to_a_loop_and_says_so_once(run, recwarn):
    nets = lab.Ensemble(Branching, run)
    x = torch.randn(run.seeds, 5, 4)
    with pytest.warns(UserWarning, match="looping over 4 seeds"):
        together = nets(x)
    recwarn.clear()
    for seed in range(run.seeds):
        torch.testing.assert_close(nets(x)[seed], nets.module(seed)(x[seed]))
    assert torch.equal(together, nets(x))
    assert not [w for w in recwarn if "looping" in str(w.message)]


def test_the_networks_own_error_is_raised(run):
    nets = lab.Ensemble(lambda: mlp(4, 3), run)
    with pytest.raises(ValueError, match="x must have shape"):
        nets(torch.randn(run.seeds, 5, 7))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 3, 4), (0, 4)], ids=str)
def test_networks_that_take_stacked_parameters_equal_their_modules(run, shape, bias):
    nets = lab.Ensemble(lambda: mlp(4, 8, 8, 3, activation="tanh", bias=bias), run)
    assert nets.module(0).stackable
    x = torch.randn(run.seeds, *shape)
    expected = torch.stack([nets.module(seed)(x[seed]) for seed in range(run.seeds)])
    torch.testing.assert_close(nets(x), expected)
    torch.testing.assert_close(nets.shared(x[1])[2], nets.module(2)(x[1]))


def test_gradients_of_stacked_parameters_need_no_copy_into_their_layout(run):
    nets = lab.Ensemble(lambda: mlp(4, 8, 8, 3), run)
    for name, gradient in zip(
        nets.parameter_dict(),
        torch.autograd.grad(nets(torch.randn(run.seeds, 5, 4)).sum(), nets.parameters()),
        strict=True,
    ):
        assert gradient.is_contiguous(), name


def test_layers_that_cannot_be_stacked_are_mapped(run):
    nets = lab.Ensemble(
        lambda: MLP(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3)), run
    )
    assert not nets.module(0).stackable
    x = torch.randn(run.seeds, 5, 4)
    torch.testing.assert_close(nets(x)[1], nets.module(1)(x[1]))


def test_parametrised_layers_are_mapped(run):
    """A weight norm that is given stacked weights would take the norm over the seeds."""

    def build():
        network = mlp(4, 8, 3)
        nn.utils.parametrizations.weight_norm(network[0])
        return network

    nets = lab.Ensemble(build, run)
    assert not nets.module(0).stackable
    x = torch.randn(run.seeds, 5, 4)
    expected = torch.stack([nets.module(seed)(x[seed]) for seed in range(run.seeds)])
    torch.testing.assert_close(nets(x), expected)


@pytest.mark.parametrize(
    "build", [lambda: mlp(4, 3), lambda: nn.Sequential(nn.Linear(4, 3))], ids=["stacked", "mapped"]
)
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4), ()], ids=str)
def test_an_input_without_a_row_for_each_seed_is_refused(run, build, shape):
    with pytest.raises(ValueError, match=r"inputs must have shape \(4, ...\), one row for each seed, got"):
        lab.Ensemble(build, run)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3), (6, 5, 3, 2)], ids=str)
@pytest.mark.parametrize("ignored", [0, 2])
def test_cross_entropy_per_seed_equals_one_call_a_seed(shape, ignored):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(shape[1], (3, shape[0], *shape[2:]), generator=generator)
    labels[1, :ignored] = -100
    together = lab.per_seed(F.cross_entropy)(logits, labels)
    alone = torch.stack([F.cross_entropy(z, y) for z, y in zip(logits, labels, strict=True)])
    torch.testing.assert_close(together, alone)
    gradients = [torch.autograd.grad((result**2).sum(), logits)[0] for result in (together, alone)]
    torch.testing.assert_close(*gradients)


def test_other_calls_of_cross_entropy_are_mapped():
    logits, labels = torch.randn(3, 6, 5), torch.arange(18).view(3, 6) % 5
    smoothed = lab.per_seed(F.cross_entropy)(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(smoothed[1], F.cross_entropy(logits[1], labels[1], label_smoothing=0.1))
    probable = lab.per_seed(F.cross_entropy)(logits, logits.softmax(-1))
    torch.testing.assert_close(probable[2], F.cross_entropy(logits[2], logits[2].softmax(-1)))
    single = lab.per_seed(F.cross_entropy)(logits[:, 0], labels[:, 0])
    torch.testing.assert_close(single[0], F.cross_entropy(logits[0, 0], labels[0, 0]))


def test_per_seed_maps_trees_and_passes_settings():
    def scaled(pair, offset, *, by):
        return by * pair["a"].sum() + pair["b"] + offset

    pair = {"a": torch.ones(3, 2), "b": torch.arange(3.0)}
    assert lab.per_seed(scaled)(pair, 10.0, by=2).tolist() == [14.0, 15.0, 16.0]


def test_clip_grad_norm_equals_torch_for_each_seed(run):
    nets = lab.Ensemble(lambda: mlp(4, 3), run)
    for scale, p in enumerate(nets.parameters(), start=1):
        p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(scale))
    alone = []
    for seed in range(run.seeds):
        module = nets.module(seed)
        for p, stacked in zip(module.parameters(), nets.parameters(), strict=True):
            p.grad = stacked.grad[seed].clone()
        alone.append((torch.nn.utils.clip_grad_norm_(module.parameters(), 2.0), [p.grad for p in module.parameters()]))
    norms = lab.clip_grad_norm(nets, 2.0)
    for seed, (norm, gradients) in enumerate(alone):
        torch.testing.assert_close(norms[seed], norm)
        for p, gradient in zip(nets.parameters(), gradients, strict=True):
            torch.testing.assert_close(p.grad[seed], gradient, rtol=1e-5, atol=1e-6)
