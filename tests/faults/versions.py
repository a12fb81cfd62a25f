"""The versions of a simulation: three architectures, on NumPy or on TensorFlow, that differ in all they may."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from consumers.stream import Version
from models.errors import ServiceUnreachable
from models.weights import fresh_weights, weights_to_bytes
from tests.streams import NumpyScanner, architecture_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from models.architecture import Architecture, Weights
    from tests.faults.boundaries import Boundaries

NUMBERS = range(1, 8)
# Units that are no multiple of what the processor handles at once: there a tile's width shows in the bits.
KNOWN = ("p1-series-1", "p0-series-2", "nobody", "p0-series-0", "p1-series-3")  # some of the series, by no slot
SHAPES = (
    architecture_of(),
    architecture_of(form="plain", horizon=2, units=(4, 3), cell="gru", series=KNOWN),
    architecture_of(units=(5,), horizon=3),
)


def architecture(number: int) -> Architecture:
    """The architecture of a version; the fourth is the first trained anew."""
    return SHAPES[(number - 1) % len(SHAPES)]


def weights_of(number: int) -> Weights:
    """Weights that say something: fresh ones forecast the last value."""
    rng = np.random.default_rng(number)
    fresh = fresh_weights(architecture(number), number)
    return {name: (w + rng.normal(scale=0.2, size=w.shape)).astype(np.float32) for name, w in fresh.items()}


@cache
def weights_bytes(number: int) -> bytes:
    """The same as safetensors."""
    return weights_to_bytes(weights_of(number), architecture(number))


@cache
def version_of(number: int, *, real: bool) -> Version:
    """A version that can be stepped, on TensorFlow if `real`."""
    shape = architecture(number)
    if not real:
        return Version(number, shape, NumpyScanner(shape, number))
    from models.network import Network, configure

    configure(threads=1)
    return Version(number, shape, Network(shape, weights_of(number)))


class Loading:
    """A version on its way, as a future: it is there, or refused, after being asked for some times."""

    def __init__(self, load: Callable[[], Version], asks: int) -> None:
        self._load = load
        self._asks = asks

    def done(self) -> bool:
        """Whether it is there."""
        self._asks -= 1
        return self._asks < 0

    def result(self) -> Version:
        """The version.

        Raises:
            VersionError: it can't be used.
        """
        return self._load()


class Loader:
    """Stands in for the thread that loads versions."""

    def __init__(self, rng: random.Random, boundaries: Boundaries) -> None:
        self._rng = rng
        self._boundaries = boundaries

    def submit(self, load: Callable[[int], Version], number: int) -> Loading:
        """Begin to load a version."""
        self._boundaries.cross("load", "before")
        return Loading(lambda: self._finish(load, number), self._rng.choice((0, 0, 1, 5)))

    def _finish(self, load: Callable[[int], Version], number: int) -> Version:
        if not self._boundaries.quiet and self._rng.random() < 0.05:
            self._boundaries.fault("load unanswered")
            raise ServiceUnreachable("Redis did not answer (simulated)")
        version = load(number)
        self._boundaries.cross("load", "after")
        return version
