import torch

from dlatlas.lab.run import Run


def with_seeds(seeds, profile="cpu"):
    return Run("theory/grokking", profile, seeds, torch.device("cpu"))


def test_sizes_follow_the_profile():
    assert with_seeds(2, "smoke").pick(smoke=1, cpu=2, gpu=3) == 1
    assert with_seeds(2, "gpu").pick(smoke=1, cpu=2, gpu=3) == 3
    assert with_seeds(2, "smoke").steps(400) < 10
    assert with_seeds(2, "smoke").steps(1) == 1
    assert with_seeds(2, "cpu").steps(400) == 400


def test_a_seed_draws_the_same_however_many_there_are():
    def draw(generator):
        return torch.randn(3, generator=generator), torch.randint(9, (2,), generator=generator)

    few, many = with_seeds(2).stack(draw), with_seeds(5).stack(draw)
    for left, right in zip(few, many, strict=True):
        assert torch.equal(left, right[:2])
    assert not torch.equal(many[0][0], many[0][1])


def test_names_separate_streams():
    run = with_seeds(2)
    a, b = (torch.randn(3, generator=run.generator(name)) for name in ("data", "noise"))
    assert not torch.equal(a, b)
