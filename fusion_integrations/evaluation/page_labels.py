"""Place the labels of points so that they can be read: none over another label or point."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["place_labels"]

Point = tuple[float, float]
_Box = tuple[float, float, float, float]  # left, bottom, right, top

# Of a plot on a wide screen, in pixels.
_WIDTH, _HEIGHT = 900.0, 330.0
_CHARACTER, _LINE, _MARKER = 6.3, 15.0, 5.0
# Where the middle of a label stands, in half widths and half heights of itself, around the marker.
_POSITIONS = {
    "top center": (0.0, 1.0),
    "bottom center": (0.0, -1.0),
    "middle right": (1.0, 0.0),
    "middle left": (-1.0, 0.0),
}


def place_labels(
    labelled: Sequence[tuple[str, Point]], *, obstacles: Sequence[Point], is_log: bool
) -> list[str | None]:
    """Give labels their place beside their point, the first ones first.

    Args:
        labelled: Labels and the positions of their points; the horizontal one is above 0 if `is_log`.
        obstacles: Other points that no label should cover.
        is_log: Whether the horizontal axis is logarithmic.

    Returns:
        Plotly's text position of each label; None where there is no room.
    """
    pixels = _pixels([*(point for _, point in labelled), *obstacles], is_log=is_log)
    taken: list[_Box] = [(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in set(pixels)]
    found: list[str | None] = []
    for (label, _), pixel in zip(labelled, pixels, strict=False):  # obstacles follow
        boxes = _boxes(label, pixel)
        place = next((name for name, box in boxes.items() if _is_free(box, taken)), None)
        found.append(place)
        if place is not None:
            taken.append(boxes[place])
    return found


def _boxes(label: str, pixel: Point) -> dict[str, _Box]:
    width, height = _CHARACTER * len(label) / 2, _LINE / 2
    boxes = {}
    for name, (right, up) in _POSITIONS.items():
        x, y = pixel[0] + right * (width + 2 * _MARKER), pixel[1] + up * (height + _MARKER + 1)
        boxes[name] = (x - width, y - height, x + width, y + height)
    return boxes


def _is_free(box: _Box, taken: Sequence[_Box]) -> bool:
    return box[0] >= 0 and box[2] <= _WIDTH and not any(_overlap(box, other) for other in taken)


def _pixels(points: Sequence[Point], *, is_log: bool) -> list[Point]:
    across = _scaled([math.log(x) if is_log else x for x, _ in points])
    upward = _scaled([y for _, y in points])
    return [(x * _WIDTH, y * _HEIGHT) for x, y in zip(across, upward, strict=True)]


def _scaled(values: Sequence[float]) -> list[float]:
    """Put values between 0 and 1, with the margin that Plotly leaves at the ends of an axis."""
    low, high = min(values), max(values)
    return [0.05 + 0.9 * (each - low) / (high - low) if high > low else 0.5 for each in values]


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
