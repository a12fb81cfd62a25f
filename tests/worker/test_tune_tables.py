"""What is said of a tuning: the ranking, how sure it is, and what to do."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from tests.worker import tune_samples
from worker.tune_tables import advice, show
from worker.tune_told import Check, Tuned


def printed(told: Tuned, width: int = 200) -> str:
    """What is printed on a console so wide."""
    file = io.StringIO()
    show(told, Console(file=file, width=width))
    return file.getvalue()


def judged(gain: float, interval: tuple[float, float] | None, skill: float = 0.3) -> Tuned:
    """A tuning whose check came to this."""
    told = tune_samples.told()
    assert told.check is not None
    check = msgspec.structs.replace(told.check, gain=gain, gain_interval=interval, skill_persistence=skill)
    return msgspec.structs.replace(told, check=check)


def test_the_ranking_is_a_row_each_with_the_settings_as_they_are_among_them() -> None:
    """The best first, those that can't be told from it marked, trial 0 wherever it stands, and what each changes."""
    told = tune_samples.told()
    rows = [line.split("│")[1:-1] for line in printed(told).splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert [int(row[1]) for row in cells if row[0]] == list(told.ranking)[:12]
    assert [int(row[1]) for row in cells if row[0].endswith("=")] == [n for n in told.tied if n in told.ranking[:12]]
    best = next(one for one in told.trials if one.number == told.ranking[0])
    assert cells[0][2] == f"{best.mse:.4g}"
    for key, value in best.changed.items():
        assert f"{key.split('.')[1]} {value}" in cells[0][-1]
    assert any(row[-1] == "as they are" for row in cells)


def test_all_that_matters_is_said() -> None:
    """Best, certainty, diagnosis, check, repeats and cost stand there, and the TOML to paste comes last."""
    told = tune_samples.told()
    said = printed(told)
    assert isinstance(told.check, Check)
    for word in ("best  ", "sure?  ", "diagnosis  ", "check  ", "repeats  ", "cost  "):
        assert f"\n{word}" in said
    assert f"{told.check.best_mse:.4g}" in said
    assert said.rstrip().endswith(told.toml.rstrip())
    for sample in (tune_samples.one_repeat(), tune_samples.as_they_are(), tune_samples.nothing()):
        assert printed(sample, width=80)
    assert "one repeat says nothing of luck" in printed(tune_samples.one_repeat())


@pytest.mark.parametrize(
    ("gain", "interval", "skill", "said"),
    [
        (0.05, (0.02, 0.08), 0.3, "paste what follows: it is better on the span that the search has not seen"),
        (0.05, (-0.02, 0.12), 0.3, "may be better, but on the span that the search has not seen the difference is"),
        (-0.05, (-0.1, 0.0), 0.3, "keep the settings as they are"),
        (0.05, None, 0.3, "if you trust one repeat"),
        (0.05, (0.02, 0.08), -0.1, "no better than persistence"),
    ],
)
def test_the_advice_is_the_checks(gain: float, interval: tuple[float, float] | None, skill: float, said: str) -> None:
    """What to do follows from the span that the search has not seen, and persistence comes before all."""
    told = judged(gain, interval, skill)
    assert said in advice(told)
    assert (told.toml in printed(told)) == (gain > 0)


def test_without_a_check_the_advice_says_on_what_it_rests() -> None:
    """The spans that it was chosen on, then; and where the settings as they are are the best, to keep them."""
    told = msgspec.structs.replace(tune_samples.told(), check=None)
    assert "on the spans that it was chosen on" in advice(told)
    assert "keep the settings as they are" in advice(tune_samples.as_they_are())
    assert "nothing was found" in advice(tune_samples.nothing())
