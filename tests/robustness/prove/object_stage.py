"""What an object store must not get wrong, played on one in this process: scenarios, and the bugs that they show."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from robustness.prove.mutants import apply
from robustness.prove.patching import undone
from support import object_store
from support.stores import url_in
from upload_server.domain.caller import Caller
from upload_server.domain.observer import Observer
from upload_server.domain.runs import Run
from upload_server.domain.states import FileSpec, Source
from upload_server.ingest import Ingest
from upload_server.sink.protocol import Doomed, SinkError, SinkFile
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.client import Bucket
from upload_server.sink.s3.sink import S3Sink
from upload_server.store.open import open_store
from upload_server.store.values import Command
from upload_server.upkeep.janitor import Janitor

MIB = 1024 * 1024
# Between the two looks of a deletion.
_SECOND_LOOK = 0.3
_PATIENCE = 20.0


@dataclass
class Place:
    """A bucket of a scenario's own, the sink on it, and what was found wrong."""

    bucket: object_store.Bucket
    sink: S3Sink
    file_id: str
    complaints: list[str]

    def must_read(self, runs: Sequence[Run], data: bytes) -> None:
        """The file's bytes, as its row would name them, are these."""
        try:
            found = b"".join(self.sink.read(self.file_id, runs, len(data), MIB))
        except SinkError as error:
            self.complaints.append(f"the file cannot be read: {error}")
        else:
            if found != data:
                self.complaints.append("the file has the bytes of another stream")

    def must_be_empty(self) -> None:
        """Nothing lies there any more."""
        self.complaints += [f"{name} is left" for name in (*self.bucket.objects(), *self.bucket.uploads())]

    def sent(self, fence: int, data: bytes) -> SinkFile:
        """A stream of this fence sends a whole file, which lies there then."""
        file = self.sink.open(self.file_id, (Run(fence, 0),), len(data), 0)
        file.append([data])
        file.sync()
        return file


async def replaced(place: Place) -> None:
    """A stream is replaced whose pieces no row counts; then it wakes and puts the file together."""
    old, new = b"old" * MIB, b"new" * MIB
    place.sent(1, old)
    place.sent(2, new)
    place.must_read((Run(2, 0),), new)
    for fence in (1, 2):
        try:
            place.sink.finish(place.file_id, (Run(fence, 0),), len(new))
        except SinkError as error:
            place.complaints.append(f"what lies there cannot be put together: {error}")
    place.must_read((Run(2, 0),), new)


async def completed_beside_its_abort(place: Place) -> None:
    """A file is cancelled, and its completion is carried out just before the abort."""
    place.sent(1, bytes(9 * MIB))
    bucket = place.sink._bucket
    key = f"done/{place.file_id}/1"
    upload_id = bucket.begin(key)
    tags = {1: bucket.put_part(key, upload_id, 1, bytes(9 * MIB))}

    class Late(Bucket):
        def open_uploads(self, folder: str) -> list[tuple[str, str]]:
            found = super().open_uploads(folder)
            if found:
                bucket.complete(key, upload_id, tags)
            return found

    sink = S3Sink(Late(bucket.address))
    for _ in range(2):
        sink.delete_all([Doomed(place.file_id, (1,))])
    place.must_be_empty()


async def completed(place: Place) -> None:
    """What a completed file leaves is deleted."""
    data = b"whole" * MIB
    place.sent(1, data)
    place.sink.finish(place.file_id, (Run(1, 0),), len(data))
    place.sink.delete_all([Doomed(place.file_id, (1,), kept=1)])
    if list(place.bucket.objects()) != [place.bucket.key(f"done/{place.file_id}/1")]:
        place.complaints.append(f"there lie {list(place.bucket.objects())}")


async def arrives_late(place: Place) -> None:
    """A file is cancelled under a stream whose piece arrives after the first deletion."""
    place.sink.second_look = _SECOND_LOOK  # type: ignore[misc]
    async with _house(place) as house:
        late = house.sink.open(house.file_id, (Run(1, 0),), 100, 0)
        late.append([b"on its way"])
        await house.cancel()
        await house.janitor.delete_owed()
        late.sync()
        async with asyncio.timeout(_PATIENCE):
            while await house.owed():
                await house.janitor.delete_owed()
                await asyncio.sleep(0.05)
    place.must_be_empty()


@dataclass
class _House:
    """A file on a store, a stream's place in the sink, and the janitor of both."""

    sink: S3Sink
    janitor: Janitor
    file_id: str
    cancel: Callable[[], Awaitable[object]]
    owed: Callable[[], Awaitable[Sequence[object]]]


@contextlib.asynccontextmanager
async def _house(place: Place) -> AsyncIterator[_House]:
    command = Command(Caller(Source.GRPC), "Test", _now())
    with tempfile.TemporaryDirectory() as folder:
        store = await open_store(url_in(Path(folder), "sqlite"))
        ingest = Ingest(store, place.sink, clock=_now, on_progress=lambda *_: None, observer=Observer())
        janitor = Janitor(store, place.sink, ingest, clock=_now, upload_ttl=1e6, request_ttl=1e6, observer=Observer())
        try:
            await store.initiate_upload(FileSpec("a", 100), place.file_id, command)
            await store.claim(place.file_id, 0, command)
            yield _House(
                place.sink,
                janitor,
                place.file_id,
                lambda: store.cancel_file(place.file_id, command),
                lambda: store.owed_deletions(10),
            )
        finally:
            await ingest.aclose()
            await store.close()


def _now() -> datetime:
    return datetime.now(UTC)


OBJECT_SCENARIOS: dict[str, Callable[[Place], Awaitable[None]]] = {
    each.__name__: each for each in (replaced, completed_beside_its_abort, completed, arrives_late)
}
# By bug: the scenario that shows it.
OBJECT_CATCHES = {
    "fence_not_in_piece_names": "replaced",
    "fence_not_in_whole_names": "replaced",
    "settled_after_one_look": "arrives_late",
    "abort_believed": "completed_beside_its_abort",
    "kept_object_deleted": "completed",
}


async def play_objects(scenario: str, on: str, bug: str = "") -> list[str]:
    """Play a scenario on a store of this kind, with a bug or with none; returns what was wrong then."""
    bucket = object_store.STORES[on]().new_bucket()
    with undone(), _credentials():
        if bug:
            apply(bug)
        place = Place(bucket, S3Sink(Bucket(parse_address(bucket.url()))), str(uuid.uuid4()), [])
        await OBJECT_SCENARIOS[scenario](place)
        return place.complaints


@contextlib.contextmanager
def _credentials() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in object_store.environment()}
    os.environ.update(object_store.environment())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
