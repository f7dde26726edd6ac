"""Networks that answer from a prompt: the formula, what they must not see, parity of ensembles, refused input."""

import jaxtyping
import pytest
import torch

from dlatlas import lab
from dlatlas.data.in_context import icl_regression_batch
from dlatlas.lab.run import Run
from dlatlas.models.in_context import ICLTransformer, LinearSelfAttention


@pytest.fixture(autouse=True)
def _fixed_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def prompts(B=5, n=6, d=3):
    return icl_regression_batch(B, n, d, noise=0.1, generator=torch.Generator().manual_seed(1))


def test_linear_attention_is_the_formula():
    layer, (X, y, xq, _) = LinearSelfAttention(3).double(), (t.double() for t in prompts())
    v, q = torch.cat([X, y[..., None]], -1), torch.cat([xq, torch.zeros(5, 1)], -1)
    expected = [sum((layer.u @ v_i) * (q_b @ layer.M @ v_i) for v_i in v_b) for v_b, q_b in zip(v, q, strict=True)]
    torch.testing.assert_close(layer(X, y, xq), torch.stack(expected))


def test_transformer_sees_no_label_before_it_has_answered():
    network, (X, y, _, _) = ICLTransformer(3).double(), (t.double() for t in prompts())
    changed = y.clone()
    changed[:, 3] += 1
    for before, after in zip(network(X, y), network(X, changed), strict=True):
        assert torch.equal(before[:, :4], after[:, :4])
        assert (before[:, 4:] != after[:, 4:]).any()


def test_transformer_sees_no_later_input():
    network, (X, y, _, _) = ICLTransformer(3).double(), (t.double() for t in prompts())
    changed = X.clone()
    changed[:, 3] += 1
    for before, after in zip(network(X, y), network(changed, y), strict=True):
        assert torch.equal(before[:, :3], after[:, :3])
        assert (before[:, 3] != after[:, 3]).all()


def test_transformer_takes_any_length():
    network, (X, y, _, _) = ICLTransformer(3).double(), (t.double() for t in prompts())
    torch.testing.assert_close(network(X[:, :4], y[:, :4])[0], network(X, y)[0][:, :4])


def test_standard_deviations_are_positive():
    network, (X, y, _, _) = ICLTransformer(3), prompts()
    with torch.no_grad():
        network.head.bias[1] = -200
    assert network(X, y)[1].min() > 0


def answers(network, X, y, xq):
    return network(X, y, xq)


def means(network, X, y, xq):
    return network(X, y)[0]


@pytest.mark.filterwarnings("error:There is a performance drop")
@pytest.mark.parametrize(
    ("build", "output"), [(lambda: LinearSelfAttention(3), answers), (lambda: ICLTransformer(3, width=8), means)]
)
def test_ensemble_equals_separate_runs(build, output):
    run = Run("theory/grokking", "cpu", 3, torch.device("cpu"))
    X, y, xq, yq = (t.double() for t in prompts(B=24))
    nets = lab.Ensemble(lambda: build().double(), run)
    alone = [nets.module(seed) for seed in range(run.seeds)]

    def train(network, parameters, batches):
        optimiser = torch.optim.Adam(parameters, lr=1e-3)
        for xs, ys, xqs, yqs in batches:
            loss = (output(network, xs, ys, xqs) - (yqs if output is answers else ys)).square().flatten(-1).mean(-1)
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()

    batches = list(lab.batches(X, y, xq, yq, size=8, steps=20, run=run))
    for seed, module in enumerate(alone):
        train(module, module.parameters(), [[t[seed] for t in batch] for batch in batches])
    train(nets, nets.parameters(), batches)
    for name, stacked in nets.parameter_dict().items():
        for seed, module in enumerate(alone):
            assert (stacked[seed] - module.get_parameter(name)).abs().max() < 1e-9, name


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearSelfAttention(0), "d must be at least 1"),
        (lambda: ICLTransformer(0), "d must be at least 1"),
        (lambda: ICLTransformer(2, layers=0), "layers must be at least 1"),
        (lambda: ICLTransformer(2, width=9, heads=2), "dim must be a multiple of heads"),
    ],
)
def test_senseless_sizes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_prompts_of_the_wrong_size_are_refused():
    X, y, xq, _ = prompts()
    with pytest.raises(ValueError, match="X must have shape"):
        LinearSelfAttention(4)(X, y, xq)
    with pytest.raises(ValueError, match="X must have shape"):
        ICLTransformer(4)(X, y)
    with pytest.raises(jaxtyping.TypeCheckError):
        LinearSelfAttention(3)(X, y[:, :-1], xq)
