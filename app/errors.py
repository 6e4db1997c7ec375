"""The errors that this service raises on purpose.

    ServiceError                      500  internal_error
    ├── InvalidRequestError           400  invalid_request      well-formed, but it makes no sense
    ├── UnauthenticatedError          401  unauthenticated      no valid API key or signature
    ├── ForbiddenError                403  forbidden            a valid key without the scope
    ├── NotFoundError                 404  not_found            unknown, or another client's
    ├── ConflictError                 409  conflict             contradicts an earlier statement
    ├── GoneError                     410  erased               it was erased, or is no longer kept
    ├── RangeNotSatisfiableError      416  range_not_satisfiable
    ├── TooManyRequestsError          429  too_many_requests    a rate limit was exceeded
    ├── TooManyWaitsError             429  too_many_waits       a limit of concurrent waits was reached
    │   └── TooManyStreamsError       429  too_many_streams     a limit of concurrent streams was reached
    ├── TooManyExportsError           429  too_many_exports     a limit of concurrent exports was reached
    ├── UnavailableError              503  unavailable          a database or store does not answer
    │   ├── DiskFullError             503  disk_full            the disk of the database is full
    │   └── ProviderError             503  unavailable          the provider of the single sign-on does not answer
    └── ConfigurationError            (exit code 2)             a setting, the schema or a port is wrong

Callers see the HTTP status, the stable `code` and the sentence in `detail`, as problem details after RFC 9457. None of
them may contain personal data or a secret.
"""

from collections.abc import Mapping


class ServiceError(Exception):
    """The base of all errors that callers see. `str()` of it is one sentence for people.

    `headers` are sent with the HTTP response.
    """

    status = 500
    code = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.headers = dict(headers or {})


class InvalidRequestError(ServiceError):
    """The request is well-formed but makes no sense."""

    status = 400
    code = "invalid_request"


class UnauthenticatedError(ServiceError):
    """The request has no API key or signature, or one that is unknown, expired, revoked or not for its network.

    `reason`, and `key_id` of a known key or person, are for the audit; callers do not see them.
    """

    status = 401
    code = "unauthenticated"

    def __init__(self, detail: str, *, reason: str, key_id: str = "") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})
        self.reason = reason
        self.key_id = key_id


class ForbiddenError(ServiceError):
    """The API key is valid but lacks the scope."""

    status = 403
    code = "forbidden"


class NotFoundError(ServiceError):
    """It does not exist, or it belongs to another client; the answer does not show which."""

    status = 404
    code = "not_found"


class ConflictError(ServiceError):
    """The request contradicts a fact that was accepted before."""

    status = 409
    code = "conflict"


class GoneError(ServiceError):
    """It was erased, and only that fact is left; or it is no longer kept."""

    status = 410
    code = "erased"


class RangeNotSatisfiableError(ServiceError):
    """The `Range` lies outside the media item, which has `size_bytes` bytes."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, detail: str, *, size_bytes: int) -> None:
        super().__init__(detail, headers={"Content-Range": f"bytes */{size_bytes}"})


class TooManyRequestsError(ServiceError):
    """The caller exceeded a rate limit and may retry after `retry_after` seconds."""

    status = 429
    code = "too_many_requests"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


class TooManyWaitsError(ServiceError):
    """The caller or the process already holds as many waits as it may."""

    status = 429
    code = "too_many_waits"

    def __init__(self, detail: str) -> None:
        # Refused callers must not occupy connections until the keep-alive ends.
        super().__init__(detail, headers={"Retry-After": "1", "Connection": "close"})


class TooManyStreamsError(TooManyWaitsError):
    """The caller or the process already has as many streams as it may."""

    code = "too_many_streams"


class TooManyExportsError(TooManyWaitsError):
    """The caller or the process already runs as many exports as it may."""

    code = "too_many_exports"


class UnavailableError(ServiceError):
    """A database or store that the answer depends on does not answer.

    `cause` says why and names hosts and paths. It is for the operator: commands and the log show it, the API does not.
    """

    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, cause: str | None = None) -> None:
        super().__init__(detail)
        self.cause = cause or detail


class DiskFullError(UnavailableError):
    """The disk of the database is full: only erasing makes room."""

    code = "disk_full"


class ProviderError(UnavailableError):
    """The provider of the single sign-on does not answer, or not as it should. Keys still open the console."""


class ConfigurationError(ServiceError):
    """The installation is configured wrongly; the sentence says what to change."""

    code = "configuration"
