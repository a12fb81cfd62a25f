"""The registry on Redis and on Valkey: what is registered comes back unchanged, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from models.errors import ServiceUnreachable, VersionError
from models.registry import CODE, Aliases, Registry
from models.server import call_function, connect
from models.weights import fresh_weights, weights_digest, weights_to_bytes
from tests.models.versions import register
from tests.streams import architecture_of

if TYPE_CHECKING:
    from models.server import Client
    from tests.conftest import NewRedis

OLD_CODE = Path(__file__).with_name("registry_v1.lua")  # as it was before there were changes to refuse


def test_the_first_version_becomes_incumbent_and_later_ones_do_not(client: Client) -> None:
    """Numbers count from 1; only the first registration moves an alias, and with it the generation."""
    registry = Registry(client, "weather")
    assert registry.aliases() == Aliases(None, None, None, 0, paused=False)
    assert registry.versions() == []
    assert register(registry, architecture_of()) == 1
    assert registry.aliases() == Aliases(1, None, None, 1)
    assert [register(registry, architecture_of(units=(4,)), seed, parent=1) for seed in (1, 2)] == [2, 3]
    assert registry.aliases() == Aliases(1, None, None, 1)


def test_models_do_not_see_each_other(client: Client) -> None:
    """Two models in one store have versions, aliases and partitions of their own."""
    one, other = Registry(client, "one"), Registry(client, "other")
    register(one, architecture_of())
    assert other.versions() == []
    assert other.aliases().incumbent is None
    one.set_partitions(12)
    assert (one.partitions(), other.partitions()) == (12, 0)
    assert register(other, architecture_of()) == 1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_was_registered_comes_back(client: Client, cell: str) -> None:
    """Architecture, the bytes of the weights, their arrays, and what is known of the version."""
    registry = Registry(client, "weather")
    architecture = architecture_of(cell=cell, units=(5, 3))
    register(registry, architecture_of(), seed=7)
    version = register(registry, architecture, seed=8, parent=1)
    found, data, weights = registry.load(version)
    expected = fresh_weights(architecture, 8)
    assert found == architecture
    assert data == weights_to_bytes(expected, architecture)
    assert all(np.array_equal(weights[name], array) for name, array in expected.items())
    first, second = registry.versions()
    assert (first.version, second.version) == (1, 2)
    assert (first.parent, second.parent) == (None, 1)
    assert second.weights_sha256 == weights_digest(data)
    assert second.architecture_sha256 == architecture.digest
    assert (second.actor, second.reason, second.created_ms) == ("ann", "seed 8", 1_700_000_000_008)
    assert second.training == {"epochs": 3, "loss": 0.5}


def test_versions_come_in_the_order_of_their_numbers(client: Client) -> None:
    """Twelve versions: 10 comes after 9, not after 1."""
    registry = Registry(client, "weather")
    for seed in range(12):
        register(registry, architecture_of(), seed)
    assert [info.version for info in registry.versions()] == list(range(1, 13))


def test_every_registration_leaves_an_audit_entry(client: Client) -> None:
    """Who, why and when, in order; the first registration also says that it made the incumbent."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    register(registry, architecture_of(), seed=1)
    found: Any = client.xrange("killick:{weather}:audit")
    entries = [fields for _, fields in found]
    said = [(entry[b"event"], entry[b"version"], entry[b"actor"], entry[b"reason"]) for entry in entries]
    assert said == [
        (b"register", b"1", b"ann", b"seed 0"),
        (b"incumbent", b"1", b"ann", b"the first version"),
        (b"register", b"2", b"ann", b"seed 1"),
    ]
    assert [int(entry[b"time_ms"]) for entry in entries] == [1_700_000_000_000] * 2 + [1_700_000_000_001]


def test_weights_of_another_architecture_are_refused_before_anything_is_written(client: Client) -> None:
    """A refusal uses up no number and leaves no key."""
    registry = Registry(client, "weather")
    other = architecture_of(units=(4,))
    with pytest.raises(VersionError):
        registry.register(
            architecture_of(),
            weights_to_bytes(fresh_weights(other, 0), other),
            training={},
            parent=None,
            actor="ann",
            reason="a mistake",
            now_ms=1,
        )
    assert client.keys("*") == []
    assert register(registry, architecture_of()) == 1


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(client: Client) -> None:
    """The message names the model, the number and what there is."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    with pytest.raises(VersionError, match=r"model 'weather' has no version 2: it has \[1\]"):
        registry.load(2)


def test_weights_that_changed_in_the_store_are_refused(client: Client) -> None:
    """One bit in the middle of the numbers: other bytes than were registered."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    stored: Any = client.hget("killick:{weather}:weights", "1")
    data = bytearray(stored)
    data[-30] ^= 1
    client.hset("killick:{weather}:weights", "1", bytes(data))
    with pytest.raises(VersionError, match="the weights of version 1 have SHA-256"):
        registry.load(1)


@pytest.mark.parametrize("text", [None, b"", b"{", b"[]", b"\xff"])
def test_an_architecture_that_changed_in_the_store_is_refused(client: Client, text: bytes | None) -> None:
    """Another valid architecture is told by its digest, anything else by what can't be read."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    changed = architecture_of(gain=(1.0, 1.0, 1.0, 1.5)).to_json() if text is None else text
    client.hset("killick:{weather}:architectures", "1", changed)
    with pytest.raises(VersionError, match="architecture"):
        registry.load(1)


def test_information_that_changed_in_the_store_is_refused(client: Client) -> None:
    """What can't be read is said to be damaged, with the version's number, in `load` and in `versions`."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    client.hset("killick:{weather}:infos", "1", b'{"actor": 1}')
    with pytest.raises(VersionError, match="version 1"):
        registry.load(1)
    with pytest.raises(VersionError, match="version 1"):
        registry.versions()


def test_fields_that_a_newer_killick_added_are_ignored(client: Client) -> None:
    """An older process goes on listing versions while a newer one registers them."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    info = msgspec.json.decode(client.hget("killick:{weather}:infos", "1") or b"")
    client.hset("killick:{weather}:infos", "1", msgspec.json.encode(info | {"verdict": "fine"}))
    assert registry.versions()[0].actor == "ann"


def test_functions_are_loaded_again_after_the_store_forgot_them(client: Client) -> None:
    """FUNCTION FLUSH, or a restore from a dump without functions, is no obstacle."""
    registry = Registry(client, "weather")
    register(registry, architecture_of())
    client.function_flush()
    assert register(registry, architecture_of(), seed=1) == 2


def test_a_store_that_does_not_answer_is_said_to_be_unreachable(new_redis: NewRedis) -> None:
    """Every method raises ServiceUnreachable with a cure, and exit code 3."""
    server = new_redis()
    registry = Registry(connect(server.url, timeout_s=1), "weather")
    register(registry, architecture_of())
    server.kill()
    for call in (
        registry.aliases,
        registry.versions,
        registry.partitions,
        lambda: registry.load(1),
        lambda: registry.set_partitions(1),
        lambda: register(registry, architecture_of()),
    ):
        with pytest.raises(ServiceUnreachable) as error:
            call()
        assert error.value.cure
        assert error.value.exit_code == 3
    server.restart()
    assert register(registry, architecture_of(), seed=1) == 2


def test_a_registration_that_is_sent_again_is_made_once(client: Client) -> None:
    """The same words give the same number, whatever came between; another time, or reason, is another version."""
    registry = Registry(client, "weather")
    assert [register(registry, architecture_of(), seed) for seed in (0, 1, 0, 1, 2)] == [1, 2, 1, 2, 3]
    assert [entry.event for entry in registry.audit()] == ["register", "incumbent", "register", "register"]


def test_a_registry_of_before_is_read_and_changed(client: Client) -> None:
    """State without `paused`, and audit entries without alias and generation, are those of an earlier killick."""
    registry = Registry(client, "weather")
    architecture = architecture_of()
    weights = weights_to_bytes(fresh_weights(architecture, 0), architecture)
    info = b'{"version":0,"weights_sha256":"%s","architecture_sha256":"%s","parent":null,"created_ms":5,'
    info += b'"actor":"ann","reason":"fit","training":{}}'
    info %= (weights_digest(weights).encode(), architecture.digest.encode())
    keys = [f"killick:{{weather}}:{name}" for name in ("state", "architectures", "weights", "infos", "audit")]
    words: list[bytes | str | int] = [architecture.to_json(), weights, info, "ann", "fit", 5]
    call_function(client, OLD_CODE, "killick_registry_v1_register", keys, words)
    assert registry.aliases() == Aliases(1, None, None, 1, paused=False)
    assert registry.statuses() == {}
    assert [(e.event, e.version, e.before, e.generation) for e in registry.audit()] == [
        ("register", 1, None, None),
        ("incumbent", 1, None, None),
    ]
    assert register(registry, architecture, seed=1) == 2
    assert registry.promote(2, expected=1, actor="bob", reason="better", now_ms=6) == Aliases(2, None, 1, 2)
    assert (registry.audit(1)[0].before, registry.audit(1)[0].generation) == (1, 2)
    assert registry.load(1)[1] == weights


def test_an_older_text_of_the_library_is_replaced(client: Client) -> None:
    """A server that holds the library under the same name, but without the function that is called, gets it."""
    text = CODE.read_text(encoding="utf-8")
    client.function_load(text[: text.index("redis.register_function('killick_registry_v3_promote'")], replace=True)
    registry = Registry(client, "weather")
    assert [register(registry, architecture_of(), seed) for seed in (0, 1)] == [1, 2]
    assert registry.promote(2, expected=1, actor="bob", reason="better", now_ms=6).incumbent == 2


def test_one_version_is_told_of_as_in_the_list(client: Client) -> None:
    """Without reading the others; one that is not there is none."""
    registry = Registry(client, "weather")
    for seed in range(3):
        register(registry, architecture_of(), seed)
    assert [registry.info(info.version) for info in registry.versions()] == registry.versions()
    assert registry.info(4) is None
