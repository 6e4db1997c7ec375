"""The words for the values of the domain. Each is a message id; tables are per type, because values repeat."""

from collections.abc import Mapping

from app.console.language import Language
from app.console.language import marked as _
from app.domain.api_key import Scope
from app.domain.audit import Action
from app.domain.deliveries import DeliveryState, Fault, ReplayKind
from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.listing import TimeField
from app.domain.media import MediaKind
from app.domain.verification import State
from app.domain.webhook_endpoint import EndpointState

STATES: Mapping[str, str] = {
    State.PENDING: _("To be retrieved"),
    State.RETRIEVED: _("Retrieved"),
    State.FAILED: _("Retrieval failed"),
    State.EXPIRED: _("Expired"),
    State.ERASED: _("Erased"),
}

OUTCOMES: Mapping[str, str] = {
    Outcome.PASSED: _("Passed"),
    Outcome.FAILED: _("Not passed"),
    Outcome.UNFINISHED: _("Not finished"),
}

STATE_TONES: Mapping[str, str] = {
    State.PENDING: "info",
    State.RETRIEVED: "ok",
    State.FAILED: "bad",
    State.EXPIRED: "warn",
    State.ERASED: "mute",
}

OUTCOME_TONES: Mapping[str, str] = {Outcome.PASSED: "ok", Outcome.FAILED: "bad", Outcome.UNFINISHED: "warn"}

TIME_FIELDS: Mapping[str, str] = {
    TimeField.UPDATED: _("Changed"),
    TimeField.RECEIVED: _("Called back"),
    TimeField.RETRIEVED: _("Retrieved at"),
    TimeField.REGISTERED: _("Registered"),
}

SCOPES: Mapping[str, str] = {
    Scope.CALLBACKS_WRITE: _("Report callbacks, retrieve again"),
    Scope.RESULTS_READ: _("Read results, masked"),
    Scope.RESULTS_REVEAL: _("Show the unmasked identity"),
    Scope.MEDIA_READ: _("Show pictures and videos"),
    Scope.RESULTS_ERASE: _("Erase results"),
    Scope.WEBHOOKS_MANAGE: _("Manage webhook endpoints"),
    Scope.ADMIN: _("Everything, of all clients"),
}

ACTIONS: Mapping[str, str] = {
    Action.IDENTITY: _("Identity shown"),
    Action.MEDIA: _("Media shown"),
    Action.SEARCH: _("Person searched"),
    Action.ERASE: _("Erased"),
    Action.HOLD: _("Legal hold set"),
    Action.RELEASE: _("Legal hold lifted"),
    Action.KEY_CREATED: _("API key created"),
    Action.KEY_REVOKED: _("API key revoked"),
    Action.RETRIEVE: _("Retrieval requested"),
    Action.RETENTION: _("Erased after the retention"),
    Action.AUTHENTICATION: _("Authentication refused"),
    Action.WEBHOOK_CREATED: _("Webhook endpoint created"),
    Action.WEBHOOK_CHANGED: _("Webhook endpoint changed"),
    Action.WEBHOOK_ROTATED: _("Webhook secret rotated"),
    Action.WEBHOOK_DELETED: _("Webhook endpoint deleted"),
    Action.WEBHOOK_REPLAYED: _("Webhook events replayed"),
    Action.EXPORT: _("Exported unmasked"),
    Action.SIGN_IN: _("Signed in"),
    Action.SIGN_OUT: _("Signed out"),
}

ACTION_ICONS: Mapping[str, str] = {
    Action.IDENTITY: "eye",
    Action.MEDIA: "photo",
    Action.SEARCH: "search",
    Action.ERASE: "trash",
    Action.HOLD: "lock",
    Action.RELEASE: "lock-open",
    Action.KEY_CREATED: "key",
    Action.KEY_REVOKED: "key",
    Action.RETRIEVE: "refresh",
    Action.RETENTION: "trash",
    Action.AUTHENTICATION: "alert-triangle",
    **dict.fromkeys((action for action in Action if action.startswith("webhook")), "webhook"),
    Action.EXPORT: "database",
    Action.SIGN_IN: "login",
    Action.SIGN_OUT: "logout",
}

ENDPOINT_STATES: Mapping[str, str] = {
    EndpointState.ENABLED: _("Enabled"),
    EndpointState.FAILING: _("Failing"),
    EndpointState.DISABLED: _("Disabled"),
}

ENDPOINT_TONES: Mapping[str, str] = {
    EndpointState.ENABLED: "ok",
    EndpointState.FAILING: "bad",
    EndpointState.DISABLED: "mute",
}

EVENTS: Mapping[str, str] = {
    EventType.RETRIEVED: _("Result retrieved"),
    EventType.UPDATED: _("Result changed"),
    EventType.FAILED: _("Retrieval failed"),
    EventType.EXPIRED: _("Expired"),
    EventType.ERASED: _("Erased"),
    EventType.EXPIRING: _("Less than 24 h left"),
    EventType.ENDPOINT_FAILING: _("Webhook endpoint failing"),
    EventType.ENDPOINT_DISABLED: _("Webhook endpoint disabled"),
    EventType.TEST: _("Test event"),
}

DELIVERY_STATES: Mapping[str, str] = {
    DeliveryState.PENDING: _("Waiting"),
    DeliveryState.DELIVERED: _("Delivered"),
    DeliveryState.FAILED: _("Delivery failed"),
    DeliveryState.DROPPED: _("Dropped"),
}

DELIVERY_TONES: Mapping[str, str] = {
    DeliveryState.PENDING: "info",
    DeliveryState.DELIVERED: "ok",
    DeliveryState.FAILED: "bad",
    DeliveryState.DROPPED: "mute",
}

REPLAYS: Mapping[str, str] = {
    ReplayKind.FAILED: _("Those that failed or were dropped"),
    ReplayKind.MISSING: _("Those without a delivery, from before the endpoint or its filters"),
    ReplayKind.ALL: _("All, also those that arrived"),
}

FAULTS: Mapping[str, tuple[str, str]] = {
    Fault.DNS: (
        _("The name of the host has no address"),
        _("Check the spelling of the URL, and whether the workers can resolve the name."),
    ),
    Fault.REFUSED_ADDRESS: (
        _("Webhooks may not reach this address"),
        _("An operator can open a network of your own with WEBHOOK_ALLOWED_NETWORKS."),
    ),
    Fault.CONNECT: (
        _("No connection within 5 s"),
        _("Check that the receiver is running, and that firewalls let the workers reach it."),
    ),
    Fault.TLS: (
        _("The certificate is not trusted"),
        _("Renew the certificate, or let an operator name its authority in WEBHOOK_CA_FILE."),
    ),
    Fault.TIMEOUT: (
        _("No answer within 15 s"),
        _("Let the receiver store the event, answer with 2xx, and process it afterwards."),
    ),
    Fault.INVALID_ANSWER: (
        _("The connection ended before a complete answer"),
        _("Look into the log of the receiver, and of a proxy in front of it."),
    ),
    Fault.HTTP_STATUS: (
        _("The answer was not 2xx"),
        _("Look at the answer, and into the log of the receiver. Redirects are not followed."),
    ),
    Fault.ALTERED: (
        _("The secret was changed outside the service"),
        _("Delete the endpoint and create it again. See docs/security.md."),
    ),
}
"""Why an attempt failed, and what to do about it."""

AUDIT_OUTCOMES: Mapping[str, str] = {
    "done": _("done"),
    "forbidden": _("refused: no permission"),
    "not_found": _("refused: not found"),
    "erased": _("refused: erased"),
    "malformed": _("malformed key"),
    "missing": _("no key"),
    "unknown": _("unknown key"),
    "secret": _("wrong secret"),
    "revoked": _("revoked key"),
    "expired": _("expired key"),
    "network": _("wrong network"),
    "altered": _("altered key"),
    "signature": _("wrong signature"),
    "oidc_state": _("single sign-on: begun elsewhere or expired"),
    "oidc_denied": _("single sign-on: denied by the provider or the person"),
    "oidc_answer": _("single sign-on: wrong answer of the provider"),
    "oidc_code": _("single sign-on: rejected code"),
    "oidc_key": _("single sign-on: unknown signing key"),
    "oidc_token": _("single sign-on: wrong ID token"),
    "oidc_clock": _("single sign-on: clocks differ"),
    "oidc_role": _("single sign-on: no role"),
}

_MEDIA: Mapping[str, str] = {
    MediaKind.ID_CARD_FRONT: _("ID card, portrait side"),
    MediaKind.ID_CARD_BACK: _("ID card, emblem side"),
    MediaKind.BEST_FRAME: _("Best frame"),
    MediaKind.LIVENESS_VIDEO: _("Liveness video"),
    MediaKind.ID_CARD_FRONT_CUT: _("Portrait side, cut"),
    MediaKind.ID_CARD_BACK_CUT: _("Emblem side, cut"),
    MediaKind.ID_CARD_AVATAR: _("Portrait of the ID card"),
    "best_frame_n": _("Frame"),
    "intention_video_n": _("Intention, video"),
    "intention_picture_n": _("Intention, picture"),
    "intention_audio_n": _("Intention, sound"),
}

FIELDS: Mapping[str, str] = {
    "name": _("Name"),
    "id_card": _("ID number"),
    "ocr_name": _("Name on the card"),
    "ocr_id_card": _("ID number on the card"),
    "ocr_gender": _("Gender"),
    "ocr_nation": _("Ethnic group"),
    "ocr_birth": _("Date of birth"),
    "ocr_address": _("Address"),
    "ocr_authority": _("Issuing authority"),
    "ocr_valid_date": _("Validity"),
    "location": _("Location"),
    "extra": _("Extra"),
    "callback_extra": _("Extra of the callback"),
    "further": _("Further fields"),
    "document": _("Text as received"),
}

ERRORS: Mapping[str, str] = {
    "unauthenticated": _("The session has ended. Sign in again."),
    "forbidden": _("You have no permission for this. Ask an administrator for the scope that is needed."),
    "not_found": _("This does not exist, or it belongs to another client."),
    "erased": _("The data of this verification were erased. Only the fact that they were is left."),
    "legal_hold": _("The verification is under a legal hold. Lift the hold first."),
    "several_clients": _("Several clients have this token. Choose the client in the list of verifications."),
    "held_events": _("Events are held for the endpoint. Choose whether they are sent, then enable it."),
    "conflict": _("This contradicts an earlier statement."),
    "too_many_requests": _("Too many requests in a short time. Wait a moment and try again."),
    "unavailable": _("A database or store does not answer. The service continues as soon as it does."),
    "disk_full": _("The disk of the database is full. Erase data or use a larger disk."),
    "altered": _("The stored data were changed outside the service. Nothing of them is shown. See docs/security.md."),
    "invalid_request": _("The form is incomplete or contradicts itself. Go back and check it."),
    "invalid_cursor": _("This page of the list no longer exists. Begin with the first page."),
    "cross_site": _("The form was sent from another site, so nothing was done."),
    "no_page": _("There is no such page."),
    "internal_error": _("An internal error occurred. The log of the service has its cause."),
}

PURPOSES = (
    _("Manual review"),
    _("Complaint of a customer"),
    _("Inspection by an authority"),
    _("Evidence in a dispute"),
    _("Check of a failed verification"),
)


def field_word(name: str, language: Language) -> str:
    """Returns the word for a field of the identity or a kind of media in a language; other names as they are."""
    if word := FIELDS.get(name):
        return language.text(word)
    try:
        word, number = media_word(name)
    except KeyError:
        return name
    return f"{language.text(word)} {number}".strip()


def media_word(kind: str) -> tuple[str, str]:
    """Returns the word for a kind of media, and its number among several (or nothing)."""
    name, _separator, number = kind.rpartition("_")
    return (_MEDIA[f"{name}_n"], number) if number.isdigit() else (_MEDIA[kind], "")
