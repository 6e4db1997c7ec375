"""The tables of webhook endpoints and deliveries. Private to this folder, like `app.storage.tables`."""

from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    text,
)

from app.domain.deliveries import DeliveryPriority, DeliveryState, Fault
from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.webhook_endpoint import MAX_CONCURRENCY, DisabledReason, EndpointState
from app.storage.column_types import BigId, EnumType, IntEnumType, NamesType, UtcDateTime
from app.storage.tables import metadata


def _names(name: str, kind: type[StrEnum] | type[str]) -> Column[frozenset[str]]:
    return Column(name, NamesType(kind), nullable=False, server_default=text("''"))


def _count(name: str, default: int = 0) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=str(default))


webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("id", String, primary_key=True),
    Column("client", String, nullable=False),
    Column("url", String, nullable=False),
    Column("description", String),
    _names("events", EventType),
    _names("outcomes", Outcome),
    _names("rule_ids", str),
    Column("max_per_second", Integer),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("previous_secret", LargeBinary),
    Column("previous_until", UtcDateTime),
    Column("state", EnumType(EndpointState), nullable=False),
    Column("disabled_reason", EnumType(DisabledReason)),
    Column("disabled_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _count("failures"),
    Column("failing_since", UtcDateTime),
    Column("last_success_at", UtcDateTime),
    Column("last_failure_at", UtcDateTime),
    Column("last_fault", String),
    _count("pauses"),
    Column("paused_until", UtcDateTime),
    _count("concurrency", MAX_CONCURRENCY),
    Index(None, "client", "id"),
)

_HAS_DUE = text("due_at IS NOT NULL")
_IS_PENDING = text("state = 'pending'")
_HAS_HEAD = text("head IS NOT NULL")
_HAS_ENDPOINT = text("endpoint_id IS NOT NULL")

# Deleted with its event after 30 days, or with its endpoint.
delivery = Table(
    "delivery",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("endpoint_id", String, ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", BigId, ForeignKey("event.id", ondelete="CASCADE"), nullable=False),
    Column("verification_id", BigInteger),
    Column("position", BigInteger, nullable=False),
    Column("state", EnumType(DeliveryState), nullable=False),
    Column("priority", IntEnumType(DeliveryPriority), nullable=False),
    Column("due_at", UtcDateTime),
    Column("claim", Integer, nullable=False, default=0),
    Column("is_leased", Boolean, nullable=False, default=False),
    Column("step", Integer, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("event_id", "endpoint_id"),
    Index(None, "endpoint_id", "state", "id"),
    Index("ix_delivery_due", "endpoint_id", "priority", "due_at", sqlite_where=_HAS_DUE, postgresql_where=_HAS_DUE),
    Index(
        "ix_delivery_order",
        *("endpoint_id", "verification_id", "position"),
        sqlite_where=_IS_PENDING,
        postgresql_where=_IS_PENDING,
    ),
    Index("ix_delivery_leased", "endpoint_id", sqlite_where=text("is_leased = 1"), postgresql_where=text("is_leased")),
)

delivery_attempt = Table(
    "delivery_attempt",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("delivery_id", BigId, ForeignKey("delivery.id", ondelete="CASCADE"), nullable=False),
    # Null for attempts of versions before 0030.
    Column("endpoint_id", String),
    Column("at", UtcDateTime, nullable=False),
    Column("host", String, nullable=False),
    Column("address", String),
    Column("duration_ms", Integer, nullable=False),
    Column("status", Integer),
    Column("fault", EnumType(Fault)),
    Column("detail", String),
    # The begin of the answer, for seven days.
    Column("head", String),
    Index(None, "delivery_id", "id"),
    # It has all columns that the signals of an endpoint need.
    Index(
        "ix_delivery_attempt_signals",
        *("endpoint_id", "at", "fault", "duration_ms"),
        sqlite_where=_HAS_ENDPOINT,
        postgresql_where=_HAS_ENDPOINT,
    ),
    Index("ix_delivery_attempt_head", "at", sqlite_where=_HAS_HEAD, postgresql_where=_HAS_HEAD),
)
