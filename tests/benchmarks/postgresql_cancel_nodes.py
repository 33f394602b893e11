"""Cancels through three nodes on PostgreSQL, against the same nodes that only send the raw statements. Needs Go.

One database, and by turns in one run: a cancel whose reason is `raw` is answered from the raw statements of its group,
on the connection that writes, without a dialect and without decisions; gRPC, queues, logs and bells are the same. After
each round one session alone sends groups of as many: what it gets through from the order lock to the answer of the
COMMIT is the ceiling of that lock, however many nodes there are. Options: ``--nodes N`` (3), ``--in-flight N`` (64) at
each, ``--cancels N`` (3000) at each in each turn, ``--rounds N`` (5; medians are compared).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # A node, instead of the folder of the benchmarks.
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.grpc_cancel import build_loadgen, initiate, load
from benchmarks.postgresql_cancel import Raw, measured
from support.cluster import Cluster
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload_server.__main__ import main as serve
from upload_server.domain.states import AuditEvent, CancelledFile
from upload_server.store.commands.cancelling import CancelFile
from upload_server.store.commands.writer import Committed
from upload_server.store.commands.writes import Write
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.committer import PostgresqlCommitter
from upload_server.store.postgresql.connection import Address, connect
from upload_server.store.sql import queries
from upload_server.store.sql.dialect import Sql
from upload_server.store.values import Audited, Result

RAW = "raw"
GROUPS = Sql("SELECT count(DISTINCT xmin::text) FROM audit_event")


class NodeToMeasure(ServerProcess):
    """A node that answers cancels from the raw statements where their reason says so."""

    program = (__file__,)


def answer_from_raw_statements() -> None:
    """Have this process do so."""
    run = PostgresqlCommitter.run
    event = AuditEvent(1, "", "", "pending", "cancelled", "user", "grpc", RAW, "", datetime.now(UTC))

    def is_raw(write: Write[Any]) -> bool:
        return isinstance(write, CancelFile) and write.command.reason == RAW

    def answered(self: PostgresqlCommitter, group: Sequence[Write[Any]]) -> Committed:
        ids = [write.file_id for write in group if isinstance(write, CancelFile) and is_raw(write)]
        others = [write for write in group if not is_raw(write)]
        done = run(self, others) if others else Committed([])
        if not ids:
            return done
        last, outcomes = Raw(self._usable()).cancel(ids), iter(done.outcomes)
        audited, at = Audited((event,)), event.occurred_at
        return Committed(
            [
                Result(CancelledFile(write.file_id, "", at), audited)
                if isinstance(write, CancelFile) and is_raw(write)
                else next(outcomes)
                for write in group
            ],
            last,
        )

    PostgresqlCommitter.run = answered  # type: ignore[method-assign]


class Bench:
    """The nodes, and a session of its own."""

    def __init__(self, program: Path, cluster: Cluster, in_flight: int) -> None:
        self._program = program
        self._servers = [node.server for node in cluster.nodes]
        self._in_flight = in_flight
        self._connection = connect(Address(cluster.url), StoreOptions(), writes=True)
        self._raw = Raw(self._connection)
        self._threads = ThreadPoolExecutor(len(self._servers))

    def announce(self, files: int) -> list[str]:
        """Announce files, and wait until nothing of what was done is left to be sealed."""
        ids = initiate(self._servers[0], self._program, files)
        while queries.count_unsealed(self._connection, 1):
            time.sleep(0.05)
        return ids

    def turn(self, ids: Sequence[str], reason: str) -> tuple[float, float, float]:
        """Cancel files, at each node its share; returns seconds by the clock, of the nodes, and of the database."""
        each = len(ids) // len(self._servers)
        requests = [pb.CancelFileRequest(file_id=one, reason=reason).SerializeToString() for one in ids]

        def send(index: int) -> None:
            part = requests[index * each : (index + 1) * each]
            load(self._program, self._servers[index].target, "CancelFile", part, self._in_flight)

        pids = [server.pid for server in self._servers]
        return measured(self._raw, lambda: list(self._threads.map(send, range(len(pids)))), pids)

    def groups(self) -> int:
        """Return how many transactions have changed files so far."""
        return int(self._connection.rows(GROUPS)[0][0])

    def ceiling(self, ids: Sequence[str]) -> float:
        """Return how many cancels a second get through the order lock in groups, from one session without a rival."""
        under: list[float] = []
        groups = [ids[start : start + self._in_flight] for start in range(0, len(ids), self._in_flight)]
        self._raw.cancel_all(groups, under)
        return self._in_flight / statistics.median(under)


def main() -> None:
    """Print cancels a second and CPU time a cancel of both sides, their ratio, and the ceiling of the order lock."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--cancels", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cancels, alone = options.nodes * options.cancels, 16 * options.in_flight
    found: dict[str, list[tuple[float, float, float]]] = {"store": [], RAW: []}
    groups: dict[str, list[int]] = {side: [] for side in found}
    ceilings: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="nodes-") as folder,
        Cluster(Path(folder) / "cluster", options.nodes, start=NodeToMeasure) as cluster,
    ):
        bench = Bench(build_loadgen(Path(folder)), cluster, options.in_flight)
        for side in found:
            bench.turn(bench.announce(options.nodes * options.in_flight), side)
        for number in range(options.rounds):
            for side in (list(found), list(reversed(found)))[number % 2]:
                ids = bench.announce(cancels)
                before = bench.groups()
                found[side].append(bench.turn(ids, side))
                groups[side].append(bench.groups() - before)
            ceilings.append(bench.ceiling(bench.announce(alone)))
    rates = {}
    for side, results in found.items():
        wall, nodes, database = (statistics.median(values) for values in zip(*results, strict=True))
        rates[side] = cancels / wall
        print(
            f"{side:5} {rates[side]:6.0f}/s in groups of {cancels / statistics.median(groups[side]):4.1f},"
            f" {1e6 * nodes / cancels:4.0f} us of CPU a cancel at the nodes and"
            f" {1e6 * database / cancels:4.0f} at the database"
        )
    each = [raw[0] / ours[0] for ours, raw in zip(found["store"], found[RAW], strict=True)]
    print(f"ratio {rates['store'] / rates[RAW]:.2f} (of single rounds {min(each):.2f} to {max(each):.2f})")
    print(f"ceiling of the order lock {statistics.median(ceilings):6.0f}/s; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    answer_from_raw_statements()
    sys.exit(serve(sys.argv[1:]))
