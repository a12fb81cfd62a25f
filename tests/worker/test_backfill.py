"""Past pairs: made again from recorded blocks they are those that a version issued, or would have issued."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pyarrow import fs

from consumers.archive import Archive
from consumers.ledger import Ledger
from consumers.recovery import SpinUp
from consumers.roster import Seat, reseated
from consumers.stream import Partition, Version, admit, fold
from models.errors import ArchiveError, DataError
from models.server import connect
from tests.consumers.living import CHUNK_SLOTS, DEPTH_STEPS, VERSIONS, Live
from tests.streams import FORM, NumpyScanner, Stream, architecture_of, stream_of
from worker.backfill import PastReplay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.blocks import Block

BLOCKS = 60
SIZE = 8
SERIES = 4
FIRST_STEP = 100
LATE = 240  # records before a new series comes
JOIN = 20  # the block before which version 2 joins
_THREE = architecture_of(horizon=3, series=("s2", "late", "s0"))
THIRD = Version(3, _THREE, NumpyScanner(_THREE, 3))


def walk() -> Stream:
    """Two steps of four series a block, some values missing, a gap that is bridged and one that is not.

    One series ends, and another comes in its place.
    """
    rng = np.random.default_rng(4)
    rows = []
    for i in range(BLOCKS * SIZE):
        late = 2 * (i > 100) + 9 * (i > 300)
        value = float(rng.normal()) if rng.random() < 0.9 else None
        name = "late" if i >= LATE and i % SERIES == 3 else f"s{i % SERIES}"
        rows.append((name, FIRST_STEP + i // SERIES + late, (value, float(i % 5))))
    return stream_of(rows)


@dataclass
class Recorded:
    """A partition that lived through the walk, with an archive beside it, and all its blocks as they were committed."""

    live: Live
    archive: Archive = field(default_factory=lambda: Archive("a", "m", fs._MockFileSystem()))
    blocks: list[Block] = field(default_factory=list)

    def replay(self, version: Version, since_step: int, depth_steps: int = DEPTH_STEPS) -> list[Block]:
        """What a backfill gives."""
        return list(PastReplay(self.live.ledger, self.archive, FORM, version).run(since_step, depth_steps))

    def keep(self, until: int) -> None:
        """Archive what ends up to an offset, and let the ledger go of it."""
        ledger = self.live.ledger
        self.archive.write(0, list(ledger.blocks(until=until)), ledger.names(), FORM, roster=ledger.roster())
        assert ledger.trim(until) > 0


@pytest.fixture
def recorded(redis_url: str) -> Iterator[Recorded]:
    """Version 1 answers from the first block on; version 2 is spun up, reads along, and leaves before the end."""
    client = connect(redis_url)
    live = Live(Ledger(client, "backfill", 0, "mine"))
    live.begin()
    stream = walk()
    for number in range(BLOCKS):
        if number == JOIN:
            start = live.plan.start_offset(live.newest_step, 0)
            live.plan.pin(2, start)
            spun = SpinUp(live.ledger, FORM, VERSIONS[2], start, live.plan.index)
            assert spun.advance(10_000, live.at)
            seats = reseated(live.partition.roster, offset=live.at, step=0, incumbent=1, shadows={2}, starts={2: start})
            live.seat(seats, spun)
        if number == BLOCKS - 8:
            live.seat(reseated(live.partition.roster, offset=live.at, step=0, incumbent=1, shadows=(), starts={}))
        live.take(stream, number * SIZE, (number + 1) * SIZE)
        live.publish()
        live.snapshot([0, 2, 4])
    yield Recorded(live, blocks=list(live.ledger.blocks()))
    client.close()


def bits_of(blocks: list[Block], version: int, since_step: int) -> dict[int, bytes]:
    """Offset → the pairs of a version there, without forecasts that were issued before a step."""
    found = {}
    for block in blocks:
        if version in block.pairs:
            leads = np.arange(1, block.pairs[version].shape[1] + 1)
            for offset, step, row in zip(block.offset.tolist(), block.step, block.pairs[version], strict=True):
                found[offset] = np.where(step - leads >= since_step, row, np.float32("nan")).tobytes()
    return found


def checks_of(blocks: list[Block], version: int) -> dict[int, int]:
    """Offset → checksum of the forecasts of the block that ends there."""
    return {block.end: block.checksums[version] for block in blocks if version in block.checksums}


@pytest.mark.parametrize("archived", [0, 30, 45])
@pytest.mark.parametrize("since_step", [0, FIRST_STEP + 45, FIRST_STEP + 90])
def test_pairs_of_a_version_that_was_live_come_again_bit_for_bit(
    recorded: Recorded, since_step: int, archived: int
) -> None:
    """From its start on, be it in the ledger or in the archive, and beyond where it left; both versions."""
    if archived:
        recorded.live.plan._pins.clear()
        recorded.keep(archived * SIZE)
        assert next(recorded.live.ledger.blocks()).end > archived * SIZE
    (start,) = {seat.start_offset for seat in recorded.live.ledger.roster() if seat.version == 2}
    assert 0 < start < JOIN * SIZE
    spun_from = {1: 0, 2: start}
    for version in (1, 2):
        found = recorded.replay(VERSIONS[version], since_step)
        assert [block.end for block in found] == [block.end for block in recorded.blocks if len(block)]
        again, wanted = bits_of(found, version, since_step), bits_of(recorded.blocks, version, since_step)
        if since_step - DEPTH_STEPS < FIRST_STEP and version == 2:
            continue  # it starts with the record here, not where it once did
        assert wanted.items() <= again.items()
        assert checks_of(recorded.blocks, version).items() <= checks_of(found, version).items()
        assert min(again) == spun_from[version]
        assert any(np.isfinite(block.pairs[version]).any() for block in found if block.end > (BLOCKS - 8) * SIZE)


def test_a_version_that_never_ran_is_folded_from_a_spin_up_before(recorded: Recorded) -> None:
    """Series state is that of the whole past, the version begins at zero; pairs equal those of a plain run."""
    since_step = FIRST_STEP + 70
    found = recorded.replay(THIRD, since_step)
    begin = next(b.start for b in recorded.blocks if len(b) and b.step.max() >= since_step - DEPTH_STEPS)
    partition, plain = Partition(FORM), []
    stream = walk()
    for first, end, offset in recorded.live.takes:
        if offset == begin:
            partition.seat([Seat(3, "shadow", begin, begin)], {3: THIRD})
        admitted = admit(partition, stream.arrivals(first, end, offset - first), max_series=99)
        plain.append(fold([(partition, admitted.block)], {3: THIRD})[0].block)
    assert bits_of(found, 3, since_step) == bits_of(plain, 3, since_step)
    assert 0 < min(bits_of(found, 3, since_step)) == begin
    issued = [b.step[:, None] - np.arange(1, 4) for b in found if 3 in b.pairs]
    counted = [np.isfinite(b.pairs[3]) for b in found if 3 in b.pairs]
    assert min(int(i[c].min()) for i, c in zip(issued, counted, strict=True) if c.any()) == since_step


def test_series_that_come_during_a_replay_have_their_inputs(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer is at work meanwhile: what the replay gives is what one gives that begins when all is there."""
    monkeypatch.setattr("worker.backfill.MERGED_OBSERVATIONS", SIZE)
    architecture = architecture_of(horizon=3, series=("newest", "s2", "late", "s0"))
    version = Version(3, architecture, NumpyScanner(architecture, 3))
    live = recorded.live
    replay = PastReplay(live.ledger, recorded.archive, FORM, version).run(FIRST_STEP, DEPTH_STEPS)
    found = [next(replay)]
    rows = [(f"s{i % 3}" if i < 12 else "newest", 300 + i, (float(i % 7), 1.0)) for i in range(24)]
    live.take(stream_of(rows), 0, 24)
    found += replay
    whole = recorded.replay(version, FIRST_STEP)
    assert found[-1].end == live.at
    assert bits_of(found, 3, FIRST_STEP) == bits_of(whole, 3, FIRST_STEP)
    assert checks_of(found, 3) == checks_of(whole, 3)
    assert np.isfinite(found[-1].pairs[3][-9:]).all()
    partition = Partition(FORM)
    partition.seat([Seat(3, "shadow", 0, 0)], {3: version})
    streams = [walk()] * (len(live.takes) - 1) + [stream_of(rows)]
    plain = []
    for stream, (first, end, offset) in zip(streams, live.takes, strict=True):
        admitted = admit(partition, stream.arrivals(first, end, offset - first), max_series=99)
        plain.append(fold([(partition, admitted.block)], {3: version})[0].block)
    assert bits_of(found, 3, FIRST_STEP) == bits_of(plain, 3, FIRST_STEP)


def test_where_the_history_is_gone_series_state_comes_from_snapshots(recorded: Recorded) -> None:
    """As far as they reach back the bits are the same; before that it is refused, with the reason."""
    live = recorded.live
    sinces = (FIRST_STEP + 122, FIRST_STEP + 124)
    whole = {since: recorded.replay(THIRD, since, 3) for since in sinces}
    live.plan.unpin(2)
    live.snapshot([0, 2, 4])
    assert live.trim() > 0
    first = next(live.ledger.blocks())
    assert first.start > 350
    for since, wanted in whole.items():
        found = recorded.replay(THIRD, since, 3)
        assert bits_of(found, 3, since) == bits_of(wanted, 3, since)
        assert any(np.isfinite(block.pairs[3]).any() for block in found if 3 in block.pairs)
        assert found[0].end == first.end
    for since, why in ((FIRST_STEP + 60, "the first block that there is reaches 1970-01-10T"), (0, "the first block")):
        with pytest.raises(DataError, match=why):
            recorded.replay(THIRD, since)


def test_a_start_before_the_oldest_snapshot_is_refused(recorded: Recorded) -> None:
    """An archive that began late has older blocks than there is series state for."""
    live = recorded.live
    live.plan.unpin(2)
    live.snapshot([0, 2, 4])
    blocks = [block for block in recorded.blocks if block.start >= 160]
    recorded.archive.write(0, blocks, live.ledger.names(), FORM, gone=160)
    assert live.trim() > 0
    with pytest.raises(DataError, match=r"the oldest series state that is kept is from offset \d+, the version would"):
        recorded.replay(THIRD, FIRST_STEP + 70)
    assert recorded.replay(THIRD, FIRST_STEP + 124, 3)


def test_a_hole_in_the_record_is_not_folded_over(recorded: Recorded) -> None:
    """What was let go without being archived is said, with where."""
    live = recorded.live
    live.plan._pins.clear()
    ledger = live.ledger
    recorded.archive.write(0, list(ledger.blocks(until=80)), ledger.names(), FORM)
    ledger.trim(160)
    with pytest.raises(ArchiveError, match="ended after offset 80 and up to 160 are gone"):
        recorded.replay(THIRD, FIRST_STEP + 60)


def test_other_scales_than_were_recorded_are_said_once(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """Another machine, or a record that is not the ledger's: the log names the first block."""
    blocks = [replace(block, scale=block.scale + np.float32(1)) for block in recorded.blocks]
    recorded.archive.write(0, blocks[:30], recorded.live.ledger.names(), FORM)
    recorded.replay(THIRD, FIRST_STEP)
    (entry,) = [r for r in caplog.records if getattr(r, "action", "") == "replay-mismatch"]
    assert f"before offset {SIZE} " in entry.getMessage()
    caplog.clear()
    recorded.archive = Archive("b", "m", fs._MockFileSystem())
    recorded.replay(THIRD, FIRST_STEP)
    assert not caplog.records


def test_chunks_are_smaller_than_the_partition() -> None:
    """The tests of snapshots mean something: there are several chunks."""
    assert SERIES > CHUNK_SLOTS
