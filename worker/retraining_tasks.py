"""What a retraining does elsewhere: one training, and the comparison of what came of them. Bytes and arrays in and out.

    lesson: recorded observations, the incumbent, the spans ──attempt──► weights and a learning curve
                                                            ──judge────► losses by step of all contenders

Both run in a child process, or on another machine; TensorFlow is loaded there. All data is prepared as the stream
prepares it: by the series state over each stretch from its empty beginning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from consumers.roster import Seat
from consumers.stream import Partition, Version, fold
from models.architecture import Architecture
from models.blocks import part_of
from models.errors import DataError
from models.learning import known
from models.scaling import SeriesState
from models.strategies import CONTROL
from models.tally import Scorer
from models.times import DAY_MS
from models.verdict import Attempted, Epoch
from worker.losses import Losses, LossSums
from worker.quiet import start_tensorflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.blocks import Block
    from models.epochs import Material
    from models.learning import TrainingOutcome, TrainingSettings
    from models.scaling import SeriesForm
    from models.sequences import Sequences
    from models.strategies import Attempt
    from models.verdict import Cuts

LEAST_SPIN_UP_STEPS = 64
PIECE_CELLS = 1 << 20  # forecasts that a fold of the replay holds
LEAST_PIECE = 256  # observations
FRESH_PASSES = 2  # over the recent data in an epoch of fresh weights: they have more to learn than an update


@dataclass(frozen=True, eq=False)
class Lesson:
    """All that the trainings of one retraining have in common; told apart by its id.

    `segments`: stretches that begin with an empty series state (a partition's record, the history of the fit), each
    with its observations in the order of the stream; scale and pairs are not needed. `names`: their series by slot.
    `training` is how fresh weights are trained, `update` how the incumbent's are; rate, epochs, patience and seed are
    the attempt's.
    """

    id: str
    form: SeriesForm
    architecture: bytes
    weights: bytes
    segments: tuple[Block, ...]
    names: tuple[tuple[str, ...], ...]
    cuts: Cuts
    training: TrainingSettings
    update: TrainingSettings
    recent_share: float = 0.5
    threads: int = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lesson) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, eq=False)
class Result:
    """What a training came to; no weights where it exploded."""

    attempt: Attempt
    attempted: Attempted
    architecture: bytes
    weights: bytes | None


def attempt(lesson: Lesson, wanted: Attempt) -> Result:
    """A training on a lesson; an exploded one is a result too.

    Raises:
        DataError: there is too little data to train or to validate on, or too much for the memory.
        VersionError: the incumbent can't be loaded.
    """
    start_tensorflow(lesson.threads)
    from models.epochs import retrain  # noqa: PLC0415 - this brings TensorFlow
    from models.sequences import gains  # noqa: PLC0415
    from models.weights import weights_from_bytes, weights_to_bytes  # noqa: PLC0415

    sequences = _prepared(lesson)
    architecture = Architecture.from_json(lesson.architecture)
    weights = weights_from_bytes(lesson.weights, architecture) if wanted.updates else None
    if not wanted.updates and architecture.has_gain:
        begin = lesson.cuts.begin if wanted.strategy.endswith("-all") else _recent_begin(lesson.cuts, wanted)
        first = sequences.first_step
        gain = gains(sequences, lesson.cuts.train_end - first, max(0, begin - first))
        architecture = msgspec.structs.replace(architecture, gain=gain)
    settings = replace(
        lesson.update if wanted.updates else lesson.training,
        rate=wanted.rate,
        epochs=wanted.epochs,
        patience=wanted.patience,
        seed=wanted.seed,
    )
    material = _material(lesson, wanted, sequences, settings)
    outcome = retrain(architecture, sequences, material, settings, weights, wanted.gradient_steps)
    return Result(
        wanted,
        _attempted(wanted, outcome),
        architecture.to_json(),
        None if outcome.exploded else weights_to_bytes(outcome.weights, architecture),
    )


@lru_cache(maxsize=1)
def _prepared(lesson: Lesson) -> Sequences:
    """The sequences of a lesson; the last ones are kept for its next attempt."""
    from models.sequences import sequences_of  # noqa: PLC0415

    filled = [(block, names) for block, names in zip(lesson.segments, lesson.names, strict=True) if len(block)]
    if not filled:
        raise DataError("the lesson holds no observation", "wait for data")
    rows = [SeriesState(lesson.form).look(b.slot, b.step, b.values, b.present) for b, _ in filled]
    architecture = Architecture.from_json(lesson.architecture)
    return sequences_of(architecture, lesson.form, *rows, names=[names for _, names in filled])


def _recent_begin(cuts: Cuts, wanted: Attempt) -> int:
    """Where the recent data of an attempt begins."""
    recent = wanted.recent_steps
    return cuts.new_begin if recent is None else max(cuts.new_begin, cuts.train_end - recent)


def _material(lesson: Lesson, wanted: Attempt, sequences: Sequences, settings: TrainingSettings) -> Material:
    """What an attempt trains on, in steps of the sequences' clock."""
    from models.draws import Windows  # noqa: PLC0415
    from models.epochs import Material  # noqa: PLC0415

    cuts, first = lesson.cuts, sequences.first_step
    recent_begin = _recent_begin(cuts, wanted)

    def clock(begin: int, end: int) -> tuple[int, int]:
        limited = (min(max(step - first, 0), sequences.steps) for step in (begin, end))
        return next(limited), next(limited)

    validation = clock(cuts.validation_begin, cuts.validation_end)
    if wanted.strategy == CONTROL:
        old = clock(cuts.begin, cuts.new_begin)
        windows = Windows(sequences, settings.chunk, (0, 0), old)
        like = Windows(sequences, settings.chunk, clock(recent_begin, cuts.train_end))
        windows.old_windows = like.recent_windows()
        return Material(windows, (max(old[0], old[1] - (cuts.train_end - recent_begin)), old[1]), validation)
    passes = 1 if wanted.updates else FRESH_PASSES
    old = clock(cuts.begin, recent_begin) if wanted.strategy.endswith("-all") else (0, 0)
    found = []
    for end in (cuts.train_end, cuts.validation_end):
        windows = Windows(sequences, settings.chunk, clock(recent_begin, end), old, passes)
        windows.mix(lesson.recent_share)
        found.append(windows)
    return Material(found[0], clock(recent_begin, cuts.train_end), validation, found[1])


def _attempted(wanted: Attempt, outcome: TrainingOutcome) -> Attempted:
    """What the verdict keeps of a training."""
    return Attempted(
        strategy=wanted.strategy,
        rate=wanted.rate,
        recent_steps=wanted.recent_steps,
        seed=wanted.seed,
        outcome="exploded" if outcome.exploded else "trained",
        validation_mse=None if outcome.exploded else outcome.validation_mse,
        diagnosis=outcome.diagnosis,
        words=outcome.words,
        best_epoch=outcome.best_epoch,
        gradient_steps=outcome.kept_steps,
        seconds=outcome.seconds,
        curve=tuple(
            Epoch(epoch=e.epoch, train_loss=known(e.train_loss), validation_loss=known(e.validation_loss))
            for e in outcome.curve
        ),
    )


def judge(lesson: Lesson, contenders: Mapping[str, tuple[bytes, bytes]], begin: int, end: int) -> Losses:
    """The losses of contenders (architecture, weights) over pairs issued at `begin` or later and due before `end`.

    All read along in the same replay, as shadows do, from a spin-up before `begin` on.

    Raises:
        DataError: there is no pair that all have.
        VersionError: a contender can't be loaded.
    """
    start_tensorflow(lesson.threads)
    versions = {number: _version(number, *data) for number, data in enumerate(contenders.values(), 1)}
    names = dict(zip(versions, contenders, strict=True))
    horizon = max(version.architecture.horizon for version in versions.values())
    sums = LossSums(list(contenders), begin, end, horizon)
    spun = begin - max(LEAST_SPIN_UP_STEPS, DAY_MS // lesson.form.interval_ms)
    for place, segment in enumerate(lesson.segments):
        if not len(segment) or int(segment.step.max()) <= begin:
            continue
        scorer = Scorer(lesson.form, horizon)
        for block in _replayed(Partition(lesson.form, lesson.names[place]), segment, versions, spun):
            if not block.pairs:
                scorer.follow([block])
                continue
            for scored in scorer.score([block]):
                sums.add(place, {names[number]: one for number, one in scored.items()})
    return sums.losses()


def _version(number: int, architecture: bytes, weights: bytes) -> Version:
    from models.network import Network  # noqa: PLC0415 - this brings TensorFlow
    from models.weights import weights_from_bytes  # noqa: PLC0415

    form = Architecture.from_json(architecture)
    return Version(number, form, Network(form, weights_from_bytes(weights, form)))


def _replayed(partition: Partition, segment: Block, versions: Mapping[int, Version], spun: int) -> Iterator[Block]:
    """The segment in pieces, with the pairs of all versions from where it first reaches the step `spun`."""
    start = int(np.argmax(segment.step >= spun))
    width = sum(version.architecture.horizon for version in versions.values())
    size = max(LEAST_PIECE, PIECE_CELLS // width)
    for first in (*range(0, start, PIECE_CELLS), *range(start, len(segment), size)):
        if first == start:
            offset = int(segment.offset[start])
            partition.seat([Seat(number, "shadow", offset, offset) for number in versions], versions)
        last = min(start, first + PIECE_CELLS) if first < start else first + size
        yield fold([(partition, part_of(segment, first, last))], versions)[0].block
