"""A procedural world of simple objects in which everything is known.

`sample` draws `Scenes` from a `Joint` distribution of named factors; `render` turns them into images; the other
functions say what is in them, move them, and show them in another style::

    scenes = sample(1000, generator=generator, joint=Joint().correlate("shape", "colour", 0.9))
    images, classes = render(scenes, 32), labels(scenes, "shape")
"""

from dlatlas.data.shapes.captions import (
    TOPICS,
    WORDS,
    captions,
    distractors,
    paraphrases,
    phrase,
    statements,
    tokens,
)
from dlatlas.data.shapes.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dlatlas.data.shapes.grammar import CHANGES
from dlatlas.data.shapes.joint import Joint
from dlatlas.data.shapes.label_noise import flip_labels, pair_noise, symmetric_noise
from dlatlas.data.shapes.outputs import (
    ATTRIBUTES,
    Keypoints,
    attributes,
    boxes,
    counts,
    depth_map,
    instance_masks,
    keypoints,
    labels,
    semantic_mask,
)
from dlatlas.data.shapes.render import render, silhouettes
from dlatlas.data.shapes.sampling import rearrange, sample
from dlatlas.data.shapes.scenes import Scenes, concatenate
from dlatlas.data.shapes.styles import SHIFTS, STYLES, render_style, shift
from dlatlas.data.shapes.video import MOTIONS, animate
from dlatlas.data.shapes.views import augment, view_pair
from dlatlas.data.shapes.vocabulary import BACKGROUNDS, COLOURS, FACTORS, OBJECT_FACTORS, SHAPES, SIZES, TEXTURES

__all__ = [
    "ATTRIBUTES",
    "BACKGROUNDS",
    "CHANGES",
    "COLOURS",
    "CORRUPTIONS",
    "FACTORS",
    "MOTIONS",
    "OBJECT_FACTORS",
    "SEVERITIES",
    "SHAPES",
    "SHIFTS",
    "SIZES",
    "STYLES",
    "TEXTURES",
    "TOPICS",
    "WORDS",
    "Joint",
    "Keypoints",
    "Scenes",
    "animate",
    "attributes",
    "augment",
    "boxes",
    "captions",
    "concatenate",
    "corrupt",
    "counts",
    "depth_map",
    "distractors",
    "flip_labels",
    "instance_masks",
    "keypoints",
    "labels",
    "pair_noise",
    "paraphrases",
    "phrase",
    "rearrange",
    "render",
    "render_style",
    "sample",
    "semantic_mask",
    "shift",
    "silhouettes",
    "statements",
    "symmetric_noise",
    "tokens",
    "view_pair",
]
