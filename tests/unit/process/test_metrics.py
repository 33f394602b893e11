from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from upload_server.process import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"no {name}{labels}"
    return found


def test_calls_are_counted_by_method_door_and_code_with_their_time() -> None:
    metrics = Metrics()
    metrics.call_finished("CancelFile", "grpc", "OK", 0.003)
    metrics.call_finished("CancelFile", "http", "NOT_FOUND", 0.001)
    assert value(metrics, "upload_calls_total", method="CancelFile", door="grpc", code="OK") == 1
    assert value(metrics, "upload_calls_total", method="CancelFile", door="http", code="NOT_FOUND") == 1
    name = "upload_call_duration_seconds"
    assert value(metrics, f"{name}_sum", method="CancelFile", door="grpc", code="OK") == 0.003
    assert value(metrics, f"{name}_bucket", method="CancelFile", door="grpc", code="OK", le="0.005") == 1
    assert value(metrics, f"{name}_bucket", method="CancelFile", door="grpc", code="OK", le="0.0025") == 0


def test_bytes_cancels_and_refusals_add_up() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.bytes_taken(1000)
        metrics.bytes_reclaimed(300)
        metrics.cancel_finished("websocket_close", "cancelled")
        metrics.request_refused("ORIGIN_NOT_ALLOWED")
        metrics.stream_stopped(0.002)
    assert value(metrics, "upload_taken_bytes_total") == 2000
    assert value(metrics, "upload_reclaimed_bytes_total") == 600
    assert value(metrics, "upload_cancels_total", source="websocket_close", outcome="cancelled") == 2
    assert value(metrics, "upload_refused_requests_total", reason="ORIGIN_NOT_ALLOWED") == 2
    assert value(metrics, "upload_cancel_to_last_byte_seconds_bucket", le="0.0025") == 2


def test_the_room_of_a_storage_that_cannot_be_asked_is_not_a_number() -> None:
    metrics = Metrics()
    answers: list[int | OSError] = [5, OSError("gone")]

    def room() -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    metrics.show_room(room, lambda: 7)
    assert b"upload_storage_room_bytes 5.0" in metrics.render()[0]
    rendered, _ = metrics.render()
    assert b"upload_storage_room_bytes NaN" in rendered
    assert b"upload_database_room_bytes 7.0" in rendered


def test_what_is_open_goes_up_and_down() -> None:
    metrics = Metrics()
    metrics.upload_opened()
    metrics.upload_opened()
    metrics.upload_closed()
    metrics.watch_opened()
    metrics.watch_closed()
    metrics.websocket_opened()
    assert value(metrics, "upload_open_uploads") == 1
    assert value(metrics, "upload_open_watches") == 0
    assert value(metrics, "upload_open_websockets") == 1
    metrics.websocket_closed()
    assert value(metrics, "upload_open_websockets") == 0


def test_a_state_that_is_no_longer_counted_is_zero_not_stale() -> None:
    metrics = Metrics()
    metrics.set_files({"pending": 3, "uploading": 1})
    metrics.set_files({"completed": 4})
    assert value(metrics, "upload_files", status="pending") == 0
    assert value(metrics, "upload_files", status="completed") == 4


def test_two_services_in_one_process_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.bytes_taken(1)
    assert value(second, "upload_taken_bytes_total") == 0


def test_the_exposition_parses_and_every_series_of_ours_has_a_unit_or_is_a_count() -> None:
    metrics = Metrics("1.0")
    metrics.call_finished("GetFile", "grpc", "OK", 0.1)
    names = {family.name for family in text_string_to_metric_families(metrics.render()[0].decode())}
    ours = {name for name in names if name.startswith("upload_")}
    assert {"upload_calls", "upload_call_duration_seconds", "upload_taken_bytes", "upload_files"} <= ours
    assert any(name.startswith("process_") for name in names)


def test_a_traced_call_is_an_example_in_openmetrics_alone() -> None:
    accept, trace = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", {"trace_id": "4bf9"}
    for shown in (True, False):
        metrics = Metrics("1.0", examples=shown)
        metrics.call_finished("GetFile", "grpc", "OK", 0.1, trace)
        plain, kind = metrics.render()
        assert (b"4bf9" in plain, kind.split(";")[0]) == (False, "text/plain")
        text, kind = metrics.render(accept)
        assert kind.split(";")[0] == ("application/openmetrics-text" if shown else "text/plain")
        assert (b'# {trace_id="4bf9"} 0.1' in text, text.endswith(b"# EOF\n")) == (shown, shown)


async def test_a_blocked_loop_shows_as_lag() -> None:
    metrics = Metrics()
    task = asyncio.create_task(metrics.measure_loop_lag(0.01))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the block is what is measured
    async with asyncio.timeout(30):
        while not metrics.registry.get_sample_value("upload_event_loop_lag_seconds_count"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert value(metrics, "upload_event_loop_lag_seconds_sum") > 0.15


# One of several processes: counts into the folder that the environment names, and tells of all.
_COUNTING = """
import os, sys
from upload_server.process.metrics import Metrics, Workers

metrics = Metrics("1", Workers(os.environ["PROMETHEUS_MULTIPROC_DIR"], lambda: [os.getpid(), os.getppid()]))
metrics.show_room(lambda: 5, lambda: 7)
for _ in range(int(sys.argv[1])):
    metrics.call_finished("CancelFile", "grpc", "OK", 0.003)
    metrics.watch_opened()
metrics.set_files({"pending": int(sys.argv[1])})
print(metrics.render("application/openmetrics-text")[0].decode())
"""


def test_processes_that_count_as_one_add_up(tmp_path: Path) -> None:
    def told_by(count: int) -> dict[str, float]:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        words = [sys.executable, "-c", _COUNTING, str(count)]
        text = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        assert len({(sample.name, *sample.labels.items()) for sample in samples}) == len(samples)
        return {sample.name: sample.value for sample in samples if sample.labels.get("le", "0.005") == "0.005"}

    assert told_by(2)["upload_calls_total"] == 2
    last = told_by(3)
    assert last["upload_calls_total"] == last["upload_call_duration_seconds_bucket"] == 5
    # What every process counts for all is told once, and the newest counts.
    assert (last["upload_files"], last["upload_build_info"]) == (3, 1)
    assert (last["upload_storage_room_bytes"], last["upload_database_room_bytes"]) == (5, 7)
    # Until the parent says that the first one is dead.
    assert last["upload_open_watches"] == 5
    assert last["process_start_time_seconds"] < time.time()
