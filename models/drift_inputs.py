"""Have the inputs changed since training? Histograms that can be summed, KS distance and PSI by effect size.

The bins of a feature come from the quantiles of its training span; what is counted hour by hour in these bins is
added up over the span that is to be judged. Nothing here gives a p-value: values that follow each other are alike,
and a test that takes them for independent finds a difference nearly always.

    D   = max |F_training - F_recent|                      (Smirnov 1948, Ann. Math. Statist. 19, 279)
    PSI = sum (q - p) ln(q / p)   over bins                (Jeffreys' divergence; Yurdakul and Naranjo 2020,
                                                            J. Risk Model Validation 14(4), 89)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.drift_limits import Drift
from models.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.drift_limits import DriftLimits

BINS = 40  # quantiles of the training span: a KS distance is short by a fortieth at most
PSI_BINS = 10  # the usual tenths: finer ones measure chance
FORMAT = 1

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class TrainedInput(msgspec.Struct, frozen=True, kw_only=True):
    """A feature over a version's training span: the B edges, the B + 1 counts between them, and how far it wandered.

    `usual_ks` and `usual_psi` are the largest distances of the training span's own windows, each as long as the
    recent span, from the whole of it: seasons and weather move an input without any drift.
    """

    edges: list[float]
    counts: list[int]
    usual_ks: float = 0.0
    usual_psi: float = 0.0


class TrainedInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a version's training keeps of its inputs, by feature."""

    features: dict[str, TrainedInput]
    window_steps: int
    format: int = FORMAT


def edges_of(sample: Floats) -> Floats:
    """The increasing edges `(B,)` of a sample's bins: below its least value, its quantiles, its largest; B ≤ 41.

    A bin is `edge before < value ≤ edge`; the first is for values below, the last for values above the sample.

    Raises:
        DataError: the sample is empty or holds a value that is not finite.
    """
    if not len(sample) or not np.isfinite(sample).all():
        raise DataError(
            f"a histogram's edges need finite values, these are {len(sample):,} with "
            f"{int((~np.isfinite(sample)).sum()):,} that are not",
            "leave missing values out",
        )
    quantiles = np.quantile(sample, np.arange(1, BINS) / BINS, method="inverted_cdf")
    below = np.nextafter(sample.min(), -np.inf)
    return np.unique(np.concatenate([[below], quantiles, [sample.max()]]))


def counts(values: Floats, edges: Floats) -> Counts:
    """How many of the values lie in each bin, `(B + 1,)`; those that are NaN lie in none."""
    known = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1).astype(np.int64)


def ks_distance(trained: Counts, recent: Counts) -> float:
    """The largest distance of the two distribution functions at the edges, 0 … 1; NaN if either is empty."""
    if not trained.sum() or not recent.sum():
        return float("nan")
    apart = np.cumsum(trained) / trained.sum() - np.cumsum(recent) / recent.sum()
    return float(np.abs(apart).max())


def psi(trained: Counts, recent: Counts) -> float:
    """The population stability index over bins that hold a tenth of the training span each; NaN if either is empty.

    Half a count is added to each bin, so that an empty one gives a large number and no infinite one.
    """
    if not trained.sum() or not recent.sum():
        return float("nan")
    groups = _groups(trained)
    p, q = (np.bincount(groups, weights=c) + 0.5 for c in (trained, recent))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def _groups(trained: Counts) -> NDArray[np.int64]:
    """The number of the group that each bin belongs to: groups of about a tenth of what was counted."""
    shares = (np.cumsum(trained) - trained / 2) / trained.sum()  # of the middle of each bin
    groups = np.minimum((shares * PSI_BINS).astype(np.int64), PSI_BINS - 1)
    named: NDArray[np.int64] = np.unique(groups, return_inverse=True)[1]
    if named[-1] == 0:  # all in one bin: then below, at and above it
        return np.arange(len(trained))
    return named


def inputs_of(
    features: Sequence[str], values: Floats, present: NDArray[np.bool_], steps: NDArray[np.int64], *, window_steps: int
) -> dict[str, Any]:
    """What `TrainedInputs` says of a training span, as JSON values; a feature that is never present is left out.

    `values` and `present` are `(N, F)`, `steps` `(N,)`: the step of each row.
    """
    window = (steps - steps.min()) // window_steps if len(steps) else steps
    found = {
        name: _trained(values[present[:, f], f], window[present[:, f]])
        for f, name in enumerate(features)
        if present[:, f].any()
    }
    trained: dict[str, Any] = msgspec.to_builtins(TrainedInputs(features=found, window_steps=window_steps))
    return trained


def _trained(values: Floats, window: NDArray[np.int64]) -> TrainedInput:
    edges = edges_of(values)
    bins = np.searchsorted(edges, values, side="left")
    parts = np.zeros((int(window.max()) + 1, len(edges) + 1), np.int64)
    np.add.at(parts, (window, bins), 1)
    whole = parts.sum(axis=0)
    full = [part for part in parts[:-1] if part.sum()] if len(parts) > 2 else []  # the last window may be cut short
    return TrainedInput(
        edges=edges.tolist(),
        counts=whole.tolist(),
        usual_ks=max((ks_distance(whole, part) for part in full), default=0.0),
        usual_psi=max((psi(whole, part) for part in full), default=0.0),
    )


def trained_inputs(training: Mapping[str, Any]) -> TrainedInputs | None:
    """What a version's `training` says of its inputs; None if it was trained before they were kept.

    Raises:
        DataError: it is there and can't be read.
    """
    if "inputs" not in training:
        return None
    try:
        found = msgspec.convert(training["inputs"], TrainedInputs)
    except msgspec.ValidationError as error:
        raise DataError(
            f"the inputs that the training kept can't be read ({error})", "fit the version again"
        ) from error
    if found.format != FORMAT:
        raise DataError(
            f"the inputs that the training kept have format {found.format}, known is {FORMAT}", "update killick"
        )
    for name, one in found.features.items():
        if len(one.counts) != len(one.edges) + 1 or not one.edges or sorted(set(one.edges)) != one.edges:
            raise DataError(
                f"feature {name!r} has {len(one.edges)} edges and {len(one.counts)} counts", "fit the version again"
            )
    return found


def input_statistics(trained: TrainedInput, recent: Counts, limits: DriftLimits) -> dict[str, tuple[float, float]]:
    """Detector → (statistic, threshold) of one feature: its limit, which is higher where training wandered."""
    whole = np.asarray(trained.counts, np.int64)
    return {
        "ks": (ks_distance(whole, recent), max(limits.ks, trained.usual_ks)),
        "psi": (psi(whole, recent), max(limits.psi, trained.usual_psi)),
    }


def input_drifts(feature: str, trained: TrainedInput, recent: Counts, limits: DriftLimits) -> tuple[Drift, ...]:
    """The drifts of one feature whose recent span is counted in the bins of its training; none if that is empty."""
    says = {
        "ks": "the distribution functions of training and of late lie {0:.2f} apart at most (KS distance)",
        "psi": "its population stability index against training is {0:.2f}",
    }
    return tuple(
        Drift(
            detector=detector,
            statistic=statistic,
            threshold=threshold,
            words=f"input {feature!r} has changed: {says[detector].format(statistic)}; the limit is {threshold:.2f}",
        )
        for detector, (statistic, threshold) in input_statistics(trained, recent, limits).items()
        if statistic > threshold
    )
