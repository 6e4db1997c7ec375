"""Every error that this service raises on purpose.

    ServiceError                      500  internal_error
    ├── InvalidRequestError           400  invalid_request      what was asked makes no sense
    ├── UnauthenticatedError          401  unauthenticated      no key or signature, or not one of ours
    ├── ForbiddenError                403  forbidden            a good key without the scope
    ├── NotFoundError                 404  not_found            unknown, or somebody else's
    ├── ConflictError                 409  conflict             contradicts what is already known
    ├── GoneError                     410  erased               it was erased, and does not come back
    ├── PayloadTooLargeError          413  payload_too_large
    ├── RangeNotSatisfiableError      416  range_not_satisfiable
    ├── TooManyRequestsError          429  too_many_requests    more than a key may ask for
    ├── UnavailableError              503  unavailable          a store that we depend on does not answer
    └── SetUpError                    (exit code 2)             a setting, the schema or a port is not as it must be

The HTTP status and the stable `code` are what callers see (`app.main` turns them into problem details after RFC 9457);
the sentence in `detail` is for people. None of the three may carry personal data or a secret.
"""


class ServiceError(Exception):
    """Base of all errors that callers are told about; `str()` of it is one sentence, fit to be shown."""

    status = 500
    code = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code


class InvalidRequestError(ServiceError):
    """The request is well-formed and still makes no sense."""

    status = 400
    code = "invalid_request"


class UnauthenticatedError(ServiceError):
    """No API key or signature came along, or it is none of ours, not any more, or not from there."""

    status = 401
    code = "unauthenticated"


class ForbiddenError(ServiceError):
    """The API key is good but lacks the scope."""

    status = 403
    code = "forbidden"


class NotFoundError(ServiceError):
    """There is no such thing for this caller; a foreign one looks the same."""

    status = 404
    code = "not_found"


class ConflictError(ServiceError):
    """The request contradicts a fact that was accepted before."""

    status = 409
    code = "conflict"


class GoneError(ServiceError):
    """It was erased; what stays is the fact."""

    status = 410
    code = "erased"


class PayloadTooLargeError(ServiceError):
    """The request's body is larger than the route accepts."""

    status = 413
    code = "payload_too_large"


class RangeNotSatisfiableError(ServiceError):
    """The `Range` lies outside the medium, whose size in bytes is `size`."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, detail: str, *, size: int) -> None:
        super().__init__(detail)
        self.size = size


class TooManyRequestsError(ServiceError):
    """The caller asks more often than it may; again after `retry_after` seconds."""

    status = 429
    code = "too_many_requests"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class UnavailableError(ServiceError):
    """A store that the answer depends on does not answer itself."""

    status = 503
    code = "unavailable"


class SetUpError(ServiceError):
    """The installation is not as it must be; the sentence says what to change."""

    code = "set_up"
