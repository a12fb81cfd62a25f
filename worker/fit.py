"""`killick fit`: the first version, from a file of observations to the registry.

    history ──admit──► block ──look──► rows ──► sequences ──preflight, train──► weights
                         └────────────fold (as the running service does)──► pairs ──► skill on the tail

What is printed goes to `console`, progress to `progress_stream`; nothing here knows of the command line.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from rich.table import Table

from consumers.past import admitted
from models.drift_inputs import inputs_of
from models.errors import DataError
from models.times import rfc3339
from worker.patience import patiently
from worker.progress import progress
from worker.quiet import start_tensorflow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from rich.console import Console

    from consumers.history import History
    from consumers.stream import Partition
    from models.architecture import Architecture
    from models.blocks import Block
    from models.learning import EpochReport, TrainingOutcome, TrainingSettings
    from models.preflight import PreflightReport
    from models.registry import Registry
    from models.scaling import Rows, SeriesForm
    from models.sequences import Sequences, Spans
    from worker.tail import TailSkill

REGISTER_S = 600.0  # how long Redis may be away when a training has ended
SHOWN_LEADS = (1, 2, 3, 6, 12, 24, 48, 72, 96, 168, 336, 720)


@dataclass(frozen=True)
class FitPlan:
    """What to fit: the model's form, a network (its gain is worked out here) and how to train it.

    `validation` and `evaluation` are shares of the history's steps, the last ones; `recent_steps` is how long a span
    of inputs the monitor will compare with those of the training. `series_inputs`: each series has an input.
    """

    form: SeriesForm
    architecture: Architecture
    training: TrainingSettings
    validation: float = 0.15
    evaluation: float = 0.15
    threads: int = 1
    recent_steps: int = 168
    series_inputs: bool = False


@dataclass(frozen=True)
class Fitted:
    """What a fit came to."""

    architecture: Architecture
    weights: bytes
    checks: PreflightReport
    outcome: TrainingOutcome
    skill: TailSkill
    training: dict[str, Any]  # what the registry keeps: data, settings, curve, skill


def fit_first_version(
    history: History,
    plan: FitPlan,
    registry: Registry,
    *,
    actor: str,
    now_ms: int,
    console: Console,
    progress_stream: TextIO,
) -> int:
    """The number of the version that was fitted on a history and registered; its summary is printed.

    Raises:
        DataError: the history is too short, or holds nothing to learn from.
        VersionError: the training exploded.
        ServiceUnreachable: Redis did not answer: before the training starts, or for ten minutes after it.
    """
    registry.aliases()
    fitted = fit(history, plan, console, progress_stream)

    def register() -> int:
        return registry.register(
            fitted.architecture,
            fitted.weights,
            training=fitted.training,
            parent=None,
            actor=actor,
            reason="fit",
            now_ms=now_ms,
        )

    version = patiently(register, REGISTER_S)  # a training is worth the wait; asked twice, it is registered once
    incumbent = patiently(registry.aliases, REGISTER_S).incumbent
    if incumbent == version:
        _say(console, f"registered version {version}: it is the incumbent and answers from now on")
    else:
        _say(console, f"registered version {version}; the incumbent stays version {incumbent}")
    return version


def fit(history: History, plan: FitPlan, console: Console, progress_stream: TextIO) -> Fitted:
    """A version fitted on a history, with its summary printed and nothing registered.

    Raises:
        DataError, VersionError: as `fit_first_version`.
    """
    start_tensorflow(plan.threads)
    from models.preflight import preflight  # noqa: PLC0415 - these bring TensorFlow
    from models.sequences import Spans  # noqa: PLC0415
    from models.weights import weights_to_bytes  # noqa: PLC0415
    from worker.tail import tail_skill  # noqa: PLC0415

    partition, block = observations(history, plan.form, console)
    rows = partition.series.look(block.slot, block.step, block.values, block.present)
    steps = int(rows.step.max() - rows.step.min()) + 1
    spans = Spans.by_share(steps, plan.validation, plan.evaluation, plan.architecture.horizon)
    network = with_series(plan.architecture, partition.names) if plan.series_inputs else plan.architecture
    architecture, sequences = prepared(network, plan.form, rows, spans)
    _print_spans(console, plan.form, spans, sequences.first_step, len(partition.names), len(block))
    checks = preflight(architecture, sequences, spans, plan.training)
    for check in checks.checks:
        _say(console, f"preflight  {'passed' if check.passed else 'FAILED'}  {check.name}: {check.words}")
    outcome = _train(architecture, sequences, spans, plan.training, progress_stream)
    _print_outcome(console, outcome)
    found = tail_skill(architecture, outcome.weights, plan.form, block, sequences.first_step, spans)
    _print_skill(console, found)
    data = {
        "series": len(partition.names),
        "observations": len(block),
        "since": rfc3339(int(block.step.min()) * plan.form.interval_ms),
        "until": rfc3339(int(block.step.max()) * plan.form.interval_ms),
        "sha256": digest(history),
    }
    inputs = _inputs(plan, block, sequences.first_step + spans.train_end)
    return Fitted(
        architecture=architecture,
        weights=weights_to_bytes(outcome.weights, architecture),
        checks=checks,
        outcome=outcome,
        skill=found,
        training={**record(plan, data, spans, checks, outcome, found), "inputs": inputs},
    )


def prepared(architecture: Architecture, form: SeriesForm, rows: Rows, spans: Spans) -> tuple[Architecture, Sequences]:
    """The architecture with all that it takes from the training span, and the sequences to train it on.

    Where it has inputs for series, these are all the series of the rows, by slot.

    Raises:
        DataError: they would not fit into memory, or the training span holds no label.
    """
    from models.sequences import gains, sequences_of  # noqa: PLC0415 - this brings TensorFlow

    sequences = sequences_of(architecture, form, rows, names=[architecture.series])
    if not sequences.usable(0, spans.train_end):
        raise DataError(
            f"the training span ({spans.train_end} steps) holds no label",
            "give a longer history: a series' first period and all that is missing train nothing",
        )
    return with_gain(architecture, gains(sequences, spans.train_end)), sequences


def observations(history: History, form: SeriesForm, console: Console) -> tuple[Partition, Block]:
    """The observations that the running service would accept, judged by the same code, as one block.

    Raises:
        DataError: none is accepted.
    """
    partition, found = admitted(history, form)
    reasons: dict[str, int] = {}
    for refusal in found.refusals:
        reasons[refusal.reason] = reasons.get(refusal.reason, 0) + 1
    if found.duplicates:
        _say(console, f"dropped {found.duplicates:,} exact duplicates")
    for reason, count in sorted(reasons.items()):
        first = next(refusal for refusal in found.refusals if refusal.reason == reason)
        _say(console, f"left out as {reason}: {count:,}, the first: {first.error}")
    if not len(found.block):
        raise DataError("the history holds no observation that can be used", "see what was left out")
    return partition, found.block


def with_gain(architecture: Architecture, gain: tuple[float, ...]) -> Architecture:
    """The architecture with another gain; the "plain" form has none, so ones."""
    used = gain if architecture.has_gain else (1.0,) * architecture.horizon
    return msgspec.structs.replace(architecture, gain=used)


def with_series(architecture: Architecture, names: Sequence[str]) -> Architecture:
    """The architecture with an input for each of these series.

    Raises:
        VersionError: there are too many of them.
    """
    return msgspec.structs.replace(architecture, series=tuple(names))


def digest(history: History) -> str:
    """SHA-256 over a history's series and columns, in hexadecimal: which data a version has seen."""
    total = hashlib.sha256("\0".join((*history.series, "", *history.features)).encode())
    for column in (history.series_index, history.time_ms, history.values, history.present):
        total.update(np.ascontiguousarray(column).tobytes())
    return total.hexdigest()


def record(
    plan: FitPlan,
    data: dict[str, Any],
    spans: Spans,
    checks: PreflightReport,
    outcome: TrainingOutcome,
    skill: TailSkill,
) -> dict[str, Any]:
    """What the registry keeps of a training, as JSON values."""
    return {
        "kind": "fit",
        "data": data,
        "spans": asdict(spans),
        "settings": asdict(plan.training),
        "preflight": [asdict(check) for check in checks.checks],
        "curve": [
            {"epoch": e.epoch, "train_loss": e.train_loss, "validation_loss": e.validation_loss} for e in outcome.curve
        ],
        "best_epoch": outcome.best_epoch,
        "diagnosis": outcome.words,
        "seconds": round(outcome.seconds, 2),
        "skill": skill.as_json(),
    }


def _inputs(plan: FitPlan, block: Block, end_step: int) -> dict[str, Any]:
    """Histograms of the features over the training span, for the monitor to compare with what comes later."""
    shown = block.take(np.flatnonzero(block.step < end_step))
    return inputs_of(plan.form.features, shown.values, shown.present, shown.step, window_steps=plan.recent_steps)


def _train(
    architecture: Architecture,
    sequences: Sequences,
    spans: Spans,
    settings: TrainingSettings,
    stream: TextIO,
) -> TrainingOutcome:
    from models.epochs import train  # noqa: PLC0415

    with progress("training", settings.epochs, stream) as report:

        def on_epoch(epoch: EpochReport) -> None:
            mark = ", best so far" if epoch.best else ""
            losses = f"loss {epoch.train_loss:.4f}, validation {epoch.validation_loss:.4f}{mark}"
            report(epoch.epoch, losses)

        return train(architecture, sequences, spans, settings, on_epoch)


def _print_spans(console: Console, form: SeriesForm, spans: Spans, first_step: int, series: int, count: int) -> None:
    cuts = (0, spans.train_end, spans.validation_end, spans.end)
    days = [f"{rfc3339((first_step + cut) * form.interval_ms)}" for cut in cuts]
    _say(console, f"history    {series:,} series, {count:,} observations, {spans.end:,} steps")
    for name, begin, end in zip(("training", "validation", "held out"), days, days[1:], strict=False):
        _say(console, f"{name:10} {begin} … {end}")


def _print_outcome(console: Console, outcome: TrainingOutcome) -> None:
    best = outcome.best
    _say(
        console,
        f"training   loss {best.train_loss:.4f} (untrained {outcome.reference_train_loss:.4f}), "
        f"validation {best.validation_loss:.4f} (untrained {outcome.reference_validation_loss:.4f}); "
        f"epoch {best.epoch} of {len(outcome.curve)}, {outcome.steps:,} steps, {outcome.seconds:.1f} s",
    )
    _say(console, f"diagnosis  {outcome.words}")


def _print_skill(console: Console, found: TailSkill) -> None:
    table = Table(title="skill on the held-out tail (1 - MSE / MSE of the reference)")
    for heading in ("lead", "pairs", "MSE", "against persistence", "against seasonal naive"):
        table.add_column(heading, justify="right")
    for row in found.rows(SHOWN_LEADS):
        table.add_row(
            row.lead,
            f"{row.pairs:,}",
            _number(row.mse, ".4f"),
            _number(row.persistence, "+.3f"),
            _number(row.seasonal, "+.3f"),
        )
    console.print(table)
    _say(console, "errors are in standard deviations of each series over the training span")


def _say(console: Console, text: str) -> None:
    """Print a line as it is: names of series may hold what rich takes for markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)
