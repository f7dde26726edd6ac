"""The laboratory: run profiles, ensembles of seeds, training loops, checks and claims."""

from dlatlas.lab.ensemble import Ensemble, clip_grad_norm, per_seed
from dlatlas.lab.run import Run, start
from dlatlas.lab.show import show, table
from dlatlas.lab.training import batches, fit, seed_batches, steps

__all__ = [
    "Ensemble",
    "Run",
    "batches",
    "clip_grad_norm",
    "fit",
    "per_seed",
    "seed_batches",
    "show",
    "start",
    "steps",
    "table",
]
