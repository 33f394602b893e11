"""The document for clients names every reason of an error, with its code and HTTP status, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo

from transcoder import Fault, FaultKind
from upload_server import doors
from upload_server.domain import errors
from upload_server.doors.errors import code_of, http_status_of
from upload_server.doors.http.faults import fault_details

DOCUMENT = Path(__file__).parents[3] / "docs" / "clients.md"
# Functions that make a refusal which one door alone knows, and the place of its reason among their arguments.
MAKERS = {"status_of": 1, "last_answer": 1, "_refusal": 0}
# What nobody is left to read: the client has hung up.
UNHEARD = {FaultKind.CANCELLED}


def documented() -> dict[str, tuple[str, int]]:
    """Code and HTTP status by reason."""
    _, _, section = DOCUMENT.read_text().partition("\n## Errors\n")
    rows = re.findall(r"^\| (`[^|]*`) \| ([A-Z_]+) · (\d+) \|", section.partition("\n## ")[0], re.MULTILINE)
    return {reason: (code, int(status)) for reasons, code, status in rows for reason in re.findall("`(.+?)`", reasons)}


def of_every_door() -> Iterator[tuple[str, tuple[str, int]]]:
    pending = [errors.UploadError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if "reason" in vars(kind):
            error = kind.__new__(kind)
            yield kind.reason, (Code.Name(code_of(error)), http_status_of(error))


def of_the_transcoder() -> Iterator[tuple[str, tuple[str, int]]]:
    for kind in set(FaultKind) - UNHEARD:
        fault = Fault(kind, "")
        [info] = [detail for detail in fault_details(fault) if isinstance(detail, ErrorInfo)]
        yield info.reason, (fault.code.name, fault.http_status)


def of_one_door() -> set[str]:
    """Reasons that stand in the doors' own source."""
    found = set()
    for path in Path(next(iter(doors.__path__))).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if isinstance(node, ast.Call) and name in MAKERS and len(node.args) > MAKERS[name]:
                reason = node.args[MAKERS[name]]
                if isinstance(reason, ast.Constant) and str(reason.value).isupper():
                    found.add(str(reason.value))
    return found


def test_every_reason_is_documented_and_no_other() -> None:
    common, faults, told = dict(of_every_door()), dict(of_the_transcoder()), documented()
    assert told.keys() == common.keys() | faults.keys() | of_one_door()
    assert {reason: told[reason] for reason in common} == common
    own = faults.keys() - common.keys()
    assert {reason: told[reason] for reason in own} == {reason: faults[reason] for reason in own}
