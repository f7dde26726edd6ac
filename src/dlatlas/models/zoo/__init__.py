"""Miniature pre-trained models, which the book trains itself.

`load` gives a model from the cache, or trains it by its recipe first; `report` says how it was trained and how good it
is::

    vit = zoo.load("vit", run)
    logits = vit(images)                      # classes as numbered by shapes.labels(scenes, "shape")
    zoo.report("vit", run)["metrics"]         # {"accuracy": ..., "chance": ...}

A recipe is a module of this package; `dlatlas.models.zoo.world` says what the models see. The cache is
``$DLATLAS_ZOO`` if that is set, else the folder ``zoo`` of the data home.
"""

from dlatlas.models.zoo.cache import NAMES, Report, folder, load, report

__all__ = ["NAMES", "Report", "folder", "load", "report"]
