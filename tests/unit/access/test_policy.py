"""The table of roles: what each may, and on whose rows."""

from __future__ import annotations

import pytest

from upload.v1 import upload_pb2 as pb
from upload_server.access.identity import Identity, Presented, bearer, fits_a_principal
from upload_server.access.policy import GRANTS, NEEDS, ROLES, SCOPES, caller_of, check_complete
from upload_server.domain.caller import Permission
from upload_server.domain.errors import CannotStart, PermissionDenied
from upload_server.domain.states import Source

RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["UploadService"].methods]
# "own", "all", or "-" where it is refused; in the order user, operator, auditor, monitor.
TABLE = {
    "InitiateUpload": "own - - -",
    "InitiateBatch": "own - - -",
    "PutFile": "own - - -",
    "UploadFile": "own - - -",
    "GetFile": "own all all -",
    "DownloadFile": "own all - -",
    "ListFiles": "own all all -",
    "GetBatch": "own all all -",
    "ListBatches": "own all all -",
    "WatchStatus": "own all all -",
    "CancelFile": "own all - -",
    "CancelBatch": "own all - -",
    "DeleteContent": "own all - -",
    "ListAuditEvents": "own all all -",
    "GetStatistics": "own all all all",
    "GetCaller": "own own own own",
    "CreateTicket": "own - - -",
    "Metrics": "- all all all",
    "Reflection": "own own own own",
}


def reach(roles: set[str], method: str) -> str:
    try:
        caller = caller_of(Identity("ada", frozenset(roles), "token:1"), method, Source.GRPC, "")
    except PermissionDenied:
        return "-"
    assert (caller.principal, caller.credential) == ("ada", "token:1")
    return {None: "all", "ada": "own"}[caller.sees]


@pytest.mark.parametrize("method", NEEDS)
def test_every_role_reaches_what_the_table_says(method: str) -> None:
    assert [reach({role}, method) for role in ROLES] == TABLE[method].split()


def test_every_rpc_has_a_row_and_a_start_without_one_fails() -> None:
    check_complete(RPCS)
    with pytest.raises(CannotStart, match="DownloadEverything"):
        check_complete([*RPCS, "DownloadEverything"])


def test_a_second_role_widens_only_what_it_grants() -> None:
    assert reach({"user", "auditor"}, "GetFile") == "all"
    assert reach({"user", "auditor"}, "CancelFile") == "own"
    assert reach({"user", "monitor"}, "ListFiles") == "own"
    assert reach({"user", "operator"}, "UploadFile") == "own"


def test_an_unknown_role_and_none_grant_nothing() -> None:
    for roles in (set[str](), {"admin"}, {"upload."}):
        assert {reach(roles, method) for method, needed in NEEDS.items() if needed} == {"-"}


def test_scopes_grant_what_their_names_say() -> None:
    assert reach({"upload.read"}, "ListFiles") == "own"
    assert reach({"upload.read"}, "CancelFile") == "-"
    assert reach({"upload.write"}, "UploadFile") == "own"
    assert reach({"upload.cancel"}, "CancelBatch") == "own"
    for scope, role in SCOPES.items():
        assert [reach({scope}, method) for method in NEEDS] == [reach({role}, method) for method in NEEDS]


def test_every_permission_is_granted_by_some_role() -> None:
    assert {permission for grants in GRANTS.values() for permission in grants} == set(Permission)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        (["Bearer abc"], "abc"),
        (["bearer abc"], "abc"),
        ([], None),
        (["Bearer abc", "Bearer abc"], None),
        (["Bearer"], None),
        (["Bearer "], None),
        (["Basic abc"], None),
        (["Bearer a\u00e9"], None),
        (["Bearer a\tb"], None),
        (["Bearer  a"], None),
        (["Bearer a "], None),
        (["Bearer a b"], None),
        (["Bearer " + "a" * 4096], "a" * 4096),
        (["Bearer " + "a" * 4097], None),
    ],
)
def test_a_bearer_is_one_header_of_ascii(headers: list[str], token: str | None) -> None:
    assert bearer(Presented(authorization=headers)) == token


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("ada", True),
        ("keycloak:5f-1", True),
        ("Zoë", True),
        ("", False),
        ("a\nb", False),
        (" a", False),
        ("é" * 128, False),
    ]
    + [(f"a{mark}b", False) for mark in "\u202e\u2066\u200f\x00\x7f"],
)
def test_a_principal_is_printable_and_short(name: str, fits: bool) -> None:
    assert fits_a_principal(name) is fits
