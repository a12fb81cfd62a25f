"""The architecture as checked JSON."""

from __future__ import annotations

import msgspec
import pytest

from models.architecture import LATER, MAX_SERIES, Architecture, Inputs
from models.errors import VersionError


def sample(**changes: object) -> Architecture:
    """A small architecture with two features, changed as told."""
    values: dict[str, object] = {
        "horizon": 3,
        "features": ("temp", "dewp"),
        "target": "temp",
        "gain": (0.5, 0.75, 1.0),
        "interval_ms": 3_600_000,
        "period_steps": 24,
        "units": (4,),
    } | changes
    return Architecture(**values)  # type: ignore[arg-type]


def test_json_comes_back_as_the_same_value_and_bytes() -> None:
    """An architecture read from its JSON equals the one written, bytes and digest included."""
    written = sample(cell="gru", units=(8, 4), inputs=Inputs(season_lags=(1, 6), squash=2.5))
    read = Architecture.from_json(written.to_json())
    assert read == written
    assert read.to_json() == written.to_json()
    assert read.digest == written.digest
    assert read.digest != sample().digest


STORED = (  # as the first killick wrote it
    b'{"format":1,"cell":"lstm","units":[4],"horizon":3,"form":"correction","features":["temp","dewp"],'
    b'"target":"temp","inputs":{"level":true,"delta":true,"lags":24,"season_lags":[],"calendar":true,'
    b'"missing":true,"squash":3.0},"gain":[0.5,0.75,1.0],"interval_ms":3600000,"period_steps":24,"head_inputs":true}'
)


def test_what_was_stored_before_there_were_more_choices_keeps_its_bytes() -> None:
    """An architecture of old is read, and written again as the same bytes, so that its digest still holds."""
    read = Architecture.from_json(STORED)
    assert read == sample()
    assert read.to_json() == STORED
    assert {name: getattr(read, name) for name in LATER} == LATER
    assert read.digest == "7dc1a166bf4e7c3daeb64e50eaf78148878431c64388e56931ef387b1e7fa49b"


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "softsign"},
        {"transform": "log"},
        {"transform": "yeo-johnson", "transform_lambda": 0.25},
        {"series": ("B", "A", 'Köln \U0001f321 "x"')},
        {"season_mean": 7},
    ],
)
def test_a_later_choice_is_written_where_it_is_made(changes: dict[str, object]) -> None:
    """It comes back, the digest differs, and a reader that does not know it would refuse it by name."""
    made = sample(**changes)
    assert Architecture.from_json(made.to_json()) == made
    assert made.digest != sample().digest
    assert set(msgspec.json.decode(made.to_json())) - set(msgspec.json.decode(STORED)) == set(changes)


def test_input_names_are_as_many_as_the_input_size_for_every_choice() -> None:
    """Each switch adds exactly the inputs that it names."""
    for bits in range(1, 16):
        inputs = Inputs(
            level=bool(bits & 1),
            delta=bool(bits & 2),
            calendar=bool(bits & 4),
            missing=bool(bits & 8),
            lags=5,
        )
        names = sample(inputs=inputs).input_names()
        assert len(names) == len(set(names)) == sample(inputs=inputs).input_size
    full = sample(inputs=Inputs(lags=2, season_lags=(3,))).input_names()
    assert full == (
        "level.temp",
        "level.dewp",
        "delta.temp",
        "delta.dewp",
        "lag.1",
        "lag.2",
        "season.3",
        "hour.sin",
        "hour.cos",
        "weekday.sin",
        "weekday.cos",
        "missing.temp",
        "missing.dewp",
    )


def test_the_ring_covers_the_furthest_step_that_an_input_looks_back() -> None:
    """Lags look back k steps, a season's lag k looks back a period less k, a delta one step."""
    assert sample(inputs=Inputs(lags=7)).ring_steps_needed == 7
    assert sample(inputs=Inputs(lags=7, season_lags=(4, 9))).ring_steps_needed == 20
    assert sample(inputs=Inputs(lags=0)).ring_steps_needed == 1
    assert sample(inputs=Inputs(lags=0, delta=False)).ring_steps_needed == 0
    assert sample(form="season", inputs=Inputs(lags=7)).ring_steps_needed == 23
    assert sample(season_mean=7).ring_steps_needed == 7 * 24


def test_the_base_of_a_season_is_the_newest_value_at_the_same_place_of_the_cycle() -> None:
    """Lead k looks back to the step that lies the least number of whole periods before its time."""
    season = sample(form="season", period_steps=3, horizon=7, gain=(1.0,) * 7, inputs=Inputs(season_lags=()))
    assert season.base_lags == (2, 1, 0, 2, 1, 0, 2)
    assert sample().base_lags == (0, 0, 0)


def test_shapes_and_counts_of_a_stacked_network_are_those_worked_out_by_hand() -> None:
    """Kernel, recurrent, bias and head have the shapes that Keras gives them."""
    lstm = sample(units=(4, 2), inputs=Inputs(lags=3, calendar=False, missing=False))  # I = 2 + 2 + 3
    assert lstm.weight_shapes() == {
        "layer0.kernel": (7, 16),
        "layer0.recurrent": (4, 16),
        "layer0.bias": (16,),
        "layer1.kernel": (4, 8),
        "layer1.recurrent": (2, 8),
        "layer1.bias": (8,),
        "head.kernel": (9, 3),
        "head.bias": (3,),
    }
    assert lstm.parameter_count == 7 * 16 + 4 * 16 + 16 + 4 * 8 + 2 * 8 + 8 + 9 * 3 + 3
    assert lstm.carried_size == 12
    gru = sample(cell="gru", units=(4,), head_inputs=False, inputs=Inputs(lags=3, calendar=False, missing=False))
    assert gru.weight_shapes()["layer0.bias"] == (2, 12)
    assert gru.weight_shapes()["head.kernel"] == (4, 3)
    assert gru.carried_size == 4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"units": ()}, "number of layers is 0"),
        ({"units": (4,) * 9}, "number of layers is 9"),
        ({"units": (4, 0)}, "units of layer 1 is 0"),
        ({"units": (1025,)}, "units of layer 0 is 1025"),
        ({"horizon": 0, "gain": ()}, "horizon is 0"),
        ({"horizon": 1025}, "horizon is 1025"),
        ({"gain": (1.0, 1.0)}, "2 values for 3 leads"),
        ({"gain": (1.0, 0.0, 1.0)}, "gain of lead 2"),
        ({"gain": (1.0, 1.0, float("nan"))}, "gain of lead 3"),
        ({"features": ()}, "number of features is 0"),
        ({"features": ("temp", "temp")}, "repeat a name"),
        ({"target": "wind"}, "'wind' is not among"),
        ({"interval_ms": 0}, "interval_ms is 0"),
        ({"inputs": Inputs(lags=-1)}, "inputs.lags is -1"),
        ({"inputs": Inputs(season_lags=(24,))}, "inputs.season_lags is 24"),
        ({"inputs": Inputs(season_lags=(2, 2))}, "repeat a lead"),
        ({"inputs": Inputs(squash=0.0)}, "inputs.squash is 0"),
        ({"cell": "rnn"}, "cell is 'rnn'"),
        ({"form": "raw"}, "form is 'raw'"),
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"transform": "sqrt"}, "transform is 'sqrt'"),
        ({"transform": "yeo-johnson", "transform_lambda": 2.5}, "transform_lambda is 2.5"),
        ({"transform": "yeo-johnson", "transform_lambda": float("nan")}, "transform_lambda is nan"),
        ({"transform": "yeo-johnson", "transform_lambda": 1.0}, "that changes nothing"),
        ({"transform": "log", "transform_lambda": 0.2}, "only 'yeo-johnson' takes it"),
        ({"series": ("A", "B", "A")}, "series 'A' has more than one input"),
        ({"series": ("A", "")}, "a series has 0 characters"),
        ({"series": ("A", "B" * 201)}, "a series has 201 characters: it must have 1 to 200"),
        ({"form": "season", "period_steps": 1}, "form is 'season' and period_steps is 1"),
        ({"inputs": Inputs(level=False, delta=False, lags=0, calendar=False, missing=False)}, "no inputs"),
    ],
)
def test_values_that_can_not_be_run_are_refused_by_name(changes: dict[str, object], says: str) -> None:
    """A refused architecture names what is wrong with it."""
    with pytest.raises(VersionError, match=says.replace("(", r"\(")):
        sample(**changes)


def test_as_many_series_as_there_may_be_have_an_input_each_and_one_more_is_refused() -> None:
    """Names as long as they may be can be read again; the refusal says how many, the limit and the cure."""
    names = tuple(f"{number:0>199}\x01" for number in range(MAX_SERIES))
    most = sample(series=names)
    assert most.input_size == sample().input_size + MAX_SERIES
    assert most.weight_shapes()["head.kernel"] == (4 + most.input_size, 3)
    assert Architecture.from_json(most.to_json()) == most
    with pytest.raises(VersionError) as refused:
        sample(series=(*names, "one more"))
    assert refused.value.message == "257 series would have an input each, the limit is 256"
    assert refused.value.cure == "fit fewer series, or set network.series = false"


def test_json_that_is_no_architecture_is_refused() -> None:
    """Foreign bytes, unknown fields and formats, wrong types and huge files raise VersionError only."""
    good = sample().to_json()
    fields = msgspec.json.decode(good)
    bad = [
        b"",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        good[:-1],
        good + b" " * (1 << 20),
        msgspec.json.encode(fields | {"format": 7}),
        msgspec.json.encode(fields | {"layers": 3}),
        msgspec.json.encode(fields | {"units": ["4"]}),
        msgspec.json.encode(fields | {"units": [True]}),
        msgspec.json.encode(fields | {"series": [1]}),
        msgspec.json.encode(fields | {"series": ["A", "A"]}),
        msgspec.json.encode({k: v for k, v in fields.items() if k != "gain"}),
        good.replace(b"0.75", b"1e999"),
        b'{"format":1,"x":' + b"[" * 100_000,
    ]
    for data in bad:
        with pytest.raises(VersionError):
            Architecture.from_json(data)
