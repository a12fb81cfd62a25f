"""A version's weights: fresh ones, and their safetensors bytes, checked before anything is allocated."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from safetensors import numpy as safetensors

from models.errors import VersionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.architecture import Architecture, Weights
    from models.choices import HeadStart, Start

HEAD_KERNEL = "head.kernel"
MAX_HEADER_BYTES = 1 << 16
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_CURE = "export the version anew from where it was made"


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What the header of a safetensors file says about one tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def fresh_weights(
    architecture: Architecture, seed: int, start: Start = "glorot", head_start: HeadStart = "zero"
) -> Weights:
    """Untrained weights: kernels by `start`, orthogonal recurrent ones, forget bias 1, other biases 0.

    While the head is zero, the untrained network is its own reference forecast (persistence in the
    "correction" form); a `head_start` of "drawn" draws its kernel as the others. "glorot", "he" and "lecun" are
    uniform: Glorot & Bengio (2010); He et al. (2015), arXiv:1502.01852; LeCun et al. (1998), "Efficient BackProp".
    "orthogonal": Saxe et al. (2014), arXiv:1312.6120. The forget bias: Jozefowicz et al. (2015).
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, shape in architecture.weight_shapes().items():
        if name.endswith(".bias") or (name == HEAD_KERNEL and head_start == "zero"):
            weights[name] = np.zeros(shape, np.float32)
        elif name.endswith(".recurrent") or start == "orthogonal":
            weights[name] = _orthogonal(rng, shape[0], shape[1])
        else:
            limit = math.sqrt(_square_of_limit(start, shape[0], shape[1]))
            weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
    if architecture.cell == "lstm":
        for layer, units in enumerate(architecture.units):
            weights[f"layer{layer}.bias"][units : 2 * units] = 1.0
    return weights


def with_zero_head(weights: Weights) -> Weights:
    """The weights with the head at zero: the network is then its own reference forecast."""
    return {name: np.zeros_like(w) if name.startswith("head.") else w for name, w in weights.items()}


def _square_of_limit(start: Start, fan_in: int, fan_out: int) -> float:
    """Three times the variance that a uniform start gives a kernel."""
    if start == "he":
        return 6.0 / fan_in
    return 3.0 / fan_in if start == "lecun" else 6.0 / (fan_in + fan_out)


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """A (rows, columns) matrix with orthonormal rows, or columns where there are fewer of them."""
    longer, shorter = max(rows, columns), min(rows, columns)
    q, r = np.linalg.qr(rng.normal(size=(longer, shorter)))
    q *= np.sign(np.diag(r))
    return np.ascontiguousarray((q.T if columns >= rows else q).astype(np.float32))


def check_weights(architecture: Architecture, weights: Weights) -> None:
    """Return if the weights are those of the architecture: names, shapes, float32, all finite.

    Raises:
        VersionError: they are not.
    """
    shapes = architecture.weight_shapes()
    _check_names(set(weights), set(shapes))
    for name, shape in shapes.items():
        tensor = weights[name]
        if tensor.dtype != np.float32 or tensor.shape != shape:
            raise VersionError(
                f"weight {name} is {tensor.dtype} {tensor.shape}, the architecture wants float32 {shape}",
                _CURE,
            )
        if not np.isfinite(tensor).all():
            raise VersionError(f"weight {name} holds {int((~np.isfinite(tensor)).sum())} numbers not finite", _CURE)


def _check_names(found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        missing, foreign = sorted(wanted - found), sorted(found - wanted)
        raise VersionError(f"weights don't fit the architecture: missing {missing}, foreign {foreign}", _CURE)


def weights_to_bytes(weights: Weights, architecture: Architecture) -> bytes:
    """The weights as a safetensors file, the same bytes for the same numbers.

    Raises:
        VersionError: the weights are not those of the architecture.
    """
    check_weights(architecture, weights)
    return safetensors.save({name: np.ascontiguousarray(weights[name]) for name in architecture.weight_shapes()})


def weights_from_bytes(data: bytes, architecture: Architecture, digest: str | None = None) -> Weights:
    """The weights in a safetensors file; its digest and its whole header are checked before allocation.

    Layout of the file: length of the header (8 bytes, little-endian), the header (JSON), the tensors
    (https://github.com/huggingface/safetensors, "Format").

    Raises:
        VersionError: another digest than `digest`, or names, types, shapes, places, sizes or numbers that
            are not those of the architecture.
    """
    if digest is not None and weights_digest(data) != digest:
        raise VersionError(f"the weights' digest is {weights_digest(data)}, {digest} was expected", _CURE)
    shapes = architecture.weight_shapes()
    entries, body_start = _header(data)
    _check_names(set(entries), set(shapes))
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        _check_entry(name, entry, shapes[name], expected_start=end)
        end = entry.data_offsets[1]
    if len(data) - body_start != end:
        raise VersionError(f"the weights hold {len(data) - body_start} bytes of numbers, {end} are described", _CURE)
    weights = {
        name: np.frombuffer(data, "<f4", math.prod(shape), body_start + entries[name].data_offsets[0])
        .reshape(shape)
        .astype(np.float32)
        for name, shape in shapes.items()
    }
    check_weights(architecture, weights)
    return weights


def _header(data: bytes) -> tuple[dict[str, _Entry], int]:
    """The entries by name, and where the numbers start."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    body_start = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or length > MAX_HEADER_BYTES or body_start > len(data):
        raise VersionError(
            f"the weights ({len(data)} bytes) are no safetensors file: a header of {length} bytes "
            f"(limit {MAX_HEADER_BYTES})",
            _CURE,
        )
    try:
        raw = msgspec.json.decode(data[_LENGTH_BYTES:body_start], type=dict[str, msgspec.Raw])
        raw.pop(_METADATA, None)
        return {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}, body_start
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VersionError(f"the header of the weights can't be read: {error}", _CURE) from error


def _check_entry(name: str, entry: _Entry, shape: tuple[int, ...], expected_start: int) -> None:
    start, end = entry.data_offsets
    if entry.dtype != "F32" or tuple(entry.shape) != shape:
        raise VersionError(
            f"weight {name} is {entry.dtype} {entry.shape}, the architecture wants F32 {list(shape)}", _CURE
        )
    if start != expected_start or end - start != 4 * math.prod(shape):
        raise VersionError(f"weight {name} lies at bytes {start}…{end}, it should start at {expected_start}", _CURE)


def weights_digest(data: bytes) -> str:
    """SHA-256 of a weights file, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
