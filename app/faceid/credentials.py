"""Tencent accounts: endpoint, credentials and request rate of each."""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import httpx
import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from app.domain.rule import DEFAULT_ACCOUNT
from app.errors import ConfigurationError
from app.faceid.signing import Credentials

ENDPOINT = "https://faceid.tencentcloudapi.com"
# Tencent allows 50. With 46, measurements stayed below 50 in every sliding second.
REQUESTS_PER_SECOND = 46

log = structlog.get_logger()


def _fits_a_header(value: str) -> str:
    if re.fullmatch("[!-~]*", value) is None:
        raise ValueError("it may only have visible ASCII characters, and no spaces")
    return value


def _secret_fits_a_header(value: SecretStr) -> SecretStr:
    _fits_a_header(value.get_secret_value())
    return value


def _is_proxy(value: SecretStr) -> SecretStr:
    try:
        url = httpx.URL(value.get_secret_value())
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme != "http" or not url.host or url.raw_path != b"/" or url.fragment:
        raise ValueError("it must be http://host:port, with user:password@ before the host if the proxy needs them")
    return value


def _valid_name(value: str) -> str:
    if not re.fullmatch("[a-z0-9_-]{1,32}", value):
        raise ValueError("a name has 1 to 32 lower-case letters, digits, underscores and hyphens")
    return value


HeaderText = Annotated[str, AfterValidator(_fits_a_header)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_secret_fits_a_header)]
# Secret, because it may contain a password.
ProxyUrl = Annotated[SecretStr, AfterValidator(_is_proxy)]
Rate = Annotated[float, Field(ge=0.1, le=1000)]
AccountName = Annotated[str, AfterValidator(_valid_name)]


class AccountSettings(BaseModel):
    """One account: `[accounts.NAME]` in the TOML file.

    `credentials_file` is for credentials that change while the service runs. It takes precedence over the others and
    has the format of Tencent's own tools: `secret_id`, `secret_key` and `token` below `[default]`. Calls go through
    `proxy`. They trust the certificates in `ca_file` instead of the public authorities.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    secret_id: HeaderText = ""
    secret_key: HeaderSecret = SecretStr("")
    token: HeaderSecret | None = None
    credentials_file: Path | None = None
    endpoint: str = ENDPOINT
    proxy: ProxyUrl | None = None
    ca_file: Path | None = None
    requests_per_second: Rate = REQUESTS_PER_SECOND

    @property
    def route(self) -> str:
        """The way of calls to Tencent, in a sentence without the proxy's user and password."""
        proxy = httpx.URL(self.proxy.get_secret_value()).copy_with(userinfo=b"") if self.proxy else None
        trusted = f"the certificates in {self.ca_file}" if self.ca_file else "the public certificate authorities"
        way = f"through the proxy {proxy}" if proxy else "without a proxy"
        return f"Calls go {way} and trust {trusted}."


class FaceIdSettings(BaseModel):
    """How to reach Tencent. The first three names are those of Tencent's own tools."""

    model_config = ConfigDict(hide_input_in_errors=True)

    tencentcloud_secret_id: HeaderText = ""
    tencentcloud_secret_key: HeaderSecret = SecretStr("")
    tencentcloud_token: HeaderSecret | None = None
    tencentcloud_credentials_file: Path | None = None
    faceid_endpoint: str = ENDPOINT
    faceid_proxy: ProxyUrl | None = None
    faceid_ca_file: Path | None = None
    faceid_requests_per_second: Rate = REQUESTS_PER_SECOND
    faceid_timeout_seconds: float = Field(default=30, gt=0, le=600)
    # Of one response. The default leaves room for 16 MB of media, in base64 with every slash escaped.
    faceid_max_bytes: int = Field(default=48 * 1024 * 1024, ge=4096)
    accounts: Mapping[AccountName, AccountSettings] = Field(default_factory=dict)

    @property
    def all_accounts(self) -> Mapping[str, AccountSettings]:
        """All accounts by name. The default account is made of the settings without an account name.

        Its proxy and its certificates are also those of every account that names none.
        """
        default = AccountSettings(
            secret_id=self.tencentcloud_secret_id,
            secret_key=self.tencentcloud_secret_key,
            token=self.tencentcloud_token,
            credentials_file=self.tencentcloud_credentials_file,
            endpoint=self.faceid_endpoint,
            proxy=self.faceid_proxy,
            ca_file=self.faceid_ca_file,
            requests_per_second=self.faceid_requests_per_second,
        )
        others = {
            name: account.model_copy(
                update={"proxy": account.proxy or default.proxy, "ca_file": account.ca_file or default.ca_file}
            )
            for name, account in self.accounts.items()
        }
        return {DEFAULT_ACCOUNT: default, **others}


class CredentialSource:
    """The current credentials of an account. A credentials file is read again whenever it has changed.

    Raises:
        ConfigurationError: there are no credentials, or the file cannot be read. The message names the setting.
    """

    def __init__(self, account: str, settings: AccountSettings) -> None:
        self._account = account
        self._file = settings.credentials_file
        self._version: tuple[int, int, int] | None = None
        token = settings.token and settings.token.get_secret_value()
        self._current = Credentials(settings.secret_id, settings.secret_key.get_secret_value(), token or None)
        if self._file:
            self._read(self._file)
        elif not (self._current.secret_id and self._current.secret_key):
            if account != DEFAULT_ACCOUNT:
                name = account.upper()
                raise ConfigurationError(f"ACCOUNTS.{name} has no secret_id and secret_key, and no credentials_file.")
            name = "TENCENTCLOUD_SECRET_KEY" if settings.secret_id else "TENCENTCLOUD_SECRET_ID"
            raise ConfigurationError(f"{name} is not set. It is required for calls to Tencent.")

    def current(self) -> Credentials:
        """Returns the credentials to sign with. A changed file that cannot be read is logged, and the old ones stay."""
        if self._file:
            try:
                self._read(self._file)
            except ConfigurationError:
                log.error("credentials_unreadable", account=self._account)
        return self._current

    def _read(self, file: Path) -> None:
        try:
            stat = file.stat()
            version = stat.st_mtime_ns, stat.st_ino, stat.st_size
            if version == self._version:
                return
            self._version = version
            self._current = _parse(file.read_text())
        except (OSError, ValueError, KeyError, configparser.Error):
            raise ConfigurationError(f"Cannot read or parse the credentials file of account {self._account}.") from None


def _parse(text: str) -> Credentials:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    section = parser["default"]
    token = _fits_a_header(section.get("token", ""))
    credentials = Credentials(
        _fits_a_header(section["secret_id"]), _fits_a_header(section["secret_key"]), token or None
    )
    if not (credentials.secret_id and credentials.secret_key):
        raise ValueError("secret_id or secret_key is empty")
    return credentials
