"""Weights: fresh ones, and their file."""

from __future__ import annotations

import json
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors

from models.architecture import Architecture, Inputs
from models.choices import STARTS, Start
from models.errors import VersionError
from models.weights import (
    check_weights,
    fresh_weights,
    weights_digest,
    weights_from_bytes,
    weights_to_bytes,
    with_zero_head,
)

ARCHITECTURE = Architecture(
    horizon=3,
    features=("x",),
    target="x",
    gain=(1.0, 1.0, 1.0),
    interval_ms=60_000,
    period_steps=60,
    units=(4, 2),
    inputs=Inputs(lags=2, calendar=False),
)
GOOD = weights_to_bytes(fresh_weights(ARCHITECTURE, 1), ARCHITECTURE)


def file_of(header: object, body: bytes) -> bytes:
    """A safetensors file put together by hand."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def header_and_body(data: bytes) -> tuple[dict[str, dict[str, object]], bytes]:
    """The two parts of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def test_weights_come_back_bit_for_bit_and_other_readers_agree() -> None:
    """What was written is read back with equal bits, by killick and by the safetensors library."""
    weights = fresh_weights(ARCHITECTURE, 5)
    data = weights_to_bytes(weights, ARCHITECTURE)
    read = weights_from_bytes(data, ARCHITECTURE, weights_digest(data))
    others = safetensors.load(data)
    assert set(read) == set(others) == set(weights)
    for name, tensor in weights.items():
        assert read[name].tobytes() == tensor.tobytes() == others[name].tobytes()
    assert weights_to_bytes(read, ARCHITECTURE) == data


def test_fresh_weights_are_those_of_the_named_initialisers() -> None:
    """Recurrent rows are orthonormal, kernels within Glorot's limit, the forget bias 1, the head 0."""
    weights = fresh_weights(ARCHITECTURE, 3)
    for layer, units in enumerate((4, 2)):
        recurrent = weights[f"layer{layer}.recurrent"]
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(units), atol=1e-6)
        kernel = weights[f"layer{layer}.kernel"]
        limit = (6 / sum(kernel.shape)) ** 0.5
        assert 0.5 * limit < np.abs(kernel).max() <= limit
        np.testing.assert_array_equal(weights[f"layer{layer}.bias"].reshape(4, units).sum(axis=1), [0, units, 0, 0])
    assert not weights["head.kernel"].any()
    assert not weights["head.bias"].any()


@pytest.mark.parametrize("start", STARTS)
def test_each_start_draws_kernels_as_its_paper_says(start: Start) -> None:
    """Uniform within the limit and with its variance, or orthonormal; what is not a kernel is as ever."""
    big = msgspec.structs.replace(ARCHITECTURE, units=(60, 40), horizon=90, gain=(1.0,) * 90)
    weights, plain = fresh_weights(big, 3, start, "drawn"), fresh_weights(big, 3)
    for name in ("layer0.kernel", "layer1.kernel", "head.kernel"):
        fan_in, fan_out = weights[name].shape
        kernel = weights[name].astype(float)
        if start == "orthogonal":
            products = kernel @ kernel.T if fan_in <= fan_out else kernel.T @ kernel
            np.testing.assert_allclose(products, np.eye(min(fan_in, fan_out)), atol=1e-5)
            continue
        variance = {"glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in, "lecun": 1 / fan_in}[start]
        assert kernel.var() == pytest.approx(variance, rel=0.1)
        assert 0.98 * (3 * variance) ** 0.5 < np.abs(kernel).max() <= (3 * variance) ** 0.5 * (1 + 1e-6)
    for name in ("layer0.recurrent", "layer1.recurrent"):
        np.testing.assert_allclose(weights[name] @ weights[name].T, np.eye(len(weights[name])), atol=1e-5)
    for name in ("layer0.bias", "layer1.bias", "head.bias"):
        assert weights[name].tobytes() == plain[name].tobytes()


def test_a_drawn_head_changes_nothing_but_the_head() -> None:
    """The layers below are those of the same seed with the head at zero; and the head can be put to zero again."""
    drawn, zero = fresh_weights(ARCHITECTURE, 3, "he", "drawn"), fresh_weights(ARCHITECTURE, 3, "he")
    assert drawn["head.kernel"].any()
    assert not zero["head.kernel"].any()
    again = with_zero_head(drawn)
    assert {name: w.tobytes() for name, w in again.items()} == {name: w.tobytes() for name, w in zero.items()}


def test_fresh_weights_follow_the_seed() -> None:
    """The same seed gives the same bytes, another seed gives others."""
    assert weights_to_bytes(fresh_weights(ARCHITECTURE, 1), ARCHITECTURE) == GOOD
    assert weights_to_bytes(fresh_weights(ARCHITECTURE, 2), ARCHITECTURE) != GOOD


def test_another_digest_is_refused() -> None:
    """One flipped bit in a file is noticed by its digest."""
    damaged = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
    weights_from_bytes(damaged, ARCHITECTURE)
    with pytest.raises(VersionError, match="digest"):
        weights_from_bytes(damaged, ARCHITECTURE, weights_digest(GOOD))


def test_a_header_that_describes_other_tensors_is_refused() -> None:
    """Names, types, shapes, places and sizes other than the architecture's raise VersionError."""
    header, body = header_and_body(GOOD)
    bias = header["head.bias"]
    changed = {
        "a missing tensor": {k: v for k, v in header.items() if k != "head.bias"},
        "a foreign tensor": header | {"extra": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
        "another type": header | {"head.bias": bias | {"dtype": "F64"}},
        "another shape": header | {"head.bias": bias | {"shape": [1, 3]}},
        "a huge shape": header | {"head.bias": bias | {"shape": [1 << 60]}},
        "another place": header | {"head.bias": bias | {"data_offsets": [4, 16]}},
        "an overlap": header | {"head.bias": header["head.kernel"]},
        "a backward place": header | {"head.bias": bias | {"data_offsets": [12, 0]}},
        "an unknown field": header | {"head.bias": bias | {"code": "x"}},
        "not an object": [1, 2],
    }
    for other in changed.values():
        with pytest.raises(VersionError):
            weights_from_bytes(file_of(other, body), ARCHITECTURE)
    for data in (file_of(header, body + b"\0"), file_of(header, body[:-4])):
        with pytest.raises(VersionError, match="bytes"):
            weights_from_bytes(data, ARCHITECTURE)
    assert set(weights_from_bytes(file_of(header | {"__metadata__": {"a": "b"}}, body), ARCHITECTURE)) == set(header)


def test_a_header_that_claims_to_be_huge_is_refused_before_it_is_read() -> None:
    """A length beyond the limit or the file is refused."""
    for length in (1 << 63, len(GOOD), (1 << 16) + 1):
        with pytest.raises(VersionError, match="no safetensors file"):
            weights_from_bytes(struct.pack("<Q", length) + GOOD[8:], ARCHITECTURE)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 700))
def test_no_bytes_raise_anything_but_a_version_error(noise: bytes, at: int) -> None:
    """Random bytes, alone or written over a good file, either load or raise VersionError."""
    for data in (noise, GOOD[:at] + noise + GOOD[at + len(noise) :]):
        try:
            weights_from_bytes(data, ARCHITECTURE)
        except VersionError:
            continue


def test_numbers_that_are_not_finite_and_wrong_types_are_refused_when_written_too() -> None:
    """Weights with NaN, float64 or another shape are refused by name."""
    wrong: list[tuple[str, np.ndarray]] = [
        ("head.bias", np.array([0, np.nan, 0], np.float32)),
        ("head.bias", np.zeros(3)),
        ("layer0.recurrent", np.zeros((2, 16), np.float32)),
    ]
    for name, value in wrong:
        weights = fresh_weights(ARCHITECTURE, 1)
        weights[name] = value
        with pytest.raises(VersionError, match=name):
            weights_to_bytes(weights, ARCHITECTURE)
    with pytest.raises(VersionError, match=r"foreign \['w'\]"):
        check_weights(ARCHITECTURE, fresh_weights(ARCHITECTURE, 1) | {"w": np.zeros(1, np.float32)})
