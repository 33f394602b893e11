"""Uploads with tuspy: ``URL FILE URLS [STOP_AT [CHUNK [RETRIES]]]``; says how it went in one line of JSON.

In a process of its own: tuspy leaves its files to be closed by the end of it.
"""

import json
import sys

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError
from tusclient.storage.filestorage import FileStorage


def main(url: str, file: str, urls: str, stop_at: str = "0", chunk: str = "1048576", retries: str = "3") -> None:
    """Upload the file, from where an earlier run has stopped."""
    uploader = TusClient(url).uploader(
        file,
        chunk_size=int(chunk),
        metadata={"filename": "from tuspy.bin"},
        upload_checksum=True,
        store_url=True,
        url_storage=FileStorage(urls),  # type: ignore[no-untyped-call]
        retries=int(retries),
        retry_delay=0,
    )
    began_at = uploader.offset
    try:
        uploader.upload(stop_at=int(stop_at) or None)
        status = 0
    except TusCommunicationError as error:
        status = error.status_code
    report = {"url": uploader.url, "began_at": began_at, "offset": uploader.offset, "status": status}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
