"""The messages on the topics: their fields, and the JSON Schemas that `killick config schema` prints."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from consumers.stream import Reason  # noqa: TC001 - msgspec reads it at run time

TIME = "RFC 3339 with an offset, such as 2013-01-01T06:00:00Z"


class Observation(Struct):
    """One measurement of one series at one time. Unknown fields are ignored."""

    time: Annotated[str | int, Meta(description=f"{TIME}, or epoch milliseconds")]
    values: Annotated[
        dict[str, float | None],
        Meta(description="each feature of the model, finite, at most 1e30; null is missing"),
    ]
    series: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=200,
                description="may be left to the record's key; if both are there they agree",
            ),
        ]
        | UnsetType
    ) = UNSET


class Prediction(Struct):
    """One forecast: the values that one version issues at one observation, for leads 1…H."""

    model: Annotated[str, Meta(description="name of the model")]
    series: Annotated[str, Meta(description="series of the observation, also the record's key")]
    issued_at: Annotated[str, Meta(description=f"step of the observation: {TIME}")]
    version: Annotated[int, Meta(ge=1, description="version that made it")]
    target: Annotated[str, Meta(description="feature that is forecast")]
    valid_at: Annotated[list[str], Meta(description="time of each value, one step apart, lead 1 first")]
    values: Annotated[list[float | None], Meta(description="forecast for each time of valid_at")]


class DeadLetterHeaders(Struct, rename=lambda name: "killick-" + name.replace("_", "-")):
    """Headers added to a refused record; its key, bytes, timestamp and own headers are the original ones."""

    reason: Annotated[Reason, Meta(description="why it was refused, one word")]
    error: Annotated[str, Meta(description="why it was refused, for people")]
    topic: Annotated[str, Meta(description="topic that it was read from")]
    partition: Annotated[str, Meta(pattern="^[0-9]+$", description="partition that it was read from")]
    offset: Annotated[str, Meta(pattern="^[0-9]+$", description="offset that it was read from")]
    too_big: Annotated[str, Meta(description="1: the value is the SHA-256 and size of one too big")] | UnsetType = UNSET
    null_headers: Annotated[str, Meta(description="JSON list of headers that had no value")] | UnsetType = UNSET
    null_value: Annotated[str, Meta(description="1: the record had neither key nor value")] | UnsetType = UNSET


_KINDS: dict[str, type[Struct]] = {
    "observation": Observation,
    "prediction": Prediction,
    "deadletter": DeadLetterHeaders,
}
KINDS = tuple(_KINDS)


def message_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one kind of message, one of `KINDS`."""
    (schema,), definitions = msgspec.json.schema_components((_KINDS[kind],))
    del schema
    (body,) = definitions.values()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body}
