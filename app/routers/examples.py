"""Examples of the JSON, by the names of the schemas, for the API description. The person is invented."""

from collections.abc import Mapping
from typing import Any

from app.domain.events import EventType

_VERIFICATION = "CE661F1A-0F1E-45BD-BE13-34C05CEA7681"
_REQUEST_ID = "0f96cf39-50a5-4e0c-8f1b-4a1a2a3b4c5d"
_ENDPOINT_ID = "we_0123456789abcdef01234567"
_EVENT_ID = "evt_9f86d081884c7d659a2feaa0c55a"
_NAMED = {"client": "shop", "biz_token": _VERIFICATION, "rule_id": "1", "subject_ref": "loan-4711"}
_TIMES = {
    "registered_at": "2026-11-23T07:58:00Z",
    "received_at": "2026-11-23T08:00:00Z",
    "retrieved_at": "2026-11-23T08:00:01Z",
}
_RETRIEVAL = {
    "attempts": 1,
    "last_request_id": _REQUEST_ID,
    "last_error_code": None,
    "due_at": None,
    "deadline_at": "2026-11-26T07:58:00Z",
}
_ATTEMPT = {"err_code": 0, "err_msg": "成功", "requested_at": "2026-11-23T07:59:43.289Z"}
_STATUSES = {
    "err_code": 0,
    "err_msg": "成功",
    "live_status": 0,
    "live_msg": "成功",
    "compare_status": 0,
    "compare_msg": "成功",
}
_VIEW: dict[str, Any] = {
    **_NAMED,
    **_TIMES,
    "altered": False,
    "state": "retrieved",
    "outcome": "passed",
    "provisional": False,
    "verdict": {**_STATUSES, "similarity": 96.42, "intention_status": None, "intention_msg": None},
    "identity": {"name": "张*", "id_card": "0****************4", "ocr_address": "北京市***"},
    "liveness_attempts": [_ATTEMPT],
    "media": [
        {
            "kind": "best_frame",
            "content_type": "image/jpeg",
            "size_bytes": 40003,
            "href": f"/v1/verifications/{_VERIFICATION}/media/best_frame",
        }
    ],
    "unreadable_media": [],
    "retrieval": _RETRIEVAL,
    "updated_at": "2026-11-23T08:00:01Z",
    "retain_until": "2027-05-22T07:58:00Z",
    "retain_media_until": "2026-12-23T07:58:00Z",
    "legal_hold": False,
}
_OCR = {
    "ocr_name": "张三",
    "ocr_id_card": "000000199001011234",
    "ocr_gender": "男",
    "ocr_nation": "汉",
    "ocr_birth": "1990/1/1",
    "ocr_address": "北京市朝阳区测试路1号",
    "ocr_authority": "测试市公安局",
    "ocr_valid_date": "2020.01.01-2040.01.01",
}
_PERSON = {"name": "张三", "id_card": "000000199001011234"}
_CHANGE = {
    **_NAMED,
    "state": "retrieved",
    "outcome": "passed",
    "provisional": False,
    "err_code": 0,
    "revision": 3,
    "href": f"/v1/verifications/{_VERIFICATION}",
}
_WITHOUT_RESULT = _CHANGE | {"outcome": None, "err_code": None}
_FAILING = {
    "id": _ENDPOINT_ID,
    "host": "shop.example",
    "client": "shop",
    "state": "failing",
    "disabled_reason": None,
    "failing_since": "2026-11-23T07:45:00.000Z",
    "last_error": "http_status:503",
}
_DATA: Mapping[EventType, Mapping[str, object]] = {
    EventType.RETRIEVED: _CHANGE,
    EventType.UPDATED: _CHANGE | {"outcome": "failed", "err_code": 2016, "revision": 4},
    EventType.FAILED: _WITHOUT_RESULT | {"state": "failed"},
    EventType.EXPIRED: _WITHOUT_RESULT | {"state": "expired"},
    EventType.ERASED: _WITHOUT_RESULT | {"state": "erased", "revision": 5},
    EventType.EXPIRING: _WITHOUT_RESULT | {"state": "pending", "revision": 2},
    EventType.ENDPOINT_FAILING: _FAILING,
    EventType.ENDPOINT_DISABLED: _FAILING | {"state": "disabled", "disabled_reason": "failing"},
    EventType.TEST: {"test": True, "endpoint_id": _ENDPOINT_ID, "client": "shop"},
}
EVENTS: Mapping[EventType, Mapping[str, object]] = {
    kind: {"id": _EVENT_ID, "type": kind.value, "timestamp": "2026-11-23T08:00:01.418Z", "data": data}
    for kind, data in _DATA.items()
}
_EVENT = EVENTS[EventType.RETRIEVED]
_FACTS = {
    "events": ["verification.retrieved", "verification.updated"],
    "outcomes": [],
    "rule_ids": [],
    "description": "Credit decisions",
    "max_per_second": None,
}
_URL = "https://shop.example/hooks/faceid"
_ENDPOINT = {
    **_FACTS,
    "id": _ENDPOINT_ID,
    "client": "shop",
    "url": _URL,
    "host": "shop.example",
    "state": "enabled",
    **dict.fromkeys(("disabled_reason", "disabled_at", "failing_since", "last_failure_at", "last_error"), None),
    "last_success_at": "2026-11-23T08:00:00Z",
    "paused_until": None,
    "previous_secret_until": None,
    "created_at": "2026-11-20T09:00:00Z",
    "updated_at": "2026-11-20T09:00:00Z",
}
_DELIVERED = {"duration_ms": 42, "status": 204, "error": None, "detail": None, "response_head": ""}
_DELIVERY = {
    "id": "dlv_4711",
    "endpoint_id": _ENDPOINT_ID,
    "event_id": _EVENT_ID,
    "type": "verification.retrieved",
    "biz_token": _VERIFICATION,
    "revision": 3,
    "state": "delivered",
    "due_at": None,
    "created_at": "2026-11-23T08:00:01.440Z",
    "ended_at": "2026-11-23T08:00:01.482Z",
    "attempt_count": 1,
    "attempts": [
        {"at": "2026-11-23T08:00:01.482Z", "host": "shop.example", "address": "203.0.113.7", **_DELIVERED},
    ],
}

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "Callback": {"BizToken": _VERIFICATION, "RuleId": "1"},
    "CallbackAccepted": {"biz_token": _VERIFICATION, "state": "pending", "received_at": "2026-11-23T08:00:00Z"},
    "Registration": {"rule_id": "1", "subject_ref": "loan-4711", "created_at": "2026-11-23T07:58:00Z"},
    "RedirectWanted": {"rule_id": "1"},
    "RedirectIssued": {
        "state": "djEu…",
        "extra": "b1946ac92492d2347c6235b4d2611184",
        "expires_at": "2026-11-23T10:00:00Z",
    },
    "VerificationView": _VIEW,
    "VerificationStanding": {**_NAMED, **_TIMES, "state": "pending", "retrieval": _RETRIEVAL, "retrieved_at": None},
    "VerificationPage": {"items": [_VIEW], "next_cursor": None},
    "PersonSearch": {**_PERSON, "outcome": ["passed"], "limit": 10},
    "Identity": {
        **_PERSON,
        **_STATUSES,
        **_OCR,
        "biz_token": _VERIFICATION,
        "sim": "96.42",
        "location": None,
        "extra": None,
        "further": {},
        "liveness_attempts": [{**_ATTEMPT, **_PERSON, "req_time": "1795420783289", "further": {}}],
        "callback_extra": None,
    },
    "EventView": _EVENT,
    "EventPageView": {"items": [_EVENT], "next_after": 4711},
    "KeyDescription": {
        "id": "9f86d081884c",
        "name": "shop back end",
        "client": "shop",
        "scopes": ["callbacks:write", "results:read"],
        "networks": ["10.0.0.0/8"],
        "expires_at": "2027-02-21T08:00:00Z",
    },
    "AuditPage": {
        "items": [
            {
                "at": "2026-11-23T08:05:00Z",
                "who": "shop back end",
                "key_id": "9f86d081884c",
                "client": "shop",
                "action": "identity",
                "biz_token": _VERIFICATION,
                "subject": None,
                "fields": ["id_card", "name"],
                "purpose": "credit decision",
                "request_id": _REQUEST_ID,
                "outcome": "done",
            }
        ],
        "next_cursor": None,
    },
    "EndpointCreation": {"url": _URL, **_FACTS},
    "EndpointChange": {"state": "enabled", "held": "send"},
    "EndpointWithSecret": {**_ENDPOINT, "secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
    "EndpointDetails": {**_ENDPOINT, "pending_count": 0},
    "EndpointView": _ENDPOINT,
    "EndpointPageView": {"items": [_ENDPOINT | {"url": None}], "next_cursor": None},
    "Rotation": {"keep_for": "24h"},
    "EndpointTest": {"type": "test"},
    "EndpointTestResult": _DELIVERED,
    "DeliveryView": _DELIVERY,
    "DeliveryPageView": {"items": [_DELIVERY], "next_cursor": None},
    "ReplayWanted": {"from": "2026-11-22T00:00:00Z", "to": "2026-11-23T00:00:00Z", "which": "failed", "dry_run": True},
    "ReplayView": {
        "id": "rpl_0123456789ab",
        "count": 214,
        "oldest_at": "2026-11-22T03:12:00Z",
        "has_more": False,
    },
    "Stats": {
        "from": "2026-11-01",
        "to": "2026-11-23",
        "items": [{"day": "2026-11-23", "outcome": "passed", "count": 1204}],
    },
    "Readiness": {"status": "ok", "warning_count": 0, "warnings": None},
    "Problem": {
        "type": "/docs/errors#not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no such verification.",
        "code": "not_found",
        "request_id": _REQUEST_ID,
    },
}
