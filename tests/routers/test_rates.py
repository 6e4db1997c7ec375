"""Rates per caller: each limited operation counts, states what is left, and is refused beyond."""

import asyncio
import json
import re
from dataclasses import replace

import httpx
import pytest

from app.config import Settings
from app.domain.api_key import Caller, Scope
from app.domain.rate import RateClass
from app.errors import TooManyRequestsError
from app.services.limits import LimitService, LimitSettings
from tests.support.api import retrieve_new, signed, token, url
from tests.support.operations import DOCUMENT, HOLD, OPERATIONS, REQUEST_ID, Operation, call
from tests.support.service import UNLIMITED, Running, changed, everything, running

# A burst of two, and no refill during a test.
SLOW = "0.0001 burst 2"
WINDOW_SECONDS = 20_000
CALLER = Caller(id="", name="test", client="default", scopes=frozenset())
OF: dict[Operation, RateClass] = {
    ("post", "/v1/callbacks"): RateClass.INTAKE,
    ("post", "/v1/redirects"): RateClass.INTAKE,
    ("put", "/v1/verifications/{biz_token}"): RateClass.INTAKE,
    ("post", "/v1/verifications/{biz_token}/retrieve"): RateClass.RETRIEVE,
    ("get", "/v1/verifications/{biz_token}"): RateClass.READS,
    ("delete", "/v1/verifications/{biz_token}"): RateClass.ERASURES,
    ("put", HOLD): RateClass.ERASURES,
    ("delete", HOLD): RateClass.ERASURES,
    ("get", "/v1/verifications"): RateClass.LISTS,
    ("get", "/v1/audit"): RateClass.LISTS,
    ("get", "/v1/stats"): RateClass.LISTS,
    ("get", "/v1/events"): RateClass.LISTS,
    ("post", "/v1/verifications/search"): RateClass.SEARCHES,
    ("get", "/v1/verifications/{biz_token}/identity"): RateClass.REVEALS,
    ("get", "/v1/verifications/export"): RateClass.EXPORTS,
    ("get", "/v1/verifications/{biz_token}/media/{kind}"): RateClass.MEDIA,
    ("head", "/v1/verifications/{biz_token}/media/{kind}"): RateClass.MEDIA,
    **{
        (method, f"/v1/webhook-endpoints{rest}"): RateClass.WEBHOOKS
        for method, rest in (
            ("post", ""),
            ("patch", "/{endpoint_id}"),
            ("post", "/{endpoint_id}/rotate"),
            ("post", "/{endpoint_id}/test"),
            ("delete", "/{endpoint_id}"),
            ("post", "/{endpoint_id}/replay"),
        )
    },
    ("post", "/v1/deliveries/{delivery_id}/retry"): RateClass.WEBHOOKS,
    ("get", "/v1/webhook-endpoints"): RateClass.LISTS,
    ("get", "/v1/webhook-endpoints/{endpoint_id}/deliveries"): RateClass.LISTS,
}
ONE_OF = {of: operation for operation, of in OF.items()}
UNCOUNTED = [operation for operation in OPERATIONS if operation not in OF]


def slow(settings: Settings) -> Settings:
    return changed(settings, **{f"rate_{of}": SLOW for of in RateClass})


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("ratelimit")}


async def retrieved_token(service: Running) -> str:
    async with service.client(await service.key(*everything())) as api:
        return await retrieve_new(api)


async def test_every_limited_operation_counts_and_is_refused_beyond_its_burst(settings: Settings) -> None:
    async with running(slow(settings)) as service:
        token_of = {
            of: await retrieved_token(service) for of in (RateClass.MEDIA, RateClass.RETRIEVE, RateClass.ERASURES)
        }
        for operation, of in OF.items():
            # Another retrieval replaces the media, and an erasure removes them.
            biz_token = token_of.get(of, token_of[RateClass.MEDIA])
            key = await service.key(*everything(), Scope.ADMIN)
            answers = [await call(service, key, operation, biz_token) for _ in range(3)]
            busy = token_of[RateClass.RETRIEVE]
            others = {each: await call(service, key, ONE_OF[each], busy) for each in RateClass if each is not of}
            other_key = await call(service, await service.key(*everything(), Scope.ADMIN), operation, biz_token)

            assert [answer.status_code < 300 for answer in answers] == [True, True, False], operation
            policy = f'"{of}";q=2;w={WINDOW_SECONDS}'
            assert [answer.headers["RateLimit-Policy"] for answer in answers] == [policy] * 3
            left = [re.fullmatch(r'"(.*)";r=(\d+);t=(\d+)', answer.headers["RateLimit"]) for answer in answers]
            assert [match.groups()[:2] if match else None for match in left] == [(of, "1"), (of, "0"), (of, "0")]
            refused = answers[-1]
            seconds = int(refused.headers["Retry-After"])
            assert 0 < seconds <= WINDOW_SECONDS / 2
            assert refused.status_code == 429
            if refused.content:
                assert refused.json() == {
                    "type": "/docs/errors#too_many_requests",
                    "title": "Too Many Requests",
                    "status": 429,
                    "detail": f"Rate limit of {of} exceeded; retry after {seconds} s.",
                    "code": "too_many_requests",
                    "request_id": REQUEST_ID,
                }
            # Each class counts alone, and each key.
            assert {each for each, answer in others.items() if answer.status_code == 429} == set()
            assert other_key.status_code < 300


async def test_refused_request_changes_nothing(settings: Settings) -> None:
    async with running(slow(settings), with_worker=False) as service:
        key = await service.key(*everything())
        async with service.client(key) as api:
            tokens = [token() for _ in range(3)]
            answers = [await api.put(url(biz_token)) for biz_token in tokens]
        async with service.client(await service.key(*everything())) as api:
            views = [(await api.get(url(biz_token))).status_code for biz_token in tokens[1:]]

    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert views == [200, 404]


async def test_signed_callbacks_of_each_client_count_alone(settings: Settings) -> None:
    async with running(slow(settings), with_worker=False) as service, service.client(None) as stranger:

        async def sign_in(secret: str) -> httpx.Response:
            body = json.dumps({"BizToken": token()}).encode()
            return await stranger.post("/v1/callbacks", content=body, headers=signed(secret, body))

        answers = [await sign_in(secret) for secret in ("old", "new", "old", "shop")]

    assert [answer.status_code for answer in answers] == [202, 202, 429, 202]
    assert [answer.headers["RateLimit"].partition(";t")[0] for answer in answers] == [
        f'"intake";r={remaining}' for remaining in (1, 0, 0, 1)
    ]


async def test_key_without_the_scope_is_refused_and_audited_within_its_rate(settings: Settings) -> None:
    async with running(slow(settings), with_worker=False) as service:
        async with service.client(await service.key(Scope.RESULTS_READ)) as api:
            answers = [await api.get(url("any", "identity")) for _ in range(4)]
        async with service.client(await service.key(Scope.ADMIN)) as admin:
            audited = (await admin.get("/v1/audit", params={"action": "identity"})).json()["items"]

    assert [answer.status_code for answer in answers] == [403, 403, 429, 429]
    assert [item["outcome"] for item in audited] == ["forbidden"] * 2


async def test_without_limits_nothing_is_refused_and_no_header_is_sent(settings: Settings) -> None:
    async with running(changed(settings, **UNLIMITED), with_worker=False) as service:
        key = await service.key(*everything())
        async with service.client(key) as api:
            answers = await asyncio.gather(*(api.get("/v1/verifications") for _ in range(600)))

    assert {answer.status_code for answer in answers} == {200}
    assert [headers_of(answer) for answer in answers if headers_of(answer)] == []


@pytest.mark.parametrize("operation", UNCOUNTED, ids=" ".join)
async def test_operation_without_a_rate_has_no_headers(shared_service: Running, operation: Operation) -> None:
    key = await shared_service.key(*everything(), Scope.ADMIN)

    assert headers_of(await call(shared_service, key, operation, token())) == {}


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_description_states_the_rate_of_an_operation(operation: Operation) -> None:
    method, path = operation
    described = DOCUMENT["paths"][path][method]
    with_headers = {
        status for status, answer in described["responses"].items() if "RateLimit" in answer.get("headers", {})
    }
    successes = {status for status in described["responses"] if status.startswith("2")}

    assert described.get("x-rate-class") == OF.get(operation)
    assert with_headers == (successes | {"429"} if operation in OF else set())
    assert set(described["responses"].get("429", {}).get("headers", {})) == (
        ({"RateLimit", "RateLimit-Policy", "Retry-After"} if operation in OF else set())
        | ({"X-Request-Id"} if "429" in described["responses"] else set())
    )


def test_table_of_callers_is_bounded() -> None:
    now_ns = 0
    limits = LimitService(settings=LimitSettings(rate_lists="1 burst 2"), now_ns=lambda: now_ns)
    callers = [replace(CALLER, id=str(number)) for number in range(25_000)]
    for caller in callers:
        limits.admit(caller, RateClass.LISTS)
    limits.admit(callers[-1], RateClass.LISTS)

    with pytest.raises(TooManyRequestsError):
        limits.admit(callers[-1], RateClass.LISTS)
    assert limits.callers <= 10_000
    now_ns = 2 * 10**9
    limits.admit(callers[-1], RateClass.LISTS)
