"""Runs of a tuning with chosen errors, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from worker.tune_told import Learned, Run


def run_of(mse: float | None, split: int = 0, seed: int = 1, **changes: Any) -> Run:
    """A run with this error."""
    values: dict[str, Any] = {
        "split": split,
        "seed": seed,
        "mse": mse,
        "leads": () if mse is None else (mse, mse),
        "skill_persistence": None if mse is None else 1 - mse,
        "skill_seasonal": None if mse is None else 1 - mse / 2,
        "untrained": Learned(train_loss=1.0, validation_loss=1.0),
        "curve": (Learned(train_loss=0.9, validation_loss=0.8), Learned(train_loss=0.8, validation_loss=0.85)),
        "best_epoch": 1,
        "diagnosis": "good fit" if mse is not None else "exploded",
        "words": "good fit (validation loss 0.8 at epoch 1, 1.0 untrained)",
        "steps": 10,
        "seconds": 0.5,
        "pairs": 100,
        "persistence": 1.0,
        "seasonal": 2.0,
    }
    return Run(**(values | changes))


def runs_of(*splits: tuple[float, ...]) -> tuple[Run, ...]:
    """Runs with these errors, by split; the seeds of each count from 1."""
    return tuple(run_of(mse, split, seed) for split, values in enumerate(splits) for seed, mse in enumerate(values, 1))
