"""A server in a network of its own, whose packets can be dropped without a word: real black holes. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from robustness.faults.disks import need
from support.process import ServerProcess

# Python runs this instead of the server, with the namespace's name before the server's own arguments.
_ENTER = """
import os, sys
server = [sys.executable, "-m", "upload_server", *sys.argv[2:]]
os.execvp("ip", ["ip", "netns", "exec", sys.argv[1], *server])
"""
_DROPS = """
table inet hole
delete table inet hole
table inet hole {
    chain to_server { type filter hook input priority 0; policy accept; }
    chain from_server { type filter hook output priority 0; policy accept; }
}
"""


class Namespace:
    """Two ends of a wire: ``host`` is the server's address, the other end is this process's network."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.host = f"10.213.{number}.2"

    def block(self, *, to_server: bool = True, from_server: bool = True) -> None:
        """Drop everything that takes this way."""
        for chain, wanted in (("to_server", to_server), ("from_server", from_server)):
            if wanted:
                self._nft(f"add rule inet hole {chain} ip daddr != 127.0.0.1 drop\n")

    def heal(self) -> None:
        """Let everything pass again."""
        self._nft(_DROPS)

    def _nft(self, text: str) -> None:
        subprocess.run(["ip", "netns", "exec", self.name, "nft", "-f", "-"], input=text, text=True, check=True)

    def serve(self, data_dir: Path, options: Sequence[str] = ()) -> ServerProcess:
        """Start a server there."""
        host = self.host

        class Inside(ServerProcess):
            program = ("-c", _ENTER, self.name)

            @property
            def target(self) -> str:
                return f"{host}:{self.grpc_port}"

            @property
            def url(self) -> str:
                return f"http://{host}:{self.http_port}"

        return Inside(data_dir, ("--host", "0.0.0.0", "--auth", "none", *options))  # noqa: S104 - all of a network of one wire


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Make one, named after this process, and take it away again."""
    need("namespaces need root", met=os.geteuid() == 0)
    need("iproute2 or nftables is not installed", met=bool(shutil.which("ip") and shutil.which("nft")))
    number = os.getpid() % 250
    name, ours, theirs = f"faults{os.getpid()}", f"fa{os.getpid()}", f"fb{os.getpid()}"
    space = Namespace(name, number)
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    need("this machine makes no namespaces", met=made.returncode == 0)
    try:
        commands = (
            f"link add {ours} type veth peer name {theirs} netns {name}",
            f"addr add 10.213.{number}.1/30 dev {ours}",
            f"link set {ours} up",
            f"-n {name} addr add {space.host}/30 dev {theirs}",
            f"-n {name} link set {theirs} up",
            f"-n {name} link set lo up",
        )
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        space.heal()
        yield space
    finally:
        # Takes the wire along.
        subprocess.run(["ip", "netns", "del", name], check=False)
