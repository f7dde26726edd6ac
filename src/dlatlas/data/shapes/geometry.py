r"""Outlines of the shapes as signed distances, and their landmarks.

An outline maps coordinates (u to the right, v upwards) to a distance that is negative inside. All shapes stand upright
and fit the unit circle. They are put together from discs and half-planes: the meet of two regions has the distance
:math:`\max(d_1, d_2)`, the join :math:`\min(d_1, d_2)`. Along an edge this is the exact distance, and past a corner it
is the distance to the extended edges, which is what keeps corners sharp.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Outline = Callable[[Tensor, Tensor], Tensor]
Point = tuple[float, float]

DISC = 0.88
BOX = 0.70
ARM, ARM_WIDTH = 0.94, 0.30
RING, RING_WIDTH = 0.69, 0.23
STAR_INNER = 0.46
LEAF_WIDTH = 0.50
DROP, DROP_CENTRE = 0.60, -0.36
MOON, MOON_SHIFT, BITE, BITE_SHIFT = 0.88, 0.17, 0.70, 0.62
HEART_LOBE, HEART_CENTRE, HEART_TIP = 0.48, (0.45, 0.22), -0.96
ARROW_TIP, ARROW_NECK, ARROW_HEAD, ARROW_TAIL, ARROW_SHAFT = 0.98, -0.02, 0.82, 0.94, 0.27


def _around(angle: float, radius: float) -> Point:
    return radius * math.cos(angle), radius * math.sin(angle)


def _tangent_normal(centre: Point, radius: float, tip: float) -> Point:
    """Normal of the tangent from the point (0, tip) to the right side of a disc above it."""
    away = math.hypot(centre[0], tip - centre[1])
    return _around(math.atan2(tip - centre[1], -centre[0]) + math.acos(radius / away), 1.0)


def _disc(u: Tensor, v: Tensor, radius: float) -> Tensor:
    return torch.sqrt(u * u + v * v) - radius


def _box(u: Tensor, v: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(u.abs() - half_width, v.abs() - half_height)


def _half_plane(u: Tensor, v: Tensor, normal: Point, offset: float) -> Tensor:
    return normal[0] * u + normal[1] * v - offset


def _polygon(u: Tensor, v: Tensor, sides: int) -> Tensor:
    """Regular polygon with a corner at the top; the mirror image takes care of the left half."""
    u, apothem = u.abs(), math.cos(math.pi / sides)
    distance = v.new_full((), -math.inf)
    for edge in range((sides + 1) // 2):
        angle = math.pi / 2 - (2 * edge + 1) * math.pi / sides
        distance = torch.maximum(distance, _half_plane(u, v, (math.cos(angle), math.sin(angle)), apothem))
    return distance


def circle(u: Tensor, v: Tensor) -> Tensor:
    """A disc."""
    return _disc(u, v, DISC)


def square(u: Tensor, v: Tensor) -> Tensor:
    """A square that stands on a side."""
    return _box(u, v, BOX, BOX)


def triangle(u: Tensor, v: Tensor) -> Tensor:
    """An equilateral triangle."""
    return _polygon(u, v, 3)


def pentagon(u: Tensor, v: Tensor) -> Tensor:
    """A regular pentagon."""
    return _polygon(u, v, 5)


def star(u: Tensor, v: Tensor) -> Tensor:
    """A star with five tips: folded onto the sector of the upper tip, it has a single edge."""
    u = u.abs()
    for across in (1.0, -1.0):
        c, s = across * math.cos(math.pi / 5), -math.sin(math.pi / 5)
        beyond = 2 * torch.relu(c * u + s * v)
        u, v = u - beyond * c, v - beyond * s
    tip, valley = (0.0, 1.0), _around(math.pi / 2 - math.pi / 5, STAR_INNER)
    along = math.hypot(valley[0] - tip[0], valley[1] - tip[1])
    normal = ((tip[1] - valley[1]) / along, (valley[0] - tip[0]) / along)
    return _half_plane(u.abs(), v, normal, normal[1])


def cross(u: Tensor, v: Tensor) -> Tensor:
    """Two bars at a right angle."""
    return torch.minimum(_box(u, v, ARM, ARM_WIDTH), _box(u, v, ARM_WIDTH, ARM))


def heart(u: Tensor, v: Tensor) -> Tensor:
    """Two discs, and what lies between their tangents to the tip."""
    u, (a, b) = u.abs(), HEART_CENTRE
    tangent = _half_plane(u, v, HEART_NORMAL, HEART_NORMAL[1] * HEART_TIP)
    # The tangents count below the points where they touch the discs; further up they would stand out as horns.
    above_touch = _half_plane(u - a, v - b, (-HEART_NORMAL[1], HEART_NORMAL[0]), 0.0)
    return torch.minimum(_disc(u - a, v - b, HEART_LOBE), torch.maximum(torch.maximum(tangent, above_touch), v - b))


def crescent(u: Tensor, v: Tensor) -> Tensor:
    """A disc with a bite out of its right side."""
    return torch.maximum(_disc(u - MOON_SHIFT, v, MOON), -_disc(u - BITE_SHIFT, v, BITE))


def ring(u: Tensor, v: Tensor) -> Tensor:
    """A disc with a hole."""
    return _disc(u, v, RING).abs() - RING_WIDTH


def arrow(u: Tensor, v: Tensor) -> Tensor:
    """An arrow that points upwards."""
    u, slope = u.abs(), math.hypot(ARROW_HEAD, ARROW_TIP - ARROW_NECK)
    normal = ((ARROW_TIP - ARROW_NECK) / slope, ARROW_HEAD / slope)
    head = torch.maximum(_half_plane(u, v, normal, normal[1] * ARROW_TIP), ARROW_NECK - v)
    # The shaft reaches into the head: parts that only touch would leave a seam.
    shaft = torch.maximum(_box(u, v, ARROW_SHAFT, ARROW_TAIL), v - ARROW_TIP / 2)
    return torch.minimum(head, shaft)


def drop(u: Tensor, v: Tensor) -> Tensor:
    """A disc, and the cone of its tangents that meet at the tip above it."""
    u, height = u.abs(), v - DROP_CENTRE
    sine = DROP / (1 - DROP_CENTRE)
    cosine = math.sqrt(1 - sine**2)
    beside_cone = cosine * height < sine * u
    return torch.where(beside_cone, _disc(u, height, DROP), _half_plane(u, height, (cosine, sine), DROP))


def leaf(u: Tensor, v: Tensor) -> Tensor:
    """The meet of two discs, pointed at the top and at the bottom."""
    radius = (1 + LEAF_WIDTH**2) / (2 * LEAF_WIDTH)
    return _disc(u.abs() + radius - LEAF_WIDTH, v, radius)


def _corners(sides: int) -> tuple[Point, ...]:
    return tuple(_around(math.pi / 2 - 2 * math.pi * corner / sides, 1.0) for corner in range(sides))


HEART_NORMAL = _tangent_normal(HEART_CENTRE, HEART_LOBE, HEART_TIP)

OUTLINES: dict[str, Outline] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "ring": ring,
    "heart": heart,
    "crescent": crescent,
    "arrow": arrow,
    "pentagon": pentagon,
    "drop": drop,
    "leaf": leaf,
}

TIPS: dict[str, tuple[Point, ...]] = {
    "circle": (),
    "square": ((BOX, BOX), (BOX, -BOX), (-BOX, -BOX), (-BOX, BOX)),
    "triangle": _corners(3),
    "star": _corners(5),
    "cross": ((0.0, ARM), (ARM, 0.0), (0.0, -ARM), (-ARM, 0.0)),
    "ring": (),
    "heart": ((0.0, HEART_TIP),),
    "crescent": (),
    "arrow": ((0.0, ARROW_TIP), (ARROW_HEAD, ARROW_NECK), (0.0, -ARROW_TAIL), (-ARROW_HEAD, ARROW_NECK)),
    "pentagon": _corners(5),
    "drop": ((0.0, 1.0),),
    "leaf": ((0.0, 1.0), (0.0, -1.0)),
}
"""The outstanding points of each outline, clockwise from the top of the upright shape."""
