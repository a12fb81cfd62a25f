"""The archive: blocks beyond what Redis keeps, as Parquet in a folder or an object store.

    <path>/<model>/<partition>/<after>-<until>-<SHA-256>.parquet    blocks: see consumers.archive_files
    <path>/<model>/<partition>/manifest.json    which files there must be, with their digests
    <path>/<model>/history/…                    what versions were fitted on: see consumers.archive_history

A file's name says where its blocks begin and end, and what its bytes are, so nothing is ever changed in place. A writer
puts the file there, then the manifest. If it dies between the two, or another writer's manifest comes last, the
file is found by its name and its digest, and the next write takes it up; half a file has another digest, and is
passed over. Where files overlap, whoever reads takes each block once.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from consumers.archive_files import (
    CURE,
    FORMAT,
    Contents,
    Place,
    SeriesFormWords,
    contents_of,
    decode_contents,
    decode_file,
    encode_file,
    words_of,
)
from consumers.archive_store import Folder
from consumers.roster import Seat  # noqa: TC001 - msgspec reads it
from models.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyarrow import fs

    from models.blocks import Block
    from models.scaling import SeriesForm

MANIFEST = "manifest.json"
START: Place = (-1, 0)  # before all blocks
LAST = (1 << 63) - 1  # sequence after all others
NAME = re.compile(r"(-?\d+)\.(\d+)-(\d+)\.(\d+)-([0-9a-f]{64})\.parquet")


class File(msgspec.Struct, frozen=True):
    """A file as the manifest has it."""

    name: str
    sha256: str
    bytes: int
    observations: int
    after: Place
    until: Place
    series: int  # that are known after it
    first_step: int | None = None
    last_step: int | None = None


class Manifest(msgspec.Struct, frozen=True):
    """Which files a partition has, and whose they are."""

    format: int
    model: str
    partition: int
    form: SeriesFormWords
    series_digest: str  # of the names that are known after the last file; "" where files that named some are gone
    files: tuple[File, ...]
    roster: tuple[Seat, ...] = ()

    @property
    def until(self) -> Place:
        """Where the newest block stands."""
        return max((file.until for file in self.files), default=START)

    @property
    def series(self) -> int:
        """How many series are known."""
        return max((file.series for file in self.files), default=0)


class Hole(NamedTuple):
    """Blocks that ended after one offset, and up to another, are gone for good."""

    after: int
    until: int


class Archive:
    """One model's archive; may be read while another writes."""

    def __init__(self, path: str, model: str, filesystem: fs.FileSystem | None = None) -> None:
        """At a folder's path or URI, or at a path of a file system of pyarrow.

        Raises:
            ConfigError: the path can't be used.
        """
        self.model = model
        self._folder = Folder(path, filesystem)

    def write(
        self,
        partition: int,
        blocks: Sequence[Block],
        names: Sequence[str],
        form: SeriesForm,
        *,
        roster: Sequence[Seat] = (),
        gone: int = -1,
    ) -> int:
        """Put blocks there that follow those that are there, as one file; how many observations were new.

        `names` are those of the ledger, by slot; `roster` is the ledger's. What is there already is passed over, so
        that a call may be repeated. Give only blocks that end before the ledger's next offset: at that one more may
        come. `gone`: up to this end blocks were let go that nobody archived; readers are told of the hole.

        Raises:
            ArchiveError: it can't be written, or the partition is one of another form or ledger.
        """
        manifest, adopted = self._manifest(partition)
        if manifest is not None:
            _check(manifest, names, form)
        before, known = (manifest.until, manifest.series) if manifest is not None else (START, 0)
        new = [block for block in blocks if block.place > before]
        if not new:
            if adopted and manifest is not None:
                self._put_manifest(manifest)
            return 0
        series = max([known, *(int(block.slot.max()) + 1 for block in new if len(block))])
        if series > len(names):
            raise ArchiveError(
                f"partition {partition}: a block names slot {series - 1}, there are {len(names)} names",
                "read the ledger's names after its blocks",
            )
        contents = Contents(
            format=FORMAT,
            model=self.model,
            partition=partition,
            form=words_of(form),
            after=max(before, after_end(gone)),
            until=new[-1].place,
            series_before=known,
            series=tuple(names[known:series]),
            roster=tuple(roster),
            **contents_of(new),  # type: ignore[arg-type]
        )
        data = encode_file(contents, new, names)
        file = _file_of(contents, hashlib.sha256(data).hexdigest(), len(data), new)
        self._folder.write(f"{self._at(partition)}/{file.name}", data)
        files = (*(manifest.files if manifest is not None else ()), file)
        seats = _with_seats(manifest.roster if manifest is not None else (), roster)
        self._put_manifest(
            Manifest(FORMAT, self.model, partition, words_of(form), _digest(names[:series]), files, seats)
        )
        self._folder.sweep(self._at(partition))
        return file.observations

    def end(self, partition: int) -> int:
        """The offset up to which blocks are archived; -1: none.

        Raises:
            ArchiveError: the archive can't be read.
        """
        return self.place(partition)[0]

    def place(self, partition: int) -> Place:
        """Where the newest block stands; `(-1, 0)`: nowhere.

        Raises:
            ArchiveError: the archive can't be read.
        """
        manifest, _ = self._manifest(partition)
        return manifest.until if manifest is not None else START

    def blocks(
        self, partition: int, after: int | Place = -1, until: int | None = None, holes: list[Hole] | None = None
    ) -> Iterator[Block]:
        """Blocks that end after an offset, or follow one that was read, and end not after `until`; oldest first.

        They are as they were written, but for what a block before them had already.
        Holes that are met are added to `holes`.

        Raises:
            ArchiveError: a file is not there, or is not what its digest says, or there is a hole and no list for it.
        """
        manifest, _ = self._manifest(partition)
        place = after_end(after) if isinstance(after, int) else after
        read = START if place[1] == LAST else place  # no observation comes twice
        files = manifest.files if manifest is not None else ()
        while chosen := _next_file(files, place):
            if until is not None and chosen.after >= after_end(until):
                return
            if place < chosen.after:
                tell(holes, Hole(place[0], chosen.after[0]), partition)
            for block in decode_file(self._verified(partition, chosen), chosen.name):
                if until is not None and block.end > until:
                    return
                if block.place > place:
                    yield following(block, read)
                    place = read = block.place
            place = max(place, chosen.until)

    def before(self, partition: int, step: int) -> int:
        """The end of the oldest files that have nothing of a step or of later ones; -1: there is none.

        Raises:
            ArchiveError: the archive can't be read.
        """
        manifest, _ = self._manifest(partition)
        files = sorted(manifest.files if manifest is not None else (), key=lambda file: file.until)
        older = itertools.takewhile(lambda file: file.last_step is None or file.last_step < step, files)
        return max((file.until[0] for file in older), default=-1)

    def names(self, partition: int) -> list[str]:
        """Series by slot, as far as blocks that are archived name them without a hole.

        Raises:
            ArchiveError: as `blocks`.
        """
        manifest, _ = self._manifest(partition)
        return self._names(partition, manifest.files if manifest is not None else ())

    def roster(self, partition: int) -> tuple[Seat, ...]:
        """Every seat that there was, as far as it was known when blocks were archived.

        Raises:
            ArchiveError: the archive can't be read.
        """
        manifest, _ = self._manifest(partition)
        return manifest.roster if manifest is not None else ()

    def _at(self, partition: int) -> str:
        return f"{self.model}/{partition}"

    def _manifest(self, partition: int) -> tuple[Manifest | None, bool]:
        """The manifest with the files that are there and it does not name yet, and whether there are such files.

        None: there is nothing.
        """
        data = self._folder.read(f"{self._at(partition)}/{MANIFEST}")
        manifest = _decoded(data, self.model, partition, self._folder.path) if data is not None else None
        named = {file.name for file in manifest.files} if manifest is not None else set()
        adopted = False
        for name in self._folder.names(self._at(partition)):
            found = NAME.fullmatch(name)
            if found is None or name in named:
                continue
            data = self._folder.read(f"{self._at(partition)}/{name}")
            if data is None or hashlib.sha256(data).hexdigest() != found[5]:
                continue  # half a file: its blocks are still in the ledger
            contents = decode_contents(data, name)
            blocks = list(decode_file(data, name))
            file = _file_of(contents, found[5], len(data), blocks)
            if manifest is None:
                manifest = Manifest(FORMAT, self.model, partition, contents.form, "", ())
            if contents.model != self.model or contents.partition != partition:
                raise ArchiveError(
                    f"{name} in {self._folder.path!r} is of {contents.model!r}, partition {contents.partition},"
                    f" not of {self.model!r}, partition {partition}",
                    "move it to where it belongs",
                )
            seats = _with_seats(manifest.roster, contents.roster)
            manifest = msgspec.structs.replace(manifest, files=(*manifest.files, file), roster=seats)
            adopted = True
        if adopted and manifest is not None:
            names = self._names(partition, manifest.files)
            digest = _digest(names) if len(names) == manifest.series else ""
            manifest = msgspec.structs.replace(manifest, series_digest=digest)
        return manifest, adopted

    def _names(self, partition: int, files: Sequence[File]) -> list[str]:
        names: list[str] = []
        for file in sorted(files, key=lambda file: file.series):
            if file.series > len(names):
                contents = decode_contents(self._verified(partition, file), file.name)
                if contents.series_before > len(names):
                    break  # the file that named those between is gone
                names += contents.series[len(names) - contents.series_before :]
        return names

    def _put_manifest(self, manifest: Manifest) -> None:
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        self._folder.write(f"{self._at(manifest.partition)}/{MANIFEST}", text)

    def _verified(self, partition: int, file: File) -> bytes:
        data = self._folder.read(f"{self._at(partition)}/{file.name}")
        if data is None:
            raise ArchiveError(f"{file.name} of partition {partition} is not in {self._folder.path!r}", CURE)
        found = hashlib.sha256(data).hexdigest()
        if found != file.sha256:
            raise ArchiveError(
                f"{file.name} of partition {partition} in {self._folder.path!r} is damaged: its SHA-256 is {found},"
                f" the manifest says {file.sha256}",
                CURE,
            )
        return data


def after_end(end: int) -> Place:
    """After all blocks that end here; -1: before all blocks."""
    return (end, LAST) if end >= 0 else START


def following(block: Block, place: Place) -> Block:
    """The block without what lies before a place: a ledger that lost its tail may have cut the same anew."""
    if not len(block) or int(block.offset[0]) >= place[0]:
        return block
    return replace(block.take(block.offset >= place[0]), start=place[0])


def tell(holes: list[Hole] | None, hole: Hole, partition: int) -> None:
    """Note a hole.

    Raises:
        ArchiveError: there is no list for it.
    """
    if holes is None:
        raise ArchiveError(
            f"partition {partition}: the blocks that ended after offset {hole.after} and up to {hole.until} are gone",
            "bring the archive's file back from a copy, or ask for what comes after the hole",
        )
    holes.append(hole)


def _next_file(files: Sequence[File], place: Place) -> File | None:
    """Of the files that go beyond a place the one that goes farthest; if all begin later, the first of these."""
    beyond = [file for file in files if file.until > place]
    joined = [file for file in beyond if file.after <= place]
    if joined:
        return max(joined, key=lambda file: (file.until, file.name))
    return min(beyond, key=lambda file: (file.after, file.name), default=None)


def _file_of(contents: Contents, sha256: str, size: int, blocks: Sequence[Block]) -> File:
    steps = [block.step for block in blocks if len(block)]
    after, until = contents.after, contents.until
    return File(
        name=f"{after[0]}.{after[1]}-{until[0]}.{until[1]}-{sha256}.parquet",
        sha256=sha256,
        bytes=size,
        observations=sum(contents.rows),
        after=after,
        until=until,
        series=contents.series_before + len(contents.series),
        first_step=min((int(step.min()) for step in steps), default=None),
        last_step=max((int(step.max()) for step in steps), default=None),
    )


def _with_seats(known: Sequence[Seat], more: Sequence[Seat]) -> tuple[Seat, ...]:
    """The seats of both, in the order in which they began; a seat that was left meanwhile once."""
    found = {(seat.version, seat.role, seat.start_offset, seat.join_offset): seat for seat in known}
    found |= {(seat.version, seat.role, seat.start_offset, seat.join_offset): seat for seat in more}
    return tuple(sorted(found.values(), key=lambda seat: seat.join_offset))


def _decoded(data: bytes, model: str, partition: int, path: str) -> Manifest:
    subject = f"the manifest of partition {partition} of {model!r} in {path!r}"
    try:
        known = msgspec.json.decode(data)["format"] == FORMAT
        manifest = msgspec.json.decode(data, type=Manifest) if known else None
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ArchiveError(f"{subject} is damaged ({error})", "remove it: the next write makes it anew") from error
    if manifest is None:
        raise ArchiveError(f"{subject} has another format, known is {FORMAT}", "upgrade killick")
    if (manifest.model, manifest.partition) != (model, partition):
        raise ArchiveError(
            f"{subject} is of {manifest.model!r}, partition {manifest.partition}", "give each model an own archive.path"
        )
    return manifest


def _check(manifest: Manifest, names: Sequence[str], form: SeriesForm) -> None:
    """Refuse to go on with the archive of another form or ledger."""
    subject = f"partition {manifest.partition} of {manifest.model!r} in the archive"
    if manifest.form != words_of(form):
        raise ArchiveError(
            f"{subject} is of form {manifest.form.digest}, the ledger of {form.digest()}",
            "use another archive.path, or another model name",
        )
    digest = _digest(names[: manifest.series]) if manifest.series_digest else ""
    if len(names) < manifest.series or digest != manifest.series_digest:
        raise ArchiveError(
            f"{subject} has {manifest.series} series, and they are not the first of the ledger's {len(names)}",
            "it belongs to another ledger of this name: use another archive.path",
        )


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(names).encode()).hexdigest()
