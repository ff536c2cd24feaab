"""nginx on a free port: a load balancer in front of replicas, or a server that refuses everything.

Knows nginx's configuration; knows nothing of what the replicas answer.
"""

import os
import pwd
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.rig.environment import program
from bench.rig.service import ROOT, Server, free_port, started

DEPLOYED = ROOT / "deploy/nginx.conf"
CONFIGURATION = """\
daemon off;
user {user} {group};
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_max_body_size 32m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    {servers}
}}
"""
REFUSES = """\
server {
    listen 8000;
    location / {
        add_header X-Request-ID $http_x_request_id always;
        return 503 "All places are taken. Try again later.";
    }
}"""


@contextmanager
def balanced(replicas: Sequence[Server]) -> Iterator[Server]:
    """Balance load over replicas as ``deploy/nginx.conf`` does."""
    addresses = "".join(f"    server 127.0.0.1:{each.port};\n" for each in replicas)
    servers = re.sub(r"( +server \S+;\n)+", addresses, DEPLOYED.read_text("utf-8"))
    with _running(servers, path="/readyz", status=200) as server:
        yield server


@contextmanager
def refusing() -> Iterator[Server]:
    """Read each body and answer 503, as cheaply as a server can."""
    with _running(REFUSES, path="/", status=503) as server:
        yield server


@contextmanager
def _running(servers: str, *, path: str, status: int) -> Iterator[Server]:
    """Run nginx until ``path`` answers ``status``; a free port replaces the port 8000."""
    port, me = free_port(), pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="convserve-nginx-") as folder:
        file = Path(folder, "nginx.conf")
        file.write_text(
            CONFIGURATION.format(
                folder=folder,
                user=me.pw_name,  # started as root, nginx would change to a user without access
                group=Path(folder).group(),
                servers=servers.replace("listen 8000;", f"listen 127.0.0.1:{port};"),
            )
        )
        with started(
            [str(program("nginx")), "-p", folder, "-e", "stderr", "-c", str(file)],
            port=port,
            ready=lambda server: server.status("GET", path) == status,
            environment=os.environ,
        ) as server:
            yield server
