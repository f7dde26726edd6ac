import json

import pytest
import torch
from torch.nn import functional as F

from dlatlas import lab
from dlatlas.models.mlp import mlp

X = torch.arange(12.0)[:, None]


def test_every_seed_walks_through_all_data_in_its_own_order(run):
    epoch = torch.stack([x for (x,) in lab.batches(X, size=4, steps=3, run=run)], dim=1).flatten(1)
    assert epoch.shape == (run.seeds, 12)
    assert all(sorted(row.tolist()) == list(range(12)) for row in epoch)
    assert not torch.equal(epoch[0], epoch[1])


def test_what_an_epoch_leaves_over_opens_the_next(run):
    drawn = torch.stack([x for (x,) in lab.batches(X, size=5, steps=12, run=run)], dim=1).flatten(1)
    counts = torch.stack([torch.bincount(row.long(), minlength=12) for row in drawn])
    assert (counts == 5).all()


def test_two_arms_see_the_same_batches(run):
    first, second = ([x for (x,) in lab.batches(X, size=4, steps=5, run=run)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_data_of_each_seed(run):
    own = X + 100 * torch.arange(run.seeds)[:, None, None]
    for (x,) in lab.seed_batches(own, size=4, steps=4, run=run):
        assert torch.equal(x.squeeze(-1) // 100, torch.arange(4.0)[:, None].expand(-1, 4))


def test_full_batch_keeps_the_order(run):
    for (x,) in lab.batches(X, size=None, steps=2, run=run):
        assert torch.equal(x, X.expand(run.seeds, 12, 1))
    own = torch.randn(run.seeds, 3, 1)
    assert all(torch.equal(x, own) for (x,) in lab.seed_batches(own, size=None, steps=2, run=run))


@pytest.mark.parametrize("size", [0, 13])
def test_refuses_an_impossible_batch_size(run, size):
    with pytest.raises(ValueError, match=f"size must lie between 1 and the 12 examples there are, got {size}"):
        next(lab.batches(X, size=size, steps=1, run=run))


def test_refuses_data_that_do_not_fit_together(run):
    with pytest.raises(ValueError, match="same number of examples"):
        next(lab.batches(X, X[:5], size=2, steps=1, run=run))
    with pytest.raises(ValueError, match="tensors must have 4 rows, one a seed"):
        next(lab.seed_batches(torch.randn(3, 5, 1), size=2, steps=1, run=run))


def test_fit_lowers_the_loss_of_every_seed(run):
    nets = lab.Ensemble(lambda: mlp(1, 16, 1), run)
    data = lab.batches(X / 12, X / 6, size=6, steps=60, run=run)
    losses = lab.fit(nets, F.mse_loss, data, optimiser=torch.optim.Adam(nets.parameters(), lr=1e-2))
    assert losses.shape == (60, run.seeds)
    assert (losses[-10:].mean(0) < losses[:3].mean(0)).all()


def test_the_same_run_gives_the_same_numbers_to_the_last_digit(run):
    def train():
        nets = lab.Ensemble(lambda: mlp(1, 16, 1), run)
        optimiser = torch.optim.Adam(nets.parameters(), lr=1e-2)
        return lab.fit(nets, F.mse_loss, lab.batches(X, X.sin(), size=6, steps=20, run=run), optimiser=optimiser)

    assert torch.equal(train(), train())


def test_progress_goes_to_the_file_that_the_executor_names(tmp_path, monkeypatch):
    file = tmp_path / "progress.json"
    monkeypatch.setenv("DLATLAS_PROGRESS", str(file))
    assert list(lab.steps(3, label="epoch")) == [0, 1, 2]
    assert json.loads(file.read_text()) == {"label": "epoch", "done": 0, "total": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


def test_progress_is_a_bar_without_an_executor(monkeypatch, capsys):
    monkeypatch.delenv("DLATLAS_PROGRESS", raising=False)
    assert list(lab.steps(3, label="epoch")) == [0, 1, 2]
    captured = capsys.readouterr()
    assert "epoch" in captured.err
    assert captured.out == ""
