"""Is B better than A? A test on a live stream, looked at after every step and stopped whenever it is proved.

    differences of losses ──means of whole blocks──► z = mean / scale ──bets──► wealth ──► proved

A gambler who starts with 1 bets on every block that B is better. Where B is no better, no way of betting makes wealth
grow: that it ever reaches 1/alpha has at most the probability alpha (Ville 1939; Shafer 2021, JRSS A 184, 407,
doi:10.1111/rssa.12647). A share of the wealth is put on each of some constant bets (a mixture):

    wealth = mean over bets of the product over blocks of 1 + bet · clip(z, -LOSS / bet, CLIP)

Three things keep that true for losses of forecasts, which are neither independent nor bounded:

- *Blocks.* Bets on dependent numbers do win. Blocks are so long that the means of neighbours correlate by no more
  than .1; `calibrate` finds their length beforehand on recorded losses of versions that are compared.
- *Clipping* bounds a block that is very good for B to `CLIP` standard deviations. One that is very bad counts in full,
  until it has cost `LOSS` of a bet: so rare disasters are not cut to the size of what they pay for.
- *The unclipped mean* has to be as sure: its t-statistic must reach sqrt(2 ln(1/alpha)), the least that a normal
  mean has when wealth comes to 1/alpha. Its standard error is that of the test's own blocks, and grows with what
  groups of them turn out to depend on each other: a span that was too short for calibration is made up for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.verdict import Calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

BETS = (0.05, 0.12, 0.3)  # shares of what is there, for a block mean of one standard deviation
CLIP = 3.0  # standard deviations of block means: of a block that is good for B
LOSS = 0.9  # of a bet: what one block that is bad for B takes at most
LEAST_BLOCK = 12  # steps: in a shorter block a disaster is not weighed against what went well around it
MOST_CORRELATION = 0.1  # of neighbouring block means
LEAST_STEPS = 40  # that dependence and scale can be told from
LEAST_BLOCKS = 8  # that say something about their own dependence
LEVELS = 12  # groups of 1, 2, 4, … 2048 blocks
LARGEST = 1e100  # a difference beyond it counts as this much: squares stay finite
MOST_PHI = 0.99
ROUNDING = 1e-12  # of the largest difference: less is no spread
MOST_EXPONENT = 690.0  # of an e-value: exp of more is infinite

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Wealth(msgspec.Struct, frozen=True, kw_only=True):
    """One test so far. Steps without a difference are not counted."""

    logs: tuple[float, ...] = (0.0,) * len(BETS)  # logarithm of the wealth of each bet
    blocks: int = 0
    total: float = 0.0  # of the means of the blocks, unclipped
    marks: tuple[float, ...] = (0.0,) * LEVELS  # that total where the last group of 1, 2, 4, … blocks ended
    squares: tuple[float, ...] = (0.0,) * LEVELS  # of the totals of these groups
    part: float = 0.0  # sum of the block that is not over
    part_steps: int = 0
    steps: int = 0  # with a difference, those of the block that is not over included

    @property
    def mean(self) -> float:
        """The unclipped mean difference a step over the blocks that are over; 0 before the first."""
        return self.total / self.blocks if self.blocks else 0.0


@dataclass(frozen=True)
class Course:
    """A test after each of B blocks that came to an end: what could be seen by looking after every step."""

    logs: Floats  # (B, bets)
    blocks: Ints  # (B,) since the beginning of the test
    total: Floats  # (B,)
    marks: Floats  # (B, levels)
    squares: Floats  # (B, levels)

    @property
    def e_values(self) -> Floats:
        """The wealth after each block, `(B,)`."""
        return np.asarray(np.exp(np.minimum(self.logs, MOST_EXPONENT)).mean(axis=1))

    def proved(self, alpha: float) -> Bools:
        """After which blocks B counts as better, `(B,)`.

        With V the long-run variance of block means, t² = total² / (blocks · V).
        """
        sure = self.total**2 >= 2.0 * math.log(1.0 / alpha) * self.long_run * self.blocks
        return np.asarray(sure & (self.total > 0.0) & (self.blocks > 1) & (self.e_values >= 1.0 / alpha))

    @property
    def long_run(self) -> Floats:
        """The long-run variance of block means that the test itself has seen, `(B,)`.

        The greatest of the batch means estimates (Conway 1963, Manage. Sci. 10, 47) from groups of 1, 2, 4, … blocks
        of which there are enough; of groups of one block there always are.
        """
        size = 2 ** np.arange(LEVELS)
        groups = self.blocks[:, None] // size  # (B, levels)
        spread = np.maximum(self.squares - self.marks**2 / groups.clip(1), 0.0)
        found = np.where((groups >= LEAST_BLOCKS) | (size == 1), spread / (groups - 1).clip(1) / size, 0.0)
        return np.asarray(found.max(axis=1))


def e_value(wealth: Wealth) -> float:
    """The evidence that B is better: the gambler's wealth, which began at 1."""
    return float(_now(wealth).e_values[0])


def proved(wealth: Wealth, alpha: float) -> bool:
    """Whether B counts as better at level alpha: the wealth is there, and the unclipped mean is as sure."""
    return bool(_now(wealth).proved(alpha)[0])


def advance(wealth: Wealth, calibration: Calibration, differences: Floats) -> Wealth:
    """The test after more steps `(T,)` that are over, in their order; NaN: a step without a difference."""
    known = _known(differences)
    ended = (wealth.part_steps + len(known)) // calibration.block_steps
    since = wealth.part_steps + len(known) - ended * calibration.block_steps
    rest = known[len(known) - since :] if ended else np.concatenate([[wealth.part], known])
    onward = msgspec.structs.replace(
        wealth,
        part=float(np.add.accumulate(rest)[-1]) if len(rest) else 0.0,
        part_steps=since,
        steps=wealth.steps + len(known),
    )
    if not ended:
        return onward
    course = _course(wealth, calibration, known)
    return msgspec.structs.replace(
        onward,
        logs=tuple(course.logs[-1].tolist()),
        blocks=int(course.blocks[-1]),
        total=float(course.total[-1]),
        marks=tuple(course.marks[-1].tolist()),
        squares=tuple(course.squares[-1].tolist()),
    )


def course_of(wealth: Wealth, calibration: Calibration, differences: Floats) -> Course:
    """What `advance` comes through: the test after each block that ends in these steps `(T,)`."""
    return _course(wealth, calibration, _known(differences))


def _now(wealth: Wealth) -> Course:
    """The test as it stands, as a course of one block."""
    logs, total, marks, squares = (
        np.array([x], np.float64) for x in (wealth.logs, wealth.total, wealth.marks, wealth.squares)
    )
    return Course(logs, np.array([wealth.blocks]), total, marks, squares)


def _known(differences: Floats) -> Floats:
    return np.clip(differences[~np.isnan(differences)], -LARGEST, LARGEST)


def _course(wealth: Wealth, calibration: Calibration, known: Floats) -> Course:
    """Sums go on one by one from where they stood, so that pieces of a stream come to the same bits as the whole."""
    size = calibration.block_steps
    ended = (wealth.part_steps + len(known)) // size
    begun = np.zeros(wealth.part_steps)  # of the open block only the sum is known: it stands in the last place
    begun[-1:] = wealth.part
    steps = np.concatenate([begun, known])[: ended * size].reshape(ended, size)
    means = np.add.accumulate(steps, axis=1)[:, -1] / size  # (B,)
    z, bets = (means / calibration.scale)[:, None], np.array(BETS)
    gained = np.log1p(bets * np.clip(z, -LOSS / bets, CLIP))  # (B, bets)
    total = _onward(wealth.total, means)
    blocks = wealth.blocks + np.arange(ended + 1)
    marks, squares = np.empty((ended, LEVELS)), np.empty((ended, LEVELS))
    for level, (mark, square) in enumerate(zip(wealth.marks, wealth.squares, strict=True)):
        at = np.flatnonzero(blocks[1:] % 2**level == 0)
        ends = np.append(mark, total[1:][at])
        past = blocks[1:] // 2**level - blocks[0] // 2**level  # groups that ended here, after each block
        marks[:, level], squares[:, level] = ends[past], _onward(square, np.diff(ends) ** 2)[past]
    return Course(_onward(wealth.logs, gained)[1:], blocks[1:], total[1:], marks, squares)


def _onward(before: float | tuple[float, ...], more: Floats) -> Floats:
    """The running sums of `more` `(N, …)` from what was before, that first: `(N + 1, …)`."""
    return np.asarray(np.add.accumulate(np.concatenate([np.array([before], np.float64), more]), axis=0))


def calibrate(differences: Sequence[Floats], *, least_block: int = LEAST_BLOCK) -> Calibration:
    """How differences are to be grouped and scaled, from recorded ones: an array `(T,)` for each pair of versions.

    Block length and scale are the greatest over the arrays. The mean difference of a pair plays no part in either.
    NaN: a step without a difference. Arrays with fewer than `LEAST_STEPS` are left out.

    Raises:
        DataError: too few differences, or they don't vary.
    """
    known = [_known(array) for array in differences]
    steps = max(map(len, known), default=0)
    if steps < LEAST_STEPS:
        raise DataError(
            f"recorded differences of losses: there are {steps} steps, {LEAST_STEPS} are needed", "wait for more data"
        )
    arrays = [array - array.mean() for array in known if len(array) >= LEAST_STEPS and _varies(array)]
    if not arrays:
        raise DataError(f"recorded differences of losses don't vary over {steps} steps", "compare other versions")
    block = max(block_of(array, least_block) for array in arrays)
    scale = max(_scale(array, block) for array in arrays)
    lag1 = max(_block_lag1(array, block) for array in arrays)
    steps = max(map(len, arrays))
    seen = f"; only {steps / block:.1f} of them were seen" if steps < LEAST_BLOCKS * block else ""
    words = (
        f"blocks of {block} steps: neighbouring steps correlate {max(map(phi_of, arrays)):.2f}, "
        f"neighbouring blocks {lag1:.2f}, from {steps:,} recorded steps{seen}"
    )
    return Calibration(block_steps=block, scale=scale, lag1=lag1, steps=steps, words=words)


def phi_of(centred: Floats) -> float:
    """The lag-1 autocorrelation of `(T,)`, put right for what T steps underestimate.

    E[estimate] = phi - (1 + 3 phi) / T (Marriott and Pope 1954, Biometrika 41, 390, doi:10.1093/biomet/41.3-4.390).
    """
    found = float(centred[1:] @ centred[:-1]) / float(centred @ centred)
    return min(max(found + (1.0 + 3.0 * found) / len(centred), 0.0), MOST_PHI)


def block_of(centred: Floats, least: int) -> int:
    """The block length that differences `(T,)` of mean 0 need: steps.

    No shorter than `least`, and than an AR(1) series of the same autocorrelation demands. From there on, longer than
    every length at which the means of neighbours were seen to correlate by more than the limit and half the error of
    seeing it, 1 / sqrt(number of blocks): a slow part under much noise shows in long blocks only.
    """
    size = block = max(least, ar_block(phi_of(centred)))
    sums = _running(centred)
    while size * LEAST_BLOCKS <= len(centred):
        longer = max(size + 1, size * 5 // 4)
        if _lag1(_block_means(sums, size), size) > MOST_CORRELATION + 0.5 * math.sqrt(size / len(centred)):
            block = longer
        size = longer
    return block


def ar_block(phi: float) -> int:
    """The shortest block of AR(1) numbers whose means correlate with their neighbours' by no more than the limit."""
    short, long = 0, 1
    while _ar_moments(phi, long)[1] > MOST_CORRELATION:
        short, long = long, 2 * long
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if _ar_moments(phi, middle)[1] > MOST_CORRELATION else (short, middle)
    return long


def _ar_moments(phi: float, size: int) -> tuple[float, float]:
    """Variance of the mean of a block of AR(1) numbers of variance 1, and its correlation with the next block's.

    From sums of the autocovariances phi^k, with g = 1 - phi^m:
        variance = (m (1 - phi²) - 2 phi g) / (m (1 - phi))²,    covariance = phi g² / (m (1 - phi))²
    """
    fading = 1.0 - phi**size
    whole = size * (1.0 - phi * phi) - 2.0 * phi * fading
    return whole / (size * (1.0 - phi)) ** 2, phi * fading * fading / whole


def _running(centred: Floats) -> Floats:
    """The running sums `(T + 1,)`, from 0 on."""
    return np.concatenate([[0.0], np.cumsum(centred)])


def _block_means(sums: Floats, size: int) -> Floats:
    """The means of all blocks, one beginning at each step, from the running sums."""
    return np.asarray((sums[size:] - sums[:-size]) / size)


def _lag1(means: Floats, size: int) -> float:
    """The correlation of each of these means with that of the next block."""
    return float(means[size:] @ means[:-size]) / (len(means) - size) / (float(means @ means) / len(means))


def _block_lag1(centred: Floats, size: int) -> float:
    """The correlation of neighbouring block means; as of an AR(1) series where too few blocks were seen."""
    if size * LEAST_BLOCKS > len(centred):
        return _ar_moments(phi_of(centred), size)[1]
    return _lag1(_block_means(_running(centred), size), size)


def _scale(centred: Floats, size: int) -> float:
    """Standard deviation of block means; no less than an AR(1) series has where too few blocks were seen.

    The span's own mean was taken off, and with it the share size / T of the variance.
    """
    formed = float((centred @ centred) / (len(centred) - 1)) * _ar_moments(phi_of(centred), size)[0]
    if 2 * size > len(centred):
        return math.sqrt(formed)
    means = _block_means(_running(centred), size)
    seen = float(means @ means) / len(means) / (1.0 - size / len(centred))
    return math.sqrt(seen if size * LEAST_BLOCKS <= len(centred) else max(seen, formed))


def _varies(known: Floats) -> bool:
    """Whether there is a spread beyond rounding."""
    return float(np.ptp(known)) > ROUNDING * float(np.abs(known).max())
