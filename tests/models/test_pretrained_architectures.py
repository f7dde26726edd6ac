"""The masked autoencoder, CLIP, the diffusion model and the language model: what holds for any weights."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlatlas.models.clip import CLIP
from dlatlas.models.diffusion import Diffusion, cosine_schedule, to_unit
from dlatlas.models.language_model import LanguageModel
from dlatlas.models.masked_autoencoder import MaskedAutoencoder, unpatchify
from dlatlas.models.vit import patchify


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n: int = 3, size: int = 8) -> Tensor:
    return torch.rand(n, 3, size, size)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def small_autoencoder() -> MaskedAutoencoder:
    return MaskedAutoencoder(image_size=8, patch_size=2, hidden=12, dim=16, depth=1, decoder_dim=8)


def small_clip() -> CLIP:
    return CLIP(("a", "red", "star", "ring"), 5, dimension=6, image_size=8, channels=(8, 8), dim=16)


def small_diffusion(levels: int = 50) -> Diffusion:
    return Diffusion(3, image_size=8, channels=(8, 8), depth=1, condition=8, levels=levels)


def small_language_model() -> LanguageModel:
    return LanguageModel(("|", "a", "red", "star", "."), 6, dim=16, depth=1)


def test_unpatchify_puts_patches_back():
    x = images()
    torch.testing.assert_close(unpatchify(patchify(x, 2), 2), x)
    grey = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(unpatchify(patchify(grey, 3), 3, 1), grey)


@pytest.mark.parametrize("shape", [(2, 5, 12), (2, 4, 11)])
def test_patches_of_no_square_image_are_refused(shape):
    with pytest.raises(ValueError, match="patches must"):
        unpatchify(torch.rand(shape), 2)


def test_mask_hides_as_many_patches_in_every_image_and_any_of_them():
    mask = small_autoencoder().random_mask(500, generator())
    assert (mask.sum(1) == 12).all()
    assert (mask.float().mean(0) - 0.75).abs().max() < 0.1


def test_hidden_patches_do_not_reach_the_prediction():
    model, x = small_autoencoder(), images()
    mask = model.random_mask(3, generator())
    others, patches = torch.rand(3, 16, 12), patchify(x, 2)
    hidden_changed, visible_changed = (
        unpatchify(torch.where(where[..., None], others, patches), 2) for where in (mask, ~mask)
    )
    torch.testing.assert_close(model(hidden_changed, mask), model(x, mask))
    assert not torch.allclose(model(visible_changed, mask), model(x, mask), atol=1e-3)


def test_visible_patches_are_told_apart_by_their_place():
    model, x = small_autoencoder(), images(1)
    masks = model.random_mask(2, generator())
    assert not torch.allclose(model(x, masks[:1]), model(x, masks[1:]))


def test_error_counts_hidden_patches_only():
    model, x = small_autoencoder(), images()
    mask = model.random_mask(3, generator())
    errors = [
        (model(x, mask)[i, p] - patchify(x, 2)[i, p]).square().mean() for i in range(3) for p in range(16) if mask[i, p]
    ]
    torch.testing.assert_close(model.loss(x, mask), torch.stack(errors).mean())


def test_reconstruction_keeps_what_is_visible():
    model, x = small_autoencoder(), images()
    mask = model.random_mask(3, generator())
    patches = patchify(model.reconstruct(x, mask), 2)
    torch.testing.assert_close(patches[~mask], patchify(x, 2)[~mask])
    torch.testing.assert_close(patches[mask], model(x, mask)[mask])


def test_mask_that_hides_another_number_of_patches_is_refused():
    model = small_autoencoder()
    with pytest.raises(ValueError, match=r"hidden patches of an image must lie in \[12, 12\], got 16"):
        model(images(), torch.ones(3, 16, dtype=torch.bool))


@pytest.mark.parametrize("hidden", [0, 16])
def test_nothing_hidden_or_nothing_visible_is_refused(hidden):
    with pytest.raises(ValueError, match=r"hidden must lie in \[1, 15\]"):
        MaskedAutoencoder(image_size=8, patch_size=2, hidden=hidden)


def test_both_towers_give_unit_vectors():
    model = small_clip()
    tokens = model.tokenise(["a red star", "a ring"])
    torch.testing.assert_close(model.encode_image(images()).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(model.encode_text(tokens).norm(dim=1), torch.ones(2))
    cosines = model.encode_image(images(size=8)[:1]) @ model.encode_text(tokens).T
    assert cosines.abs().max() <= 1


def test_logits_are_scaled_cosines_and_zero_shot_is_their_softmax():
    model, x, texts = small_clip(), images(), ["a red star", "a ring"]
    tokens = model.tokenise(texts)
    cosines = [[F.cosine_similarity(u, v, dim=0) for v in model.encode_text(tokens)] for u in model.encode_image(x)]
    expected = model.log_scale.exp() * torch.stack([torch.stack(row) for row in cosines])
    torch.testing.assert_close(model(x, tokens), expected)
    torch.testing.assert_close(model.zero_shot(x, texts), expected.softmax(1))


def test_contrastive_loss_is_that_of_both_directions():
    model, x = small_clip(), images(2)
    tokens = model.tokenise(["a red star", "a ring"])
    logits = model(x, tokens)
    terms = [logits[i, i] - logits[i].logsumexp(0) for i in range(2)]
    terms += [logits[i, i] - logits[:, i].logsumexp(0) for i in range(2)]
    torch.testing.assert_close(model.loss(x, tokens), -torch.stack(terms).mean())


def test_scale_is_bounded():
    model = small_clip()
    with torch.no_grad():
        model.log_scale.fill_(10.0)
    assert model.scale == 100


def test_tokens_of_texts():
    assert small_clip().tokenise(["a red, red star."]).tolist() == [[1, 2, 2, 3, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a blue star", "got 'blue'"), ("a a a a a a", "1 to 5 words, got 6"), ("", "1 to 5 words, got 0")],
)
def test_texts_that_clip_cannot_read_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        small_clip().tokenise([text])


def test_cosine_schedule_falls_from_signal_to_noise():
    alpha_bar = cosine_schedule(1000)
    assert alpha_bar[0] > 0.999
    assert alpha_bar[-1] < 1e-4
    assert (alpha_bar.diff() < 0).all()
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, 501)]
    assert alpha_bar[500].item() == pytest.approx(f[1] / f[0], rel=1e-4)


def test_noised_images_have_the_variance_of_the_schedule():
    model = small_diffusion()
    t = torch.tensor([0, 25, 49])
    x0, noise = images(), torch.randn(3, 3, 8, 8)
    for i, x in enumerate(model.noised(x0, t, noise)):
        alpha = model.alpha_bar[t[i]]
        torch.testing.assert_close(x, alpha.sqrt() * x0[i] + (1 - alpha).sqrt() * noise[i])


def test_predicted_noise_and_predicted_image_explain_the_input():
    model = small_diffusion()
    x, t, label = torch.randn(3, 3, 8, 8), torch.tensor([3, 20, 45]), torch.tensor([0, 2, 3])
    torch.testing.assert_close(model.noised(model.denoised(x, t, label), t, model(x, t, label)), x)


def test_guidance_goes_from_the_unconditional_to_the_conditional_model_and_beyond():
    model = small_diffusion()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, t, label = torch.randn(3, 3, 8, 8), torch.tensor([3, 20, 45]), torch.tensor([0, 1, 2])
    given, without = model(x, t, label), model(x, t, torch.full_like(label, model.no_class))
    assert not torch.allclose(given, without)
    for scale, expected in ((0.0, without), (1.0, given), (3.0, 3 * given - 2 * without)):
        torch.testing.assert_close(model.guided(x, t, label, scale), expected, atol=1e-4, rtol=1e-4)


def predict(model: Diffusion, monkeypatch: pytest.MonkeyPatch, image: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Have the model predict a clean image that is a function of the input and of the schedule."""

    def velocity(x, t, label):
        alpha = model.alpha_bar[t][:, None, None, None]
        return (alpha.sqrt() * x - image(x, alpha)) / (1 - alpha).sqrt()

    monkeypatch.setattr(model, "velocity", velocity)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_sampler_ends_at_the_image_that_the_model_is_sure_of(eta, steps, monkeypatch):
    model, sure = small_diffusion(), images(2)
    predict(model, monkeypatch, lambda x, alpha: (2 * sure - 1).repeat(len(x) // 2, 1, 1, 1))
    drawn = model.sample(torch.tensor([0, 1]), generator=generator(), steps=steps, eta=eta)
    torch.testing.assert_close(drawn, sure, atol=1e-4, rtol=1e-4)


def test_sampler_keeps_the_distribution_of_gaussian_data(monkeypatch):
    """For data N(0, s²) the best prediction is known; both samplers must then give back that variance."""
    model, variance = small_diffusion(levels=400), 0.04
    model.image_size = 32

    predict(model, monkeypatch, lambda x, alpha: alpha.sqrt() * variance / (alpha * variance + 1 - alpha) * x)
    for eta in (0.0, 1.0):
        drawn = model.sample(torch.zeros(4, dtype=torch.long), generator=generator(), steps=400, eta=eta)
        assert (2 * drawn - 1).var().item() == pytest.approx(variance, rel=0.08)


def test_sampling_depends_on_the_generator_alone():
    model, label = small_diffusion(), torch.tensor([0, 1, 3])
    first, second = (model.sample(label, generator=generator(), steps=5, eta=1.0) for _ in range(2))
    torch.testing.assert_close(first, second)
    assert first.min() >= 0
    assert first.max() <= 1


def test_diffusion_loss_is_the_error_of_v():
    model, x, label = small_diffusion(), images(2), torch.tensor([0, 1])
    twin = generator()
    t = torch.randint(model.levels, (2,), generator=twin)
    torch.rand(2, generator=twin)
    noise, x0 = torch.randn(2, 3, 8, 8, generator=twin), 2 * x - 1
    alpha = model.alpha_bar[t][:, None, None, None]
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
    predicted = model.velocity(model.noised(x0, t, noise), t, label)
    errors = (predicted - velocity).square().mean()
    torch.testing.assert_close(model.loss(x, label, generator=generator(), dropout=0.0), errors)


def test_dropped_labels_are_those_of_no_class():
    model, x = small_diffusion(), images(2)
    losses = [model.loss(x, torch.tensor(label), generator=generator(), dropout=1.0) for label in ([0, 1], [2, 2])]
    torch.testing.assert_close(*losses)


def test_unit_images():
    assert to_unit(torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0])).tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 51}, r"steps must lie in \[1, 50\], got 51"),
        ({"eta": 1.5}, r"eta must lie in \[0.0, 1.0\]"),
        ({"label": torch.tensor([4])}, r"label must lie in \[0, 3\], got 4"),
    ],
)
def test_senseless_samples_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_diffusion().sample(**({"label": torch.tensor([0]), "generator": generator()} | arguments))


def test_words_and_tokens():
    model = small_language_model()
    assert model.encode("a red star .").tolist() == [1, 2, 3, 4]
    assert model.decode(torch.tensor([1, 2, 3, 4])) == "a red star ."
    assert model.encode("").shape == (0,)
    with pytest.raises(ValueError, match="got 'blue'"):
        model.encode("a blue star")


def test_likelihood_of_a_text_is_that_of_its_words_in_turn():
    model, text = small_language_model(), torch.tensor([[0, 1, 2, 3, 4]])
    terms = [model(text[:, :t])[0, -1].log_softmax(-1)[text[0, t]] for t in range(1, 5)]
    torch.testing.assert_close(model.log_likelihood(text)[0], torch.stack(terms))


def test_cold_text_is_the_likeliest_at_each_step():
    model = small_language_model()
    text = model.generate(torch.tensor([[0, 1]]), 3, generator=generator(), temperature=1e-4)
    assert text.shape == (1, 5)
    for t in range(2, 5):
        assert text[0, t] == model(text[:, :t])[0, -1].argmax()


def test_text_is_drawn_from_the_model():
    model, count = small_language_model(), 4000
    drawn = model.generate(torch.zeros(count, 1, dtype=torch.long), 1, generator=generator())[:, 1]
    shares = torch.bincount(drawn, minlength=5) / count
    torch.testing.assert_close(shares, model(torch.zeros(1, 1, dtype=torch.long))[0, 0].softmax(-1), atol=0.03, rtol=0)


def test_text_longer_than_the_window_goes_on():
    model = small_language_model()
    assert model.generate(torch.zeros(2, 5, dtype=torch.long), 4, generator=generator()).shape == (2, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"prompt": torch.zeros(1, 0, dtype=torch.long)}, "prompt must be at least 1"),
    ],
)
def test_senseless_texts_are_refused(arguments, message):
    valid = {"prompt": torch.zeros(1, 1, dtype=torch.long), "steps": 1, "generator": generator()}
    with pytest.raises(ValueError, match=message):
        small_language_model().generate(**(valid | arguments))
