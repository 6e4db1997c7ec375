"""The tables of webhook endpoints. Private to this folder, like `app.storage.tables`."""

from collections.abc import Collection
from enum import StrEnum

from sqlalchemy import (
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    TypeDecorator,
    text,
)

from app.domain.detection import Outcome
from app.domain.events import EventType
from app.domain.webhook_endpoint import MAX_CONCURRENCY, DisabledReason, EndpointState
from app.storage.tables import EnumType, UtcDateTime, metadata


class NamesType(TypeDecorator[frozenset[str]]):
    """A set of names without blanks, stored in ascending order and separated by blanks."""

    impl = String
    cache_ok = True

    def __init__(self, kind: type[StrEnum] | type[str]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Collection[str] | None, _: Dialect) -> str:
        """Converts for the driver."""
        return " ".join(sorted(value or ()))

    def process_result_value(self, value: str | None, _: Dialect) -> frozenset[str]:
        """Converts from the driver."""
        return frozenset(map(self.kind, (value or "").split()))


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
