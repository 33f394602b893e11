"""The service manager that started the process: one that reads no more holds nobody up."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest

from upload_server.process import supervisor


def test_a_manager_whose_queue_is_full_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_SECONDS", 0.1)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        manager.bind(str(tmp_path / "notify"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x", str(tmp_path / "notify"))
        telling = threading.Thread(target=supervisor.tell, args=("READY=1",), daemon=True)
        telling.start()
        telling.join(10)
        assert not telling.is_alive()
