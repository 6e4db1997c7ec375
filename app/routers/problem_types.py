"""The page `/docs/errors`: every error code of the API, with its meaning and what to do. Each problem links to it.

`docs/errors.md` has the same table; a test compares the two.
"""

from dataclasses import dataclass
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

PAGE_PATH = "/docs/errors"


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A stable `code`, its HTTP status, when it is returned, and what the caller should do."""

    code: str
    status: str
    meaning: str
    action: str


CODES = (
    ErrorCode("bad_request", "400", "The body cannot be read.", "Send the body in UTF-8, as application/json."),
    ErrorCode("invalid_json", "400", "The body is not valid JSON.", "Correct the JSON. `detail` has the position."),
    ErrorCode(
        "invalid_request", "400", "The request contradicts itself or is malformed.", "Correct what `detail` names."
    ),
    ErrorCode(
        "invalid_cursor",
        "400",
        "The cursor is malformed, or it was returned by a list with other filters of time or another order.",
        "Start again without a cursor, and send `next_cursor` with the same filters only.",
    ),
    ErrorCode(
        "rule_id_required",
        "400",
        "The request names no RuleId, and the settings have no default that the client may use.",
        "Send `rule_id`, or ask the operator to set FACEID_RULE_ID.",
    ),
    ErrorCode(
        "unknown_rule",
        "400",
        "The settings do not name the RuleId, or its `clients` do not contain the client of the key.",
        "Correct `rule_id`, or ask the operator to add the rule or the client.",
    ),
    ErrorCode(
        "no_redirect_state",
        "400",
        "The rule does not accept signed states.",
        "Use a rule with `redirect_state`, or ask the operator to enable it.",
    ),
    ErrorCode(
        "invalid_url",
        "400",
        "The URL of a webhook endpoint is malformed, or has a part that webhooks do not support.",
        "Correct what `detail` names.",
    ),
    ErrorCode(
        "refused_address",
        "400",
        "The URL of a webhook endpoint leads to an address that webhooks do not reach.",
        "Use a public address with https, or ask the operator to add its network to WEBHOOK_ALLOWED_NETWORKS.",
    ),
    ErrorCode(
        "unauthenticated",
        "401",
        "The API key is missing, unknown, expired, revoked or not for this network; or the signature is invalid.",
        "Send `Authorization: Bearer frk_…` with a valid key; or check the secret, the clock and the signed bytes.",
    ),
    ErrorCode(
        "forbidden",
        "403",
        "The key is valid, but it lacks the scope, or it may not see this client.",
        "Use another key. `detail` names the missing scope.",
    ),
    ErrorCode(
        "not_found",
        "404",
        "The path does not exist, or the client of the key has no such verification.",
        "Check the BizToken, the path and the client of the key.",
    ),
    ErrorCode("method_not_allowed", "405", "The path does not support this method.", "Use a method of `Allow`."),
    ErrorCode("request_timeout", "408", "The proxy did not receive the request in time.", "Send it again."),
    ErrorCode(
        "conflict",
        "409",
        "The request contradicts a fact that was stated before.",
        "Do not repeat it. Read the verification and find out which statement is wrong.",
    ),
    ErrorCode(
        "several_clients",
        "409",
        "Several clients have the token, and the key is an admin's.",
        "Add `?client=NAME`. The list of verifications names the clients.",
    ),
    ErrorCode(
        "held_events",
        "409",
        "A webhook endpoint is to be enabled that has held events.",
        "Add `held`: `send` delivers them, `drop` does not.",
    ),
    ErrorCode("legal_hold", "409", "The verification is under a legal hold.", "Release the hold first."),
    ErrorCode("erased", "410", "The verification was erased.", "Do not ask again: the data cannot be restored."),
    ErrorCode(
        "position_gone",
        "410",
        "Events behind the position are no longer kept, or the position is of another database.",
        "Read the verifications that matter again, for example by `updated_from`. Then continue with `after=0`.",
    ),
    ErrorCode("payload_too_large", "413", "The body is larger than 8192 bytes.", "Send less."),
    ErrorCode("uri_too_long", "414", "The address is too long.", "Use fewer or shorter filters."),
    ErrorCode(
        "range_not_satisfiable",
        "416",
        "The range begins after the end of the media item.",
        "`Content-Range` has its size.",
    ),
    ErrorCode(
        "invalid_input",
        "422",
        "A parameter, a header or the body does not match the API description.",
        "Correct what `errors` lists: the location, and the limit in words.",
    ),
    ErrorCode(
        "too_many_requests",
        "429",
        "A rate limit was exceeded.",
        "Wait for the seconds of `Retry-After`, then repeat the request.",
    ),
    ErrorCode(
        "too_many_waits",
        "429",
        "The key, or the process, already holds as many requests with `wait` as it may.",
        "End an open wait, wait for the seconds of `Retry-After`, or read without `wait`.",
    ),
    ErrorCode(
        "too_many_streams",
        "429",
        "The key, or the process, already has as many streams of events as it may.",
        "End a stream, or wait for the seconds of `Retry-After`. One stream per back end is enough.",
    ),
    ErrorCode(
        "too_many_exports",
        "429",
        "The key, or the process, already runs as many exports as it may.",
        "Wait until an export has ended.",
    ),
    ErrorCode("headers_too_large", "431", "The headers are too large.", "Send fewer or shorter headers."),
    ErrorCode(
        "internal_error",
        "500",
        "A fault of the service.",
        "Repeat the request later. Report the `request_id` to the operator if it persists.",
    ),
    ErrorCode(
        "altered",
        "500",
        "Stored data failed its authentication: it was changed or damaged in the database or the media store.",
        "Report the `request_id` to the operator. The log names the row.",
    ),
    ErrorCode(
        "media_missing",
        "503",
        "The media store has lost the media item.",
        "Report the `request_id` to the operator.",
    ),
    ErrorCode(
        "disk_full",
        "503",
        "The disk of the embedded database is full.",
        "Free space on it, or use a larger one. Erasing a verification works and makes room.",
    ),
    ErrorCode(
        "unavailable",
        "502, 503, 504",
        "The service, its database or its media store does not answer.",
        "Repeat the request with growing intervals. A callback is only accepted after a 202.",
    ),
)

router = APIRouter(include_in_schema=False)


@router.get(PAGE_PATH)
async def explain_errors() -> HTMLResponse:
    """Returns the page."""
    rows = "\n".join(
        f'<tr id="{known.code}"><td><code>{known.code}</code><td>{known.status}'
        f"<td>{escape(known.meaning)}<td>{escape(known.action)}"
        for known in CODES
    )
    return HTMLResponse(_PAGE.format(rows=rows))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>faceid-results: error codes</title>
<style>body {{ font: 1em sans-serif; margin: 2em auto; max-width: 70em }}
td, th {{ text-align: left; vertical-align: top; padding: .4em 1em .4em 0 }} tr:target {{ background: #ffc }}</style>
<h1>Error codes</h1>
<table><tr><th>code<th>status<th>meaning<th>what to do
{rows}
</table></html>
"""
