"""Windows over error sums: which hours they hold, and what the figures of sums are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tally import COLUMNS, REFERENCES, reported_leads
from models.windows import KEPT_DAYS, KEPT_HOURS, LIFE, POOLED, SCALINGS, WINDOW_HOURS, Book, Key, figures, recent_skill

LEADS = reported_leads(3)
HOURS = st.lists(st.integers(-2_000, 2_000), min_size=1, max_size=12, unique=True).map(sorted)


def sums_of(count: int, seed: int = 0) -> np.ndarray:
    """Sums of so many groups `(count, leads + 1, COLUMNS)`: whole numbers, so that no order of adding matters."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 1_000, (count, len(LEADS) + 1, len(COLUMNS))).astype(np.float64)


def book_of(hours: list[int], seed: int = 0, version: int = 1) -> tuple[Book, np.ndarray]:
    """A book with these hours, and their sums."""
    book, sums = Book(), sums_of(len(hours), seed)
    book.add(version, LEADS, np.array(hours), sums)
    return book, sums


@given(HOURS, st.integers(-2_100, 2_100))
def test_a_window_holds_the_hours_before_the_one_that_is_not_complete(hours: list[int], newest: int) -> None:
    """The last 1, 24, 168 and 720 complete hours; the one that is not complete is in none of them."""
    book, sums = book_of(hours)
    for name, length in WINDOW_HOURS.items():
        inside = [newest - length <= hour < newest for hour in hours]
        np.testing.assert_array_equal(book.window(1, name, newest), sums[inside].sum(axis=0))
    np.testing.assert_array_equal(book.window(1, LIFE, newest), sums.sum(axis=0))
    days = dict(book.days(1, newest))
    assert list(days) == sorted({hour // 24 for hour in hours if hour // 24 < newest // 24})
    for day, found in days.items():
        np.testing.assert_array_equal(found, sums[[hour // 24 == day for hour in hours]].sum(axis=0))


@pytest.mark.parametrize(
    ("pairs", "newest"),
    [
        ({}, None),
        ({-3: 1}, -3),
        ({1: 40, 2: 40, 3: 4}, 3),  # well under way
        ({1: 40, 2: 40, 3: 3}, 2),  # just begun
        ({hour: 20 + (hour >= 12) for hour in range(100, 130)} | dict.fromkeys(range(130, 142), 1), 129),
        ({1: 100, 2: 12, 3: 9}, 2),  # a night that is quiet goes on
        ({hour: 100 if hour < 10 else 1 for hour in range(40)}, 39),  # nearly all died a day ago
        ({1: 100, 200: 1}, 1),  # a glitch
        ({1: 100, 200: 1, 9_000: 60, 20_000: 2}, 9_000),
    ],
)
def test_an_hour_counts_once_it_is_well_under_way(pairs: dict[int, int], newest: int | None) -> None:
    """A tenth of the fullest of the 24 before it is enough; a clock that runs ahead ends no window of the others."""
    book = Book()
    for version, share in ((1, 0.75), (2, 0.25)):
        sums = np.zeros((len(pairs), len(LEADS) + 1, len(COLUMNS)))
        sums[:, -1, COLUMNS["pairs"]] = [4 * count * share for count in pairs.values()]
        if pairs:
            book.add(version, LEADS, np.array(list(pairs)), sums)
    assert book.newest_hour() == newest


@given(HOURS, HOURS)
def test_sums_of_partitions_are_merged(one: list[int], other: list[int]) -> None:
    """Merged from the start, or only in what changed, it is as if there were one partition."""
    (first, mine), (second, theirs) = book_of(one, 1), book_of(other, 2)
    merged = Book()
    merged.merge([first, second])
    touched = second.add(1, LEADS, np.array(other), theirs)
    merged.merge([first, second], touched)
    whole = Book()
    for hours, sums in ((one, mine), (other, theirs), (other, theirs)):
        whole.add(1, LEADS, np.array(hours), sums)
    assert merged.leads == whole.leads
    assert merged.sums.keys() == whole.sums.keys()
    for key, found in whole.sums.items():
        np.testing.assert_array_equal(merged.sums[key], found)


def test_what_is_gone_everywhere_goes_from_the_merged_sums() -> None:
    """An hour that every partition let go of is not kept beside them."""
    first, _ = book_of([5])
    merged = Book()
    merged.merge([first])
    del first.sums[Key("hour", 1, 5)]
    merged.merge([first], {Key("hour", 1, 5)})
    assert set(merged.sums) == {Key("day", 1, 0), Key("life", 1)}


def test_only_what_no_window_reaches_is_outdated() -> None:
    """Hours for a month and a day, days for more than a year, the life for ever."""
    newest = 24 * 1_000
    edge, day = newest - KEPT_HOURS, 1_000 - KEPT_DAYS
    assert max(WINDOW_HOURS.values()) < KEPT_HOURS
    book, _ = book_of([edge - 1, edge, 24 * day - 1, 24 * day])
    assert book.outdated(newest) == {
        *(Key("hour", 1, hour) for hour in (edge - 1, 24 * day - 1, 24 * day)),
        Key("day", 1, day - 1),
    }


def test_a_version_without_pairs_in_a_window_has_empty_sums() -> None:
    """Zero in every column: its figures are not numbers, and its pairs none."""
    book, _ = book_of([10])
    found = figures(book.window(1, "1d", 500), LEADS, "scaled")
    assert found.pairs == 0
    assert not found.counts.any()
    for values in (found.mae, found.rmse, found.bias, found.mase, *found.skill.values()):
        assert np.isnan(values).all()
    assert book.versions == [1]
    assert book.add(2, LEADS, np.empty(0, np.int64), sums_of(0)) == set()


def test_skill_counts_once_its_window_is_nearly_full() -> None:
    """Of complete hours alone, all leads pooled; another version's hours don't fill it."""
    hours = [100, 101, 200, 250, 251, 252]
    book, sums = book_of(hours)
    book.add(2, LEADS, np.arange(90, 110), sums_of(20, 3))
    assert [recent_skill(book, 1, "7d", newest) for newest in (150, 251)] == [None, None]
    assert recent_skill(book, 3, "7d", 252) is None
    error, reference = (
        sums[:5, -1, COLUMNS[f"persistence.scaled_{name}"]].sum() for name in ("squared", "reference_squared")
    )
    assert recent_skill(book, 1, "7d", 252) == pytest.approx(1.0 - error / reference)
    assert recent_skill(book, 1, "7d", 900) is None  # nothing was met for long
    assert recent_skill(book, 1, "7d", 270) is None  # nor what came before a pause: 200 is the first hour of the week


@pytest.mark.parametrize("scaling", SCALINGS)
def test_figures_are_what_their_names_say(scaling: str) -> None:
    """From errors and references that are written down here, one lead at a time and pooled."""
    rng = np.random.default_rng(4)
    scale = 2.0 if scaling == "scaled" else 1.0
    errors = [rng.normal(size=n) for n in (5, 7, 4)]
    theirs = {name: [rng.normal(size=len(e)) for e in errors] for name in ("persistence", "seasonal")}
    prefix = "scaled_" if scaling == "scaled" else ""
    sums = np.zeros((4, len(COLUMNS)))

    def put(name: str, parts: list[float]) -> None:
        sums[:, COLUMNS[name]] = [*parts, sum(parts)]

    put(f"{prefix}count", [len(e) for e in errors])
    put(f"{prefix}error", [e.sum() / scale for e in errors])
    put(f"{prefix}absolute", [np.abs(e).sum() / scale for e in errors])
    put(f"{prefix}squared", [(e**2).sum() / scale**2 for e in errors])
    for name, reference in theirs.items():  # the reference lacks each lead's first
        put(f"{name}.{prefix}count", [len(e) - 1 for e in errors])
        put(f"{name}.{prefix}squared", [(e[1:] ** 2).sum() / scale**2 for e in errors])
        put(f"{name}.{prefix}reference_squared", [(r[1:] ** 2).sum() / scale**2 for r in reference])
        put(f"{name}.{prefix}reference_absolute", [np.abs(r[1:]).sum() / scale for r in reference])
    sums[-1, COLUMNS["pairs"]] = 9
    found = figures(sums, LEADS, "scaled" if scaling == "scaled" else "unscaled")
    assert found.leads == ("1", "2", "3", POOLED)
    assert (found.pairs, found.counts.tolist()) == (9, [5, 7, 4, 16])
    every = [*errors, np.concatenate(errors)]
    np.testing.assert_allclose(found.mae, [np.abs(e).mean() / scale for e in every])
    np.testing.assert_allclose(found.rmse, [np.sqrt((e**2).mean()) / scale for e in every])
    np.testing.assert_allclose(found.bias, [e.mean() / scale for e in every])
    one_ahead = np.abs(theirs["persistence"][0][1:]).mean()
    np.testing.assert_allclose(found.mase, [np.abs(e).mean() / one_ahead for e in every])
    for name in REFERENCES:
        reference = theirs[name]
        parts = [([e[1:]], [r[1:]]) for e, r in zip(errors, reference, strict=True)]
        parts.append(([e[1:] for e in errors], [r[1:] for r in reference]))
        skill = [1 - np.mean(np.concatenate(e) ** 2) / np.mean(np.concatenate(r) ** 2) for e, r in parts]
        np.testing.assert_allclose(found.skill[name], np.array(skill))
