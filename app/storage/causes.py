"""Why the database does not answer, in words for the operator: with its host or path, and never with a password."""

import errno
import socket
from pathlib import Path

from sqlalchemy import URL

_POSTGRES_PORT = 5432
_POSTGRES = {
    "28P01": "rejects the password of {user}. Correct DATABASE_URL.",
    "28000": "does not let {user} connect. Correct DATABASE_URL, or allow it in pg_hba.conf.",
    "3D000": "has no database {name}. Create it, or correct DATABASE_URL.",
    "42501": "does not let {user} do that. Grant the privileges on the database to this user.",
    "53300": "has no free connection. Raise max_connections, or lower DATABASE_POOL_SIZE.",
    "57P03": "is starting up or shutting down. Try again.",
    "25006": "is read-only: it is a standby. Connect to the primary.",
}
_SQLITE = {
    "SQLITE_NOTADB": "is not a SQLite database. Correct DATABASE_URL, or restore the file.",
    "SQLITE_CORRUPT": "is damaged. Restore it from a backup.",
    "SQLITE_READONLY": "or its folder is read-only. Make both writable for this user.",
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space.",
    "SQLITE_IOERR": "cannot be read or written. Check the disk.",
    "SQLITE_BUSY": "is locked by another process. Stop what uses it.",
    "SQLITE_CANTOPEN": "cannot be opened. Check that it is a file, and the permissions of its folder.",
}
_UNREADABLE = {
    errno.ENOENT: "cannot be created: its folder does not exist.",
    errno.ENOTDIR: "cannot be created: a part of its path is not a folder.",
    errno.EACCES: "cannot be opened: this user may not write to its folder.",
    errno.EPERM: "cannot be opened: this user may not write to its folder.",
    errno.EROFS: "cannot be opened: its folder is read-only.",
    errno.ENOSPC: "cannot grow: the disk is full. Free some space.",
}


def place_of(url: URL) -> str:
    """Returns the absolute path of SQLite's file, or Postgres' host and port."""
    if url.get_backend_name() == "sqlite":
        return str(Path(url.database or "").absolute())
    port = url.port or url.query.get("port") or _POSTGRES_PORT
    if url.host:
        return f"{f'[{url.host}]' if ':' in url.host else url.host}:{port}"
    hosts = url.query.get("host") or "localhost"
    # Several hosts have a port each.
    each = (hosts,) if isinstance(hosts, str) else hosts
    return ", ".join(host if ":" in host else f"{host}:{port}" for host in each)


def cause_of(error: Exception, url: URL) -> str:
    """Returns one sentence on why the database failed, and what to do if that is known.

    Args:
        error: the error of the driver or of the operating system.
        url: the address of the database.
    """
    place, is_file = place_of(url), url.get_backend_name() == "sqlite"
    original = getattr(error, "orig", None) or error
    if is_file:
        # Extended names, such as SQLITE_READONLY_DIRECTORY, begin with the name of their kind.
        kind = "_".join(getattr(original, "sqlite_errorname", "").split("_")[:2])
        number = original.errno if isinstance(original, OSError) else None
        reason = _SQLITE.get(kind) or _UNREADABLE.get(number or 0, f"does not answer ({type(original).__name__}).")
        return f"The database {place} {reason}"
    state = getattr(original, "sqlstate", None)
    if state in _POSTGRES:
        reason = _POSTGRES[state].format(user=url.username or "this user", name=url.database)
    else:
        reason = _unreachable(original)
    return f"Postgres at {place} {reason}"


def _unreachable(error: BaseException) -> str:
    match error:
        case ConnectionRefusedError():
            return "refuses the connection. Start it, or correct the host and port of DATABASE_URL."
        case socket.gaierror():
            return "cannot be found: the host name is not known. Correct DATABASE_URL."
        case TimeoutError():
            return "does not answer in time. Check the network and firewalls between the two machines."
        case OSError():
            return f"cannot be reached ({type(error).__name__}). Check DATABASE_URL and the network."
        case _:
            return f"does not answer ({getattr(error, 'sqlstate', None) or type(error).__name__})."
