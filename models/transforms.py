"""How a version sees the target: as it is, or by a transform of its ratio to the series' scale.

With u the value divided by the scale that is in force at a step, and p one power above zero and one below,

    T(u) = sign(u) · ((1 + |u|)^p - 1) / p,    sign(u) · log(1 + |u|) where p is 0.

"log" has p = 0 on both sides; "yeo-johnson" λ above and 2 - λ below (Yeo & Johnson 2000, Biometrika 87, 954-959). Both
are defined for every number and so are their inverses, whatever a stream brings. Taken of u, T does not depend on the
unit that a series is measured in; all values that one step looks at are seen by the scale of that step. How far a
typical move takes the target in T follows from its level m by the delta method: T'(m/S).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

TINY_POWER = 1e-9  # below it is taken for the logarithm
MOST_SCALES = 1e60  # beyond, values count as this: sums of what T makes of them stay finite
MOST_SEEN = 1e200  # more than T makes of `MOST_SCALES`, whatever its powers
MOST_LOG = math.log(MOST_SCALES)
MOST = float(np.finfo(np.float32).max)


class Transform(NamedTuple):
    """T by its powers above and below zero; with both 1 the target is seen as it is.

    Arrays are of any shape; `scale` and `level` broadcast against the values. Where the scale is 0, all is 0.
    """

    above: float = 1.0
    below: float = 1.0

    @classmethod
    def of(cls, name: str, power: float) -> Transform:
        """The transform of an architecture: "none", "log", or "yeo-johnson" with λ = `power`."""
        if name == "log":
            return cls(0.0, 0.0)
        return cls(power, 2.0 - power) if name == "yeo-johnson" else cls()

    @property
    def none(self) -> bool:
        """Whether the target is seen as it is."""
        return self.above == self.below == 1.0

    def seen(self, values: Floats, scale: Floats) -> Floats:
        """T of values by this scale."""
        if self.none:
            return values
        u = _ratio(values, scale)
        logs = np.log1p(np.abs(u))
        return np.copysign(self._by_side(u, logs, _power), u)

    def unit(self, scale: Floats, level: Floats) -> Floats:
        """How much of T a move of one scale is near the level."""
        if self.none:
            return scale
        u = _ratio(level, scale)
        return self._by_side(u, np.log1p(np.abs(u)), _slope)

    def back(self, seen: Floats, scale: Floats) -> Floats:
        """The values that are seen so, no further from zero than single precision goes."""
        if self.none:
            return seen
        found = np.copysign(self._by_side(seen, np.minimum(np.abs(seen), MOST_SEEN), _inverse), seen) * scale
        return np.clip(found, -MOST, MOST)

    def _by_side(self, sign: Floats, of: Floats, function: Callable[[Floats, float], Floats]) -> Floats:
        """`function` with the power of the side that each number is on."""
        if self.above == self.below:
            return function(of, self.above)
        return np.where(sign >= 0, function(of, self.above), function(of, self.below))


def _ratio(values: Floats, scale: Floats) -> Floats:
    """The values in scales, `MOST_SCALES` at most; contiguous, so that equal numbers are computed alike."""
    with np.errstate(over="ignore"):
        ratio = np.divide(values, scale, out=np.zeros(np.broadcast_shapes(values.shape, scale.shape)), where=scale > 0)
    return np.clip(ratio, -MOST_SCALES, MOST_SCALES, out=ratio)


def _power(logs: Floats, power: float) -> Floats:
    """((1 + a)^p - 1)/p from log(1 + a)."""
    return logs if power < TINY_POWER else np.expm1(power * logs) / power


def _slope(logs: Floats, power: float) -> Floats:
    """(1 + a)^(p - 1) from log(1 + a)."""
    found: Floats = np.exp((power - 1.0) * logs)
    return found


def _inverse(size: Floats, power: float) -> Floats:
    """The a of which `size` is ((1 + a)^p - 1)/p, `MOST_SCALES` at most."""
    logs = size if power < TINY_POWER else np.log1p(power * size) / power
    found: Floats = np.expm1(np.minimum(logs, MOST_LOG))
    return found
