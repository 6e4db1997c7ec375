"""Certificates that outgoing connections trust."""

import ssl
from functools import cache
from pathlib import Path

import certifi

from app.errors import ConfigurationError


def client_context(setting: str, ca_file: Path | None) -> ssl.SSLContext:
    """Returns a context that trusts the certificates in a file, or else the public authorities.

    Args:
        setting: the name of the setting that names the file.
        ca_file: the file, in PEM.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        return _context(ca_file or certifi.where())
    except OSError as error:
        # An error of TLS has no sentence of its own.
        reason = "it contains no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(f"{setting} cannot be read as PEM ({ca_file}): {reason}.") from None


# To read the certificates takes 20 ms.
@cache
def _context(ca_file: Path | str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
