"""The shipped nginx.conf in a real nginx."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers import NGINX, POLL_SECONDS, STOP_SECONDS, free_ports, listens

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"


@contextmanager
def nginx(folder: Path, ports: Sequence[int]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Runs nginx with the shipped configuration; only paths and addresses differ. Yields it and its port.

    Raises:
        RuntimeError: it ended at once.
    """
    port = free_ports(["nginx"])["nginx"]
    servers = "".join(f"server 127.0.0.1:{each} max_fails=0; " for each in ports)
    text = CONFIGURATION.read_text()
    for old, new in (
        (" /tmp/", f" {folder}/"),
        ("listen 8080 ", f"listen 127.0.0.1:{port} "),
        ("http://api:8000", "http://apis"),
        ("http {", f"http {{ upstream apis {{ {servers} }}"),
    ):
        assert old in text
        text = text.replace(old, new, 1) if old == "http {" else text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    # The workers of a server that root starts run as another user.
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    process = subprocess.Popen(
        [NGINX or "nginx", "-c", folder / "nginx.conf", "-g", "daemon off;"], stdout=subprocess.DEVNULL
    )
    try:
        while not listens(port):
            if process.poll() is not None:
                raise RuntimeError("nginx did not start.")
            time.sleep(POLL_SECONDS)
        yield process, port
    finally:
        # Not SIGKILL, which leaves its workers running.
        process.terminate()
        process.wait(STOP_SECONDS)
