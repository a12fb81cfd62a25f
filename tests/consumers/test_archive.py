"""The archive: what was written comes back bit for bit, whatever breaks meanwhile, and pandas can read it."""

from __future__ import annotations

import io
import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from consumers.archive import START, Archive, Hole
from consumers.roster import Seat
from models.blocks import Block, empty_block, encode_block
from models.errors import ArchiveError, ConfigError
from tests.streams import FORM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMES = tuple(f"s{i}" for i in range(40))
HORIZONS = {1: 3, 2: 1, 30: 5}
_numbers = st.floats(allow_nan=False)
_singles = st.floats(width=32)


def block_of(rng: np.random.Generator, start: int, rows: int, versions: Sequence[int], sequence: int = 1) -> Block:
    """A block of `rows` observations that begins at an offset, with refused ones among them, NaN of any kind."""
    offset = start + np.sort(rng.choice(rows + 3, rows, replace=False))
    present = rng.random((rows, 2)) < 0.8
    values = np.where(present, rng.choice([0.0, -0.0, 1e-300, np.inf, 7.25], (rows, 2)), 0.0)
    bits = rng.integers(0, 2**32, (rows, 8), np.uint32)
    bits[rng.random((rows, 8)) < 0.3] = 0x7FC00001  # a NaN that is not NumPy's
    floats = bits.view(np.float32)
    return Block(
        start,
        start + rows + 3,
        offset,
        rng.integers(0, min(len(NAMES), 1 + start // 4), rows),
        rng.integers(-5, 2**40, rows),
        values,
        present,
        rng.random(rows).astype(np.float32),
        {version: np.ascontiguousarray(floats[:, : HORIZONS[version]]) for version in versions},
        {version: int(rng.integers(0, 2**32)) for version in versions},
        sequence,
    )


@st.composite
def ledgers(draw: st.DrawFn) -> list[Block]:
    """Blocks that follow each other: of any size, with roster commits between them, and spans that were refused."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    blocks: list[Block] = []
    at, sequence = draw(st.integers(0, 5)), 0
    for kind in draw(st.lists(st.sampled_from(("block", "block", "roster", "refused")), min_size=1, max_size=14)):
        if kind == "block":
            rows = draw(st.integers(1, 6))
            versions = draw(st.lists(st.sampled_from(sorted(HORIZONS)), unique=True))
            blocks.append(block_of(rng, at, rows, versions))
            at, sequence = blocks[-1].end, 1
        elif kind == "roster":
            sequence += draw(st.integers(1, 2))
            blocks.append(replace(empty_block(at, 2), sequence=sequence))
        else:
            at, sequence = at + 4, 1
    return blocks


def bits(blocks: Any) -> list[tuple[Any, ...]]:
    """Everything that a block is."""
    return [(block.start, block.end, block.sequence, encode_block(block)) for block in blocks]


def memory() -> Archive:
    """An archive in the memory."""
    return Archive("a", "m", fs._MockFileSystem())


# — what comes back —


@settings(max_examples=150)
@given(blocks=ledgers(), cuts=st.lists(st.integers(0, 14)), back=st.integers(0, 3))
def test_blocks_come_back_bit_for_bit(blocks: list[Block], cuts: list[int], back: int) -> None:
    """In files of any size, each call beginning with blocks that are there already."""
    archive = memory()
    edges = sorted({0, len(blocks), *(cut % (len(blocks) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        new = archive.write(3, blocks[max(0, begin - back) : end], NAMES, FORM)
        assert new == sum(map(len, blocks[begin:end]))
    if blocks:
        assert archive.place(3) == blocks[-1].place
    assert bits(archive.blocks(3)) == bits(blocks)
    assert archive.names(3) == list(NAMES[: max((int(b.slot.max()) + 1 for b in blocks if len(b)), default=0)])
    for after in {block.end for block in blocks} | {0, 5}:
        assert bits(archive.blocks(3, after)) == bits(b for b in blocks if b.end > after)
        assert bits(archive.blocks(3, until=after)) == bits(b for b in blocks if b.end <= after)


@given(blocks=ledgers(), cuts=st.lists(st.integers(0, 14)), pick=st.integers(0, 99))
def test_what_a_step_and_later_ones_need_comes_after_the_files_before_it(
    blocks: list[Block], cuts: list[int], pick: int
) -> None:
    """However steps are mixed: no file before the end that is given has one of them, and the next one has."""
    archive, written = memory(), []
    edges = sorted({0, len(blocks), *(cut % (len(blocks) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        archive.write(3, blocks[begin:end], NAMES, FORM)
        written.append((blocks[end - 1].end, [int(step) for block in blocks[begin:end] for step in block.step]))
    every = [step for _, steps in written for step in steps]
    wanted = every[pick % len(every)] if every else 0
    older = list(itertools.takewhile(lambda one: max(one[1], default=wanted - 1) < wanted, written))
    assert archive.before(3, wanted) == (older[-1][0] if older else -1)
    needed = bits(b for b in archive.blocks(3, archive.before(3, wanted)) if len(b) and b.step.max() >= wanted)
    assert needed == bits(b for b in blocks if len(b) and b.step.max() >= wanted)


# — what breaks —


class Disk(fs.FileSystemHandler):  # type: ignore[misc]
    """A disk that takes so many operations, and then no more; a write that it breaks off leaves half a file.

    As an object `store` it has no folders, and a file is there when its last byte is.
    """

    def __init__(self, *, store: bool = False) -> None:
        self.under = fs._MockFileSystem()
        self.store = store
        self.left = 1_000_000

    def spend(self) -> None:
        """One operation more."""
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")

    def get_type_name(self) -> str:
        """The name of the file system."""
        return "disk"

    def get_file_info(self, paths: list[str]) -> Any:
        """Of these paths."""
        return self.under.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        """Of a folder."""
        return self.under.get_file_info(selector)

    def create_dir(self, path: str, recursive: Any) -> None:
        """Make a folder."""
        self.spend()
        self.under.create_dir(path, recursive=recursive)

    def move(self, source: str, target: str) -> None:
        """Rename a file."""
        self.spend()
        self.under.move(source, target)

    def delete_file(self, path: str) -> None:
        """Remove a file, for which there is always room."""
        self.under.delete_file(path)

    def open_input_file(self, path: str) -> Any:
        """A file to be read."""
        return pa.PythonFile(self.under.open_input_file(path), mode="r")

    def open_output_stream(self, path: str, *_: Any) -> Any:
        """A file to be written."""
        self.spend()
        return pa.PythonFile(Halves(self, path), mode="w")

    def normalize_path(self, path: str) -> str:
        """The path."""
        return path

    def _no(self, *_: Any) -> Any:
        raise NotImplementedError

    copy_file = delete_dir = delete_dir_contents = delete_root_dir_contents = _no
    open_append_stream = open_input_stream = _no


class Halves(io.RawIOBase):
    """What is written goes in two halves, each an operation."""

    def __init__(self, disk: Disk, path: str) -> None:
        super().__init__()
        self._disk, self._path = disk, path
        self._halves: list[bytes] = []

    def writable(self) -> bool:
        """It can be written."""
        return True

    def write(self, data: Any) -> int:
        """Both halves."""
        whole = bytes(data)
        for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
            self._disk.spend()
            self._halves.append(half)
        return len(whole)

    def close(self) -> None:
        """What was written stays, on a store if it is whole."""
        if not self.closed and (len(self._halves) == 2 or not self._disk.store):
            self._disk.under.create_dir(self._path.rpartition("/")[0], recursive=True)
            with self._disk.under.open_output_stream(self._path) as stream:
                stream.write(b"".join(self._halves))
        super().close()


def course(seed: int = 1, count: int = 6) -> list[Block]:
    """Blocks that follow each other."""
    rng = np.random.default_rng(seed)
    blocks: list[Block] = []
    for _ in range(count):
        blocks.append(block_of(rng, blocks[-1].end if blocks else 0, 5, [1, 2]))
    return blocks


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("operations", range(11))
def test_a_death_at_any_step_of_a_write_is_repaired_by_the_next(
    operations: int, before: int, *, store: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between file and manifest, in the middle of either: what was there stays readable, and no block comes twice."""
    blocks = course()
    disk = Disk(store=store)
    archive = Archive("a", "m", fs.PyFileSystem(disk))
    monkeypatch.setattr(archive._folder, "_renames", not store)
    archive.write(0, blocks[:before], NAMES, FORM)
    disk.left = operations
    one = 3 if store else 5  # operations of one file
    with pytest.raises(ArchiveError, match="No space left") if operations < 2 * one else nullcontext():
        archive.write(0, blocks[:5], NAMES, FORM)
    assert not any(name.endswith(".part") for name in archive._folder.names("m/0"))
    disk.left = 1_000_000
    there = blocks[:5] if operations >= one else blocks[:before]
    assert archive.place(0) == (there[-1].place if there else START)
    assert bits(archive.blocks(0)) == bits(there)
    archive.write(0, blocks, NAMES, FORM)
    assert bits(archive.blocks(0)) == bits(blocks)
    assert archive.names(0) == list(NAMES[: max(int(b.slot.max()) + 1 for b in blocks)])
    files = {name for name in archive._folder.names("m/0") if name.endswith(".parquet")}
    assert files == {file["name"] for file in manifest_of(archive)["files"]}


def manifest_of(archive: Archive, partition: int = 0) -> Any:
    """The manifest as JSON."""
    data = archive._folder.read(f"m/{partition}/manifest.json")
    assert data is not None
    return json.loads(data)


def test_half_a_file_is_passed_over(tmp_path: Path) -> None:
    """Where a disk shows files before they are whole, one without its end is not there yet; the next write mends it."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    archive.write(0, blocks[:2], NAMES, FORM)
    data = manifest_of(archive)
    archive.write(0, blocks[2:], NAMES, FORM)
    (name,) = {file["name"] for file in manifest_of(archive)["files"]} - {file["name"] for file in data["files"]}
    file = tmp_path / "m" / "0" / name
    whole = file.read_bytes()
    (tmp_path / "m" / "0" / "manifest.json").write_text(json.dumps(data))
    for size in (0, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert archive.end(0) == blocks[1].end
        assert bits(archive.blocks(0)) == bits(blocks[:2])
    assert archive.write(0, blocks, NAMES, FORM) == sum(map(len, blocks[2:]))
    assert file.read_bytes() == whole
    assert bits(archive.blocks(0)) == bits(blocks)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_writers_lose_nothing_and_count_nothing_twice(order: tuple[int, int]) -> None:
    """A monitor that was believed dead writes its manifest last: the other's file is found all the same."""
    blocks = course(count=8)
    disk = fs._MockFileSystem()
    mine, zombie = Archive("a", "m", disk), Archive("a", "m", disk)
    mine.write(0, blocks[:2], NAMES, FORM)
    old = mine._folder.read("m/0/manifest.json")
    assert old is not None
    for writer in order:
        if writer == 0:
            mine.write(0, blocks[2:6], NAMES, FORM)
        else:  # it had read the manifest before the other wrote it
            newer = mine._folder.read("m/0/manifest.json")
            mine._folder.write("m/0/manifest.json", old)
            files = set(mine._folder.names("m/0")) - {f["name"] for f in json.loads(old)["files"]}
            taken = {name: mine._folder.read(f"m/0/{name}") for name in files if name.endswith(".parquet")}
            for name in taken:
                disk.delete_file(f"a/m/0/{name}")
            zombie.write(0, blocks[2:4], NAMES, FORM)
            for name, data in taken.items():
                assert data is not None
                mine._folder.write(f"m/0/{name}", data)
            assert newer is not None
    assert bits(mine.blocks(0)) == bits(blocks[:6])
    mine.write(0, blocks[4:], NAMES, FORM)
    assert bits(mine.blocks(0)) == bits(zombie.blocks(0)) == bits(blocks)
    assert len(manifest_of(mine)["files"]) == 4


def test_writers_side_by_side_on_a_real_disk(tmp_path: Path) -> None:
    """Four threads archive the same ledger in files of different sizes; every block is there once."""
    blocks = course(count=40)

    def work(size: int) -> None:
        archive = Archive(str(tmp_path), "m")
        for end in range(size, len(blocks) + 1, size):
            archive.write(0, blocks[:end], NAMES, FORM)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, size) for size in (2, 4, 5, 8)]:
            future.result()
    archive = Archive(str(tmp_path), "m")
    archive.write(0, blocks, NAMES, FORM)
    assert bits(archive.blocks(0)) == bits(blocks)
    assert archive.names(0) == list(NAMES)


@pytest.mark.parametrize("at", [0, 100, -200, -1])
def test_a_file_that_was_damaged_is_refused(tmp_path: Path, at: int) -> None:
    """One bit anywhere: the error names the file and both digests; blocks before it are still given."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    archive.write(0, blocks[:3], NAMES, FORM)
    archive.write(0, blocks[3:], NAMES, FORM)
    name = manifest_of(archive)["files"][1]["name"]
    file = tmp_path / "m" / "0" / name
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(bytes(data))
    read = archive.blocks(0)
    assert bits(next(read) for _ in range(3)) == bits(blocks[:3])
    with pytest.raises(ArchiveError, match=f"{name}.* is damaged: its SHA-256 is"):
        next(read)
    file.unlink()
    with pytest.raises(ArchiveError, match=f"{name}.* is not in"):
        list(archive.blocks(0))


def test_a_lost_manifest_is_made_again(tmp_path: Path) -> None:
    """The files say what is in them; a manifest that can't be read is refused, and may be removed."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    seats = [Seat(1, "incumbent", 0, 0)]
    archive.write(0, blocks[:3], NAMES, FORM, roster=seats)
    archive.write(0, blocks[3:5], NAMES, FORM)
    before = manifest_of(archive)
    file = tmp_path / "m" / "0" / "manifest.json"
    file.write_text("{")
    with pytest.raises(ArchiveError, match=r"manifest of partition 0 .* is damaged .*: remove it"):
        archive.end(0)
    file.unlink()
    assert bits(archive.blocks(0)) == bits(blocks[:5])
    assert archive.write(0, blocks[:5], NAMES, FORM) == 0
    assert manifest_of(archive) == before
    assert archive.roster(0) == tuple(seats)
    file.write_text(file.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ArchiveError, match="another format, known is 1: upgrade"):
        archive.end(0)


def test_a_file_may_be_given_up(tmp_path: Path) -> None:
    """It and the manifest moved away: the hole is named, and blocks still come, though it named the first series."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    archive.write(0, blocks[:2], NAMES, FORM)
    archive.write(0, blocks[2:4], NAMES, FORM)
    for name in (manifest_of(archive)["files"][0]["name"], "manifest.json"):
        (tmp_path / "m" / "0" / name).unlink()
    assert archive.write(0, blocks[4:], NAMES, FORM) == sum(map(len, blocks[4:]))
    holes: list[Hole] = []
    assert bits(archive.blocks(0, holes=holes)) == bits(blocks[2:])
    assert holes == [Hole(-1, blocks[1].end)]


def test_what_belongs_to_another_is_refused() -> None:
    """Another form, other series, another model's files: nothing is mixed."""
    archive = memory()
    blocks = course()
    archive.write(0, blocks[:3], NAMES, FORM)
    other = msgspec.structs.replace(FORM, half_life_steps=13.0)
    with pytest.raises(ArchiveError, match=f"is of form {FORM.digest()}, the ledger of {other.digest()}"):
        archive.write(0, blocks, NAMES, other)
    with pytest.raises(ArchiveError, match="they are not the first of the ledger's 40: it belongs to another ledger"):
        archive.write(0, blocks, ["x", *NAMES[1:]], FORM)
    with pytest.raises(ArchiveError, match="they are not the first of the ledger's 1"):
        archive.write(0, blocks, NAMES[:1], FORM)
    with pytest.raises(ArchiveError, match=r"a block names slot \d+, there are 5 names"):
        memory().write(0, blocks, NAMES[:5], FORM)
    data = archive._folder.read("m/0/manifest.json")
    assert data is not None
    archive._folder.write("other/0/manifest.json", data)
    with pytest.raises(ArchiveError, match="is of 'm', partition 0"):
        Archive("a", "other", archive._folder._fs).end(0)


def test_a_hole_is_told(tmp_path: Path) -> None:
    """Blocks that were let go unarchived: whoever reads over the hole hears of it, or has it listed."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    archive.write(0, blocks[:2], NAMES, FORM)
    archive.write(0, blocks[4:], NAMES, FORM, gone=blocks[3].end)
    holes: list[Hole] = []
    assert bits(archive.blocks(0, holes=holes)) == bits([*blocks[:2], *blocks[4:]])
    assert holes == [Hole(blocks[1].end, blocks[3].end)]
    with pytest.raises(ArchiveError, match=f"ended after offset {blocks[1].end} and up to {blocks[3].end} are gone"):
        list(archive.blocks(0))
    assert bits(archive.blocks(0, after=blocks[3].end)) == bits(blocks[4:])


def test_observations_that_were_cut_anew_come_once() -> None:
    """A ledger that lost its tail commits the same records in other blocks: what is archived already is left out."""
    first = course()
    rng = np.random.default_rng(9)
    anew = block_of(rng, first[4].start, 12, [1])
    archive = memory()
    archive.write(0, first[:5], NAMES, FORM)
    archive.write(0, [anew], NAMES, FORM)
    found = list(archive.blocks(0))
    offsets = np.concatenate([block.offset for block in found])
    assert (np.diff(offsets) > 0).all()
    assert bits(found[:5]) == bits(first[:5])
    assert found[5].start == first[4].end
    assert found[5].offset.tolist() == [at for at in anew.offset.tolist() if at >= first[4].end]


# — where —


def test_pandas_reads_a_file(tmp_path: Path) -> None:
    """One row per observation, with names for columns, null where there is nothing."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    blocks[2] = replace(blocks[2], pairs={}, checksums={})
    archive.write(7, blocks, NAMES, FORM)
    frame = pd.concat(pd.read_parquet(file) for file in sorted((tmp_path / "m" / "7").glob("*.parquet")))
    columns = ["partition", "offset", "series", "slot", "step", "time", "value_v", "value_w", "scale"]
    assert list(frame.columns) == [*columns, "pairs_1", "pairs_2"]
    assert len(frame) == 30
    offsets, slots, steps = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("offset", "slot", "step"))
    assert frame["offset"].tolist() == offsets.tolist()
    assert frame["series"].tolist() == [NAMES[i] for i in slots]
    assert (frame["time"].astype("int64") // 1 == steps * FORM.interval_ms).all()
    assert frame["time"].dt.tz is not None
    present = np.concatenate([b.present for b in blocks])
    assert (frame[["value_v", "value_w"]].notna().to_numpy() == present).all()
    assert frame["pairs_1"].isna().tolist() == [False] * 10 + [True] * 5 + [False] * 15
    np.testing.assert_array_equal(np.stack(frame["pairs_1"].iloc[:5].to_list()), blocks[0].pairs[1])


def test_any_file_system_of_pyarrow_will_do(tmp_path: Path) -> None:
    """A folder, a URI, and a part of another file system hold the same files."""
    blocks = course()
    (tmp_path / "sub").mkdir()
    kinds = [
        Archive(str(tmp_path / "one"), "m"),
        Archive((tmp_path / "two").as_uri(), "m"),
        Archive("", "m", fs.SubTreeFileSystem(str(tmp_path / "sub"), fs.LocalFileSystem())),
    ]
    for archive in kinds:
        archive.write(0, blocks, NAMES, FORM)
        assert bits(archive.blocks(0)) == bits(blocks)
    files = {tuple(sorted(p.name for p in (tmp_path / at / "m" / "0").iterdir())) for at in ("one", "two", "sub")}
    assert len(files) == 1


@pytest.mark.parametrize("path", ["nope://x", "s3://bucket/a b", "file://relative"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    """As a setting that can't be used, with its value."""
    with pytest.raises(ConfigError, match=f"archive.path '{path}' can't be used"):
        Archive(path, "m")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    file = tmp_path / "f"
    file.touch()
    with pytest.raises(ConfigError, match=r"is a file: name a folder"):
        Archive(str(file), "m")


def test_a_folder_that_takes_nothing_is_said() -> None:
    """The error names path and reason, and where to look."""
    archive = Archive("/proc/killick", "m")
    assert archive.end(0) == -1
    assert list(archive.blocks(0)) == []
    with pytest.raises(ArchiveError, match=r"in '/proc/killick' can't be written \(.*No such file.*see archive.path"):
        archive.write(0, course(), NAMES, FORM)


def test_parts_that_nobody_ends_are_swept(tmp_path: Path) -> None:
    """Half files of the last hour may be another's, older ones go."""
    archive = Archive(str(tmp_path), "m")
    blocks = course()
    archive.write(0, blocks[:2], NAMES, FORM)
    old, new = (tmp_path / "m" / "0" / f".x.{name}.part" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    archive.write(0, blocks, NAMES, FORM)
    assert not old.exists()
    assert new.exists()
    assert bits(archive.blocks(0)) == bits(blocks)


def test_seats_are_remembered_longer_than_a_roster_does() -> None:
    """What a seat became is known, and seats that the ledger has forgotten stay."""
    archive = memory()
    blocks = course()
    first, second = Seat(1, "incumbent", 0, 0), Seat(2, "incumbent", 3, 8)
    left = msgspec.structs.replace(first, leave_offset=8)
    archive.write(0, blocks[:1], NAMES, FORM, roster=[first])
    archive.write(0, blocks[:2], NAMES, FORM, roster=[left, second])
    archive.write(0, blocks[:4], NAMES, FORM, roster=[second])
    assert archive.roster(0) == (left, second)
    assert archive.roster(1) == ()
