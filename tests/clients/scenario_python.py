"""The scenario by the Python client: ``TARGET``. Reports in JSON lines."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections.abc import Iterator

from upload import Client, errors

SIZE = 4 << 20
REASON = "only a demonstration"


def say(step: str, **more: object) -> None:
    """Report one step."""
    sys.stdout.write(json.dumps({"step": step, **more}) + "\n")
    sys.stdout.flush()


def main(target: str) -> None:
    """Play it."""
    with Client(target) as client, Client(target) as uploader:
        file = client.initiate("matrix.bin", SIZE)
        say("initiate", file_id=file.file_id, filename=file.filename, size_bytes=file.size_bytes)
        half, over = threading.Event(), threading.Event()
        refused: list[errors.UploadCancelled] = []

        def half_of_it() -> Iterator[bytes]:
            yield bytes(SIZE // 2)
            over.wait(60)

        def upload() -> None:
            try:
                uploader.upload(
                    half_of_it(),
                    size_bytes=SIZE,
                    resume_file_id=file.file_id,
                    on_progress=lambda progress: half.set() if progress.bytes_received == SIZE // 2 else None,
                )
            except errors.UploadCancelled as error:
                refused.append(error)

        sending = threading.Thread(target=upload)
        sending.start()
        if half.wait(30):
            say("half", bytes_received=SIZE // 2)
        events = client.watch([file.file_id], until_final=True)
        statuses = [event.file.status for event in itertools.islice(events, 1) if event.file]
        first = client.cancel(file.file_id, reason=REASON, request_id=file.file_id)
        say("cancel", result="already cancelled" if first.already else "cancelled")
        statuses += [event.file.status for event in events if event.file]
        over.set()
        sending.join(30)
        say("upload", reason=refused[0].reason, by=refused[0].metadata["cancelled_by"])
        say("watch", statuses=statuses)
        again = client.cancel(file.file_id, reason=REASON, request_id=file.file_id)
        other = client.cancel(file.file_id)
        say(
            "cancel again",
            same_request="the same answer" if again == first else "another answer",
            new_request="already cancelled" if other.already else "cancelled",
        )
        try:
            client.cancel("no-such-file")
        except errors.UploadServiceError as error:
            say("unknown", reason=error.reason)


if __name__ == "__main__":
    main(sys.argv[1])
