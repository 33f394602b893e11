"""nginx and Varnish of the system, in front of a service: compressing, caching, as people run them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.ports import free_port
from support.wanting import missing

_START_SECONDS = 20.0

# Compresses whatever a client lets it, keeps what it may for ten minutes, and keeps its connections as by default.
_NGINX = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=kept:1m;
  upstream service {{ server 127.0.0.1:{service}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port};
    gzip on;
    gzip_proxied any;
    gzip_types application/json application/x-ndjson text/event-stream;
    location / {{
      proxy_pass http://service;
      proxy_set_header Host 127.0.0.1:{service};
      {version}
      proxy_cache kept;
      proxy_cache_valid 10m;
      add_header X-Cache $upstream_cache_status;
    }}
    location /files-svc/ {{
      proxy_pass http://service/;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $http_connection;
      proxy_http_version 1.1;
      proxy_buffering off;
    }}
  }}
}}
"""
# nginx speaks HTTP/1.0 to what it stands before, unless told otherwise.
HTTP_1_1 = 'proxy_http_version 1.1; proxy_set_header Connection "";'


@contextmanager
def _running(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """Run a program until it listens on a port; yields its base URL."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        missing(f"needs {name} (apt-get install {name.removesuffix('d')})")
    return found


@contextmanager
def nginx(folder: Path, service: int, version: str = "") -> Iterator[str]:
    """Run nginx before the service on a port; yields its base URL."""
    program, port = _program("nginx"), free_port()
    config = folder / "nginx.conf"
    # As root it would hand its work to a user that may not enter a test's folder.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_NGINX.format(user=user, folder=folder, service=service, port=port, version=version))
    with _running([program, "-c", str(config), "-p", str(folder)], port, folder / "nginx.log") as url:
        yield url


@contextmanager
def varnish(folder: Path, service: int) -> Iterator[str]:
    """Run Varnish with its own defaults before the service on a port; yields its base URL."""
    program, port = _program("varnishd"), free_port()
    command = [program, "-F", "-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{service}", "-n", str(folder / "varnish")]
    # The sandbox that it would build needs users that a container may lack.
    with _running([*command, "-j", "none"], port, folder / "varnish.log") as url:
        yield url
