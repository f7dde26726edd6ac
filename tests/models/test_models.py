"""Shapes, parity of stacked networks with single ones, what each architecture must not see, and refused input."""

import jaxtyping
import pytest
import torch
from torch.func import functional_call, stack_module_state

from dlatlas.models.cnn import CNN
from dlatlas.models.mlp import ACTIVATIONS, mlp
from dlatlas.models.transformer import Transformer
from dlatlas.models.vit import ViT, patchify

SEEDS, BATCH = 3, 5


def images(*leading, channels=1, size=8):
    return torch.randn(*leading, channels, size, size)


def tokens(*leading, vocabulary=11, length=6):
    return torch.randint(vocabulary, (*leading, length))


NETWORKS = {
    "mlp": (lambda: mlp(7, 16, 16, 4), lambda *n: torch.randn(*n, 7), (4,)),
    "mlp-tanh-no-bias": (lambda: mlp(7, 16, 4, activation="tanh", bias=False), lambda *n: torch.randn(*n, 7), (4,)),
    "cnn": (lambda: CNN((8, 16), 4), images, (4,)),
    "cnn-colour": (
        lambda: CNN((8, 8), 4, image_size=9, image_channels=3, groups=0),
        lambda *n: images(*n, channels=3, size=9),
        (4,),
    ),
    "vit": (lambda: ViT(4, dim=16, heads=2), images, (4,)),
    "decoder": (lambda: Transformer(11, 6, dim=16, depth=2), tokens, (6, 11)),
    "encoder": (lambda: Transformer(11, 8, dim=16, causal=False, outputs=3), tokens, (6, 3)),
}
every_network = pytest.mark.parametrize(("make", "draw", "output"), NETWORKS.values(), ids=NETWORKS.keys())


@pytest.fixture(autouse=True)
def _fixed_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@every_network
def test_output_shape(make, draw, output):
    assert make()(draw(BATCH)).shape == (BATCH, *output)


@every_network
def test_logits_are_the_last_layer_of_the_features(make, draw, output):
    network, x = make(), draw(BATCH)
    head = network[-1] if hasattr(network, "__getitem__") else network.head
    torch.testing.assert_close(head(network.features(x)), network(x))


@every_network
def test_stacked_networks_equal_single_ones(make, draw, output):
    """Outputs and gradients, in float64, so that nothing but the arithmetic is compared."""
    networks = [make().double() for _ in range(SEEDS)]
    x = draw(SEEDS, BATCH)
    x = x.double() if x.is_floating_point() else x
    parameters, buffers = stack_module_state(networks)
    assert not buffers

    def call(parameters, x):
        return functional_call(networks[0], parameters, x)

    together = torch.vmap(call)(parameters, x)
    together.square().sum().backward()
    for seed, network in enumerate(networks):
        alone = network(x[seed])
        torch.testing.assert_close(together[seed], alone, atol=1e-12, rtol=1e-10)
        alone.square().sum().backward()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameters[name].grad[seed], parameter.grad, atol=1e-10, rtol=1e-8)


@every_network
@pytest.mark.filterwarnings("error:There is a performance drop")
def test_vmap_runs_no_network_one_by_one(make, draw, output):
    networks = [make() for _ in range(SEEDS)]
    parameters, _ = stack_module_state(networks)
    torch.vmap(lambda p, x: functional_call(networks[0], p, x))(parameters, draw(SEEDS, BATCH)).sum().backward()


@every_network
def test_linearises(make, draw, output):
    """Forward-mode derivatives, which the neural tangent kernel needs, agree with reverse mode."""
    network, x = make().double(), draw(2)
    x = x.double() if x.is_floating_point() else x
    parameters = dict(network.named_parameters())
    direction = {name: torch.randn_like(value) for name, value in parameters.items()}
    value, slope = torch.func.jvp(lambda p: functional_call(network, p, x), (parameters,), (direction,))
    cotangent = torch.randn_like(value)
    gradients = torch.autograd.grad(network(x), list(parameters.values()), cotangent)
    reverse = sum((g * d).sum() for g, d in zip(gradients, direction.values(), strict=True))
    torch.testing.assert_close((slope * cotangent).sum(), reverse)


@every_network
def test_samples_do_not_see_each_other(make, draw, output):
    network, x = make().double(), draw(BATCH)
    x = x.double() if x.is_floating_point() else x
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]))


def test_mlp_is_the_formula():
    network, x = mlp(3, 5, 2, activation="tanh").double(), torch.randn(4, 3, dtype=torch.float64)
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in (network[0], network[2]))
    torch.testing.assert_close(network(x), torch.tanh(x @ w1.T + b1) @ w2.T + b2)


def test_mlp_with_identity_activation_is_linear():
    network, x = mlp(3, 5, 5, 2, activation="identity", bias=False), torch.randn(4, 3)
    torch.testing.assert_close(network(x), x @ (network[4].weight @ network[2].weight @ network[0].weight).T)


def test_mlp_dropout_acts_in_training_only():
    network, x = mlp(3, 200, 2, dropout=0.5), torch.randn(4, 3)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_builds(name):
    assert mlp(3, 5, 2, activation=name)(torch.randn(4, 3)).isfinite().all()


def test_cnn_parameter_count():
    """Two stages: 1·16·9+16, normalisation 2·16, 16·32·9+32, normalisation 2·32; head (32·2·2)·10+10."""
    assert count(CNN()) == 144 + 16 + 32 + 4608 + 32 + 64 + 1280 + 10


@pytest.mark.parametrize(("size", "patch", "channels", "dim", "depth"), [(8, 2, 1, 16, 1), (12, 4, 3, 24, 3)])
def test_vit_parameter_count(size, patch, channels, dim, depth):
    """Patches (cs² + 1)d, class token d, positions (1 + p)d, blocks 12d² + 10d, last norm 2d, head (d + 1)K."""
    network = ViT(7, image_size=size, patch_size=patch, image_channels=channels, dim=dim, depth=depth)
    patches = (size // patch) ** 2
    outside = (channels * patch**2 + 1) * dim + dim + (1 + patches) * dim + 2 * dim + (dim + 1) * 7
    assert count(network) == outside + depth * (12 * dim**2 + 10 * dim)


def test_patches_are_in_reading_order():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    expected = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]], dtype=torch.float32)
    assert torch.equal(patchify(image, 2)[0], expected)


def test_patches_hold_all_channels():
    image = torch.randn(2, 3, 4, 6)
    assert torch.equal(patchify(image, 2)[1, 4], image[1, :, 2:4, 2:4].flatten())


def test_vit_without_positions_does_not_know_the_order_of_patches():
    network = ViT(4, dim=16, heads=2).double()
    image = images(2).double()
    swapped = image.clone()
    swapped[..., :2, :2], swapped[..., 2:4, 4:6] = image[..., 2:4, 4:6], image[..., :2, :2]
    assert not torch.allclose(network(image), network(swapped))
    torch.nn.init.zeros_(network.positions)
    torch.testing.assert_close(network(image), network(swapped))


def test_causal_transformer_does_not_see_the_future():
    network, sequence = Transformer(11, 6, dim=16, depth=2).double(), tokens(1)
    for position in range(6):
        changed = sequence.clone()
        changed[:, position] = (changed[:, position] + 1) % 11
        difference = (network(sequence) - network(changed)).abs().amax((0, 2))
        assert (difference[:position] == 0).all()
        assert (difference[position:] > 0).all()


def test_encoder_sees_every_position():
    network, sequence = Transformer(11, 6, dim=16, causal=False).double(), tokens(1)
    changed = sequence.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 11
    assert ((network(sequence) - network(changed)).abs().amax((0, 2)) > 0).all()


def test_attention_equals_the_library_function():
    """The written-out attention against PyTorch's fused one."""
    attention = Transformer(11, 6, dim=16, heads=2).double().blocks[0].attention
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    query, key, value = (
        part.unflatten(-1, (2, 8)).transpose(1, 2) for part in attention.query_key_value(x).chunk(3, -1)
    )
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(attention(x), attention.output(mixed.transpose(1, 2).flatten(-2)))


def test_transformer_takes_shorter_sequences():
    network, sequence = Transformer(11, 6, dim=16), tokens(2)
    torch.testing.assert_close(network(sequence[:, :4]), network(sequence)[:, :4])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mlp(3), "number of widths must be at least 2, got 1"),
        (lambda: mlp(3, 0, 2), "width must be at least 1, got 0"),
        (lambda: mlp(3, 2, activation="swish"), "activation must be one of .*got 'swish'"),
        (lambda: mlp(3, 2, dropout=1.5), r"dropout must lie in \[0, 1\], got 1.5"),
        (lambda: CNN(()), "number of stages must be at least 1"),
        (lambda: CNN((8, 0)), "smallest of channels must be at least 1, got 0"),
        (lambda: CNN((8, 10)), "groups must divide every number of channels, got groups=4 and channels=10"),
        (lambda: CNN(image_size=3), "image_size must be at least 4, got 3"),
        (lambda: ViT(image_size=9), "image_size must be a multiple of patch_size=2, got 9"),
        (lambda: ViT(dim=10, heads=4), "dim must be a multiple of heads, got dim=10 and heads=4"),
        (lambda: ViT(depth=0), "depth must be at least 1, got 0"),
        (lambda: Transformer(0, 6), "vocabulary must be at least 1, got 0"),
        (lambda: Transformer(5, 6, heads=0), "heads must be at least 1, got 0"),
        (
            lambda: patchify(torch.zeros(1, 1, 4, 5), 2),
            "images must have sides that are multiples of patch_size=2, got 4×5",
        ),
    ],
)
def test_senseless_sizes_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("network", "x", "message"),
    [
        (mlp(7, 4), torch.zeros(2, 6), r"x must have shape \(..., 7\), got \(2, 6\)"),
        (CNN(), torch.zeros(2, 3, 8, 8), r"x must have shape \(..., 1, 8, 8\), got \(2, 3, 8, 8\)"),
        (ViT(), torch.zeros(2, 1, 6, 6), r"x must have shape \(..., 1, 8, 8\), got \(2, 1, 6, 6\)"),
        (Transformer(5, 3), torch.zeros(2, 4, dtype=torch.int64), "tokens must have at most 3 positions, got 4"),
        (Transformer(5, 3), torch.full((2, 3), 5), r"tokens must lie in \[0, 4\], got 5"),
    ],
)
def test_input_of_the_wrong_size_is_refused(network, x, message):
    with pytest.raises(ValueError, match=message):
        network(x)


@pytest.mark.parametrize(
    ("network", "x", "argument"),
    [
        (mlp(7, 4), torch.zeros(2, 7, dtype=torch.int64), "x"),
        (CNN(), torch.zeros(2, 8, 8), "x"),
        (ViT(), torch.zeros(1, 8, 8), "x"),
        (Transformer(5, 3), torch.zeros(2, 3), "tokens"),
    ],
)
def test_input_of_the_wrong_kind_is_refused(network, x, argument):
    with pytest.raises(jaxtyping.TypeCheckError, match=f"parameter '{argument}'"):
        network(x)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())
