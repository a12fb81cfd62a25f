"""`killick bench damped-sine`: the published recipe and Killick's training in turns, on the same samples.

Each training has a process of its own, TensorFlow loaded before its clock starts: so every one of them compiles, and
none finds what another has left. Who goes first changes from seed to seed.
"""

from __future__ import annotations

import statistics
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.table import Table

from models.errors import KillickError
from worker.damped_waves import PUBLISHED_MAE, SAMPLES, TEST_SAMPLES, mean_absolute_error, samples_of
from worker.executors import PROCESSES, trainings
from worker.quiet import STDERR, held_back, start_tensorflow
from worker.report_numbers import NONE

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.damped_waves import Trained

Who = Literal["recipe", "killick"]
WHO: tuple[Who, ...] = get_args(Who)


@dataclass(frozen=True)
class Turn:
    """One training: its error on the test samples, and what it cost (`worker.damped_waves.Trained`)."""

    mae: float
    seconds: float
    steady_s: float
    cpu_s: float
    steps: int
    parameters: int


@dataclass(frozen=True)
class Pair:
    """The two trainings of one seed: on the same samples, tested on the same others."""

    seed: int
    recipe: Turn
    killick: Turn


@dataclass(frozen=True)
class Compared:
    """All turns: `samples` were trained on, each once, with `threads` for Killick's training."""

    pairs: tuple[Pair, ...]
    samples: int
    threads: int

    def turns(self, who: Who) -> list[Turn]:
        """One training a seed."""
        return [pair.recipe if who == "recipe" else pair.killick for pair in self.pairs]

    def ratios(self, cost: Literal["seconds", "steady_s", "cpu_s"]) -> list[float]:
        """Killick's cost as a share of the recipe's, by seed."""
        return [getattr(pair.killick, cost) / getattr(pair.recipe, cost) for pair in self.pairs]


def compare(seeds: int, samples: int, threads: int, tell: Callable[[int, str], None]) -> Compared:
    """The turns of seeds 1, 2, …; `tell` hears how many trainings are done, and the last one's error.

    Raises:
        KillickError: the process of a training ended by force.
    """
    pairs: list[Pair] = []
    for seed in range(1, seeds + 1):
        order: tuple[Who, Who] = ("recipe", "killick") if seed % 2 else ("killick", "recipe")
        found: dict[Who, Turn] = {}
        for who in order:
            found[who] = _in_process(who, seed, samples, threads)
            done = 2 * len(pairs) + len(found)
            tell(done, f"seed {seed}, {who}: MAE {found[who].mae:.4f}, {found[who].seconds:.1f} s")
        pairs.append(Pair(seed, found["recipe"], found["killick"]))
    return Compared(tuple(pairs), samples, threads)


def _in_process(who: Who, seed: int, samples: int, threads: int) -> Turn:
    try:
        with trainings(PROCESSES, 1) as executor:
            return executor.submit(take_turn, who, seed, samples, threads).result()
    except BrokenExecutor as error:
        raise KillickError(
            f"the process of a training ({who}, seed {seed}) ended by force ({error})", "was memory short?"
        ) from error


def take_turn(who: Who, seed: int, samples: int, threads: int) -> Turn:
    """One training in this process, which must be fresh: the recipe with TensorFlow as it starts, ours pinned."""
    training, test = samples_of(seed, samples)
    trained: Trained
    if who == "recipe":
        with held_back(STDERR):
            from worker import damped_keras  # noqa: PLC0415 - Keras and TensorFlow, in the child that needs them

            damped_keras.warm_up()
        trained = damped_keras.train_by_recipe(training, test, seed)
    else:
        start_tensorflow(threads)
        from worker import damped_training  # noqa: PLC0415 - TensorFlow, as it was pinned

        trained = damped_training.train_as_killick(training, test, seed)
    return Turn(
        mae=mean_absolute_error(trained.forecasts, test),
        seconds=trained.seconds,
        steady_s=trained.steady_s,
        cpu_s=trained.cpu_s,
        steps=trained.steps,
        parameters=trained.parameters,
    )


def as_object(compared: Compared) -> dict[str, Any]:
    """Everything measured, for `--json`; ratios are Killick's cost over the recipe's, medians over seeds."""
    found: dict[str, Any] = {
        "published_mae": PUBLISHED_MAE,
        "samples": compared.samples,
        "test_samples": TEST_SAMPLES,
        "threads": compared.threads,
    }
    for who in WHO:
        turns = compared.turns(who)
        errors = [turn.mae for turn in turns]
        found[who] = {
            "mae": statistics.fmean(errors),
            "mae_sd": statistics.stdev(errors) if len(errors) > 1 else None,
            "mae_worst": max(errors),
            "share_of_published": statistics.fmean(errors) / PUBLISHED_MAE,
            "seconds": statistics.median(turn.seconds for turn in turns),
            "steady_s": statistics.median(turn.steady_s for turn in turns),
            "cpu_s": statistics.median(turn.cpu_s for turn in turns),
            "steps": turns[0].steps,
            "parameters": turns[0].parameters,
        }
    found["ratio"] = statistics.median(compared.ratios("seconds"))
    found["ratio_worst"] = max(compared.ratios("seconds"))
    found["ratio_steady"] = statistics.median(compared.ratios("steady_s"))
    found["ratio_cpu"] = statistics.median(compared.ratios("cpu_s"))
    found["seeds"] = [asdict(pair) for pair in compared.pairs]
    return found


def table_by_seed(compared: Compared) -> Table:
    """Errors and seconds of both, seed by seed."""
    table = Table(title=f"Damped sine: {compared.samples:,} samples, each once; MAE on {TEST_SAMPLES:,} others")
    for name in ("seed", "recipe MAE", "killick MAE", "recipe s", "killick s", "ratio"):
        table.add_column(name, justify="right")
    for pair, ratio in zip(compared.pairs, compared.ratios("seconds"), strict=True):
        table.add_row(
            str(pair.seed),
            f"{pair.recipe.mae:.4f}",
            f"{pair.killick.mae:.4f}",
            f"{pair.recipe.seconds:.2f}",
            f"{pair.killick.seconds:.2f}",
            f"{ratio:.2f}",
        )
    return table


def table_of_both(compared: Compared) -> Table:
    """Means and spreads of the errors, and medians of what the trainings cost."""
    told = as_object(compared)
    table = Table(title=f"Published: MAE {PUBLISHED_MAE}, half of it {PUBLISHED_MAE / 2:.5f}")
    table.add_column()
    for name in ("recipe", "killick", "ratio"):
        table.add_column(name, justify="right")
    rows = (
        ("MAE, mean over seeds", "mae", ".4f"),
        ("± standard deviation", "mae_sd", ".4f"),
        ("MAE of the worst seed", "mae_worst", ".4f"),
        ("of the published MAE", "share_of_published", ".0%"),
        ("seconds from start to end", "seconds", ".2f"),
        ("seconds without compiling", "steady_s", ".2f"),
        ("seconds of all processors", "cpu_s", ".2f"),
        ("steps", "steps", ",d"),
        ("parameters", "parameters", ",d"),
    )
    ratios = {"mae": told["killick"]["mae"] / told["recipe"]["mae"], "seconds": told["ratio"]}
    ratios |= {"steady_s": told["ratio_steady"], "cpu_s": told["ratio_cpu"]}
    for title, name, form in rows:
        both = [told[who][name] for who in WHO]
        ratio = f"{ratios[name]:.2f}" if name in ratios else ""
        table.add_row(title, *(NONE if value is None else format(value, form) for value in both), ratio)
    return table


def words(compared: Compared) -> str:
    """What the tables come to, a sentence a line."""
    told = as_object(compared)
    ours = told["killick"]
    half = "less than half" if ours["mae"] < PUBLISHED_MAE / 2 else "not less than half"
    time = "no longer" if told["ratio"] <= 1.0 else "longer"
    short = "" if compared.samples == SAMPLES else f" On {compared.samples:,} of {SAMPLES:,} samples: a first look."
    return f"""\
Killick's training comes to {ours["share_of_published"]:.0%} of the published error ({half}) and takes {time} than the
recipe: {told["ratio"]:.2f} of its time, {told["ratio_worst"]:.2f} at worst.{short}
Both train the same network, two LSTM layers of 20 and a dense head, on the same samples and labels, each used once. In
Killick's training values are standardised, batches are larger, and the rate starts higher and falls.
Seconds are medians over seeds. The recipe is plain Keras on TensorFlow as it starts, with all processors; Killick's
training is pinned to threads: {compared.threads}."""
