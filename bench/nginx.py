"""nginx in front of replicas, each in its turn: a load balancer on a free port.

Knows nginx's configuration; knows nothing of what the replicas answer.
"""

import os
import pwd
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.environment import program
from bench.service import Server, free_port, started

CONFIGURATION = """\
daemon off;
user {user} {group};
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_max_body_size 32m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream replicas {{ {replicas} keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@contextmanager
def balanced(replicas: Sequence[Server]) -> Iterator[Server]:
    """The one address of all."""
    port, me = free_port(), pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="convserve-nginx-") as folder:
        file = Path(folder, "nginx.conf")
        addresses = "".join(f"server 127.0.0.1:{each.port}; " for each in replicas)
        group = Path(folder).group()  # as root, nginx would become somebody who may not write here
        file.write_text(
            CONFIGURATION.format(
                folder=folder, user=me.pw_name, group=group, port=port, replicas=addresses
            )
        )
        with started(
            [str(program("nginx")), "-p", folder, "-e", "stderr", "-c", str(file)],
            port=port,
            ready=lambda server: server.status("GET", "/readyz") == 200,
            environment=os.environ,
        ) as server:
            yield server
