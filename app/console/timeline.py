"""The time line of a verification: one list of everything that happened, oldest first, and what comes next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

from app.console import words
from app.console.codes import Words, words_of_error
from app.console.formats import Formats
from app.console.language import marked as _
from app.domain.audit import DONE, AuditRecord
from app.domain.deliveries import DeliveryState, Fault
from app.domain.detection import Outcome
from app.domain.events import Event, EventType
from app.domain.verification import State, UpstreamCall, Verification
from app.services.deliveries import DeliveryRecord
from app.services.history import History

# A shorter pause between two entries is not drawn.
_GAP = timedelta(minutes=1)
# Media are stored a moment before the row that names them.
_TOGETHER = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry. `tone` chooses the colour, `gap` is the time since the entry before if it is long.

    `facts` are short details, `request_id` the id that Tencent's support asks for, `note` an explanation, `quote` a
    text that a person entered, `url` a page with more.
    """

    at: datetime
    tone: str
    icon: str
    title: str
    facts: Sequence[str] = ()
    request_id: str | None = None
    note: Words | None = None
    quote: str | None = None
    url: str | None = None
    gap: timedelta | None = None
    is_ahead: bool = False


def entries_of(history: History, formats: Formats) -> Sequence[Entry]:
    """Returns the time line, in the order of the instants. Instants of different machines may differ by a little."""
    known = history.result.verification
    entries = [
        *_milestones(known, formats),
        *(_call(call, formats) for call in history.calls),
        *_stored(history, formats),
        *_changes(history, formats),
        *(_record(record, formats) for record in history.records),
        *(_delivery(record, formats) for record in history.deliveries),
    ]
    past = sorted(entries, key=lambda entry: entry.at)
    return _with_gaps([*past, *_ahead(history, formats)])


def _milestones(known: Verification, formats: Formats) -> Iterator[Entry]:
    text = formats.language.text
    if known.created_at:
        yield Entry(at=known.created_at, tone="mute", icon="flag", title=text(_("Token issued by DetectAuth")))
    if known.registered_at:
        yield Entry(
            at=known.registered_at,
            tone="info",
            icon="clipboard-check",
            title=text(_("Registered")),
            facts=[known.client],
        )
    if known.received_at:
        yield Entry(
            at=known.received_at, tone="info", icon="bell", title=text(_("Callback received: the person is done"))
        )
    if known.erased_at:
        yield Entry(at=known.erased_at, tone="bad", icon="trash", title=text(_("Text, media and keys erased")))


def _call(call: UpstreamCall, formats: Formats) -> Entry:
    """Returns the entry of a call to Tencent."""
    text = formats.language.text
    facts = [
        f"InfoType {call.info_type}",
        f"{formats.number(call.duration_ms)} ms",
        formats.size(call.bytes_received),
    ]
    title = text(_("Called %(action)s"), action=call.action)
    if call.error_code:
        title = text(_("%(action)s failed"), action=call.action)
        facts.insert(0, call.error_code)
    return Entry(
        at=call.called_at,
        tone="warn" if call.error_code else "ok",
        icon="cloud-down",
        title=title,
        facts=facts,
        request_id=call.request_id,
        note=words_of_error(call.error_code) if call.error_code else None,
    )


def _stored(history: History, formats: Formats) -> Iterator[Entry]:
    """Yields the stored result, and media that came later."""
    known, text = history.result.verification, formats.language.text
    at = known.retrieved_at
    late = [item for item in history.result.media if at is None or abs(item.stored_at - at) > _TOGETHER]
    if at:
        media = [item for item in history.result.media if item not in late]
        facts = [formats.size(sum(item.size_bytes for item in media))] if media else []
        count = formats.language.plural("%(count)d media item", "%(count)d media items", len(media))
        outcome = known.outcome
        title = (
            text(_("Result stored: %(outcome)s"), outcome=text(words.OUTCOMES[outcome]))
            if outcome
            else text(_("Result stored"))
        )
        tone = words.OUTCOME_TONES[outcome] if outcome else "ok"
        yield Entry(at=at, tone=tone, icon="database", title=title, facts=[count, *facts] if media else [])
    for item in late:
        word, number = words.media_word(item.kind)
        title = text(_("Media stored: %(kind)s"), kind=f"{text(word)} {number}".strip())
        yield Entry(at=item.stored_at, tone="ok", icon="photo", title=title, facts=[formats.size(item.size_bytes)])


_CHANGES = {
    EventType.FAILED: ("bad", "x", _("Tencent refuses the result for good")),
    EventType.EXPIRED: ("warn", "hourglass", _("Expired: Tencent has deleted the result")),
    EventType.EXPIRING: ("warn", "alert-triangle", _("Less than 24 h left")),
}


def _changes(history: History, formats: Formats) -> Iterator[Entry]:
    """Yields the ends of a retrieval without a result, and the results before the newest one."""
    for event in history.events:
        if event.type in _CHANGES:
            tone, icon, title = _CHANGES[event.type]
            yield Entry(at=event.at, tone=tone, icon=icon, title=formats.language.text(title))
        elif event.outcome and _is_earlier(event, history):
            outcome = formats.language.text(words.OUTCOMES[event.outcome])
            title = formats.language.text(_("Result stored: %(outcome)s"), outcome=outcome)
            tone = words.OUTCOME_TONES[event.outcome]
            facts = [str(event.err_code)] if event.err_code is not None else []
            yield Entry(at=event.at, tone=tone, icon="database", title=title, facts=facts)


def _is_earlier(event: Event, history: History) -> bool:
    at = history.result.verification.retrieved_at
    return at is not None and event.at < at - _TOGETHER


def _record(record: AuditRecord, formats: Formats) -> Entry:
    """Returns the entry of a row of the audit."""
    text = formats.language.text
    action, outcome = words.ACTIONS.get(record.action), words.AUDIT_OUTCOMES.get(record.outcome)
    names = [words.field_word(name, formats.language) for name in record.fields.split()]
    if record.outcome != DONE:
        names = [text(outcome) if outcome else record.outcome]
    who = f"{record.who} ({record.key_id})" if record.key_id else record.who
    return Entry(
        at=record.at,
        tone="who",
        icon=words.ACTION_ICONS.get(record.action, "user"),
        title=text(action) if action else record.action,
        facts=[who, *([text(_(", ")).join(names)] if names else [])],
        quote=record.purpose,
    )


def _delivery(record: DeliveryRecord, formats: Formats) -> Entry:
    """Returns the entry of a delivery, at the instant of its last attempt."""
    text, delivery = formats.language.text, record.delivery
    last = record.attempts[-1] if record.attempts else None
    facts: list[str] = [text(words.EVENTS[record.event.type])]
    if last:
        answer = (
            f"HTTP {last.status}" if last.status is not None else text(words.FAULTS[last.fault or Fault.CONNECT][0])
        )
        facts += [answer, f"{formats.number(last.duration_ms)} ms"]
    if delivery.attempts > 1:
        facts.append(text(_("attempt %(count)d"), count=delivery.attempts))
    if delivery.state is DeliveryState.PENDING and last and not record.is_held:
        facts.append(text(_("tried again")))
    title, tone = _("Webhook not delivered to %(host)s"), "warn"
    if delivery.state is DeliveryState.DELIVERED:
        title, tone = _("Webhook delivered to %(host)s"), "ok"
    elif record.is_held:
        title, tone = _("Webhook held for %(host)s, which is disabled"), "next"
    elif delivery.state is DeliveryState.PENDING and last is None:
        title, tone = _("Webhook waits for %(host)s"), "next"
    return Entry(
        at=last.at if last else delivery.created_at,
        tone=tone,
        icon="webhook",
        title=text(title, host=record.host),
        facts=facts,
        url=f"/admin/deliveries/dlv_{delivery.id}",
    )


def _ahead(history: History, formats: Formats) -> Iterator[Entry]:
    """Yields what will happen to a verification that is still worked on."""
    text, known = formats.language.text, history.result.verification
    if known.due_at and not history.pause:
        late = known.due_at <= formats.now
        word = _("Due now: the next free worker calls Tencent") if late else _("Next call to Tencent")
        yield Entry(at=known.due_at, tone="next", icon="clock", title=text(word), is_ahead=True)
    if history.pause:
        title = text(_("Waits: account %(account)s is paused"), account=history.pause.account)
        yield Entry(at=history.pause.paused_at, tone="next", icon="clock", title=title, is_ahead=True)
    if known.state is State.PENDING or known.outcome is Outcome.UNFINISHED:
        title = text(_("Tencent deletes the result"))
        yield Entry(at=known.deadline_at, tone="next", icon="hourglass", title=title, is_ahead=True)


def _with_gaps(entries: Sequence[Entry]) -> Sequence[Entry]:
    if not entries:
        return []
    rest = [
        replace(after, gap=after.at - before.at) if after.at - before.at > _GAP else after
        for before, after in pairwise(entries)
    ]
    return [entries[0], *rest]
