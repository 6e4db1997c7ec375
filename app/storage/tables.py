"""The schema. Private to this folder. `migrations/` creates it, and a test compares the two."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
    text,
)

from app.domain.api_key import Scope
from app.domain.audit import Action
from app.domain.events import EventType
from app.domain.media import MediaKind
from app.domain.verification import Priority, State
from app.storage.column_types import (
    BigId,
    CodeType,
    DayType,
    EnumType,
    IntEnumType,
    NamesType,
    NetworksType,
    OutcomeType,
    PartsType,
    UnreadableType,
    UtcDateTime,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _verification_key(*, primary: bool = False) -> Column[int]:
    return Column(
        "verification_id",
        BigId,
        ForeignKey("verification.id", ondelete="CASCADE"),
        primary_key=primary,
        nullable=False,
        autoincrement=False,
    )


def _partial_index(name: str, where: str, *columns: str) -> Index:
    return Index(f"ix_verification_{name}", *columns, sqlite_where=text(where), postgresql_where=text(where))


IS_OPEN = "state = 'pending' OR pulled <> ''"
"""The condition of a verification that is not completely retrieved. Only this text uses the index of deadlines."""

_HAS_NONCE = text("nonce IS NOT NULL")

verification = Table(
    "verification",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("client", String, nullable=False),
    Column("biz_token", String, nullable=False),
    Column("rule_id", String, nullable=False),
    Column("is_rule_assumed", Boolean, nullable=False, server_default=false()),
    Column("account", String, nullable=False, server_default="default"),
    Column("subject_ref", String),
    Column("purpose", String),
    Column("callback_extra", LargeBinary),
    Column("sealed_key", LargeBinary),
    Column("digest", LargeBinary),
    Column("revision", Integer, nullable=False, server_default="0"),
    Column("state", EnumType(State), nullable=False),
    Column("outcome", OutcomeType, nullable=False, server_default=text("''")),
    Column("provisional", Boolean, nullable=False, default=False),
    Column("err_code", BigInteger),
    Column("event_count", Integer, nullable=False, server_default="0"),
    Column("is_expiry_announced", Boolean, nullable=False, server_default=false()),
    Column("created_at", UtcDateTime),
    Column("registered_at", UtcDateTime),
    Column("received_at", UtcDateTime),
    Column("retrieved_at", UtcDateTime),
    # A constant default, because adding the column must not rewrite the rows.
    Column("updated_at", UtcDateTime, nullable=False, server_default=text("'2000-01-01 00:00:00'")),
    Column("deadline_at", UtcDateTime, nullable=False),
    # The queue. A column with a `key` has an older name in the database.
    Column("due_at", UtcDateTime),
    Column("priority", IntEnumType(Priority), nullable=False, server_default="1"),
    Column("pulled", PartsType, key="fetched_parts", nullable=False, server_default=text("''")),
    Column("one_by_one", Boolean, key="fetch_separately", nullable=False, server_default=false()),
    Column("awaited_parts", PartsType, nullable=False, server_default=text("''")),
    Column("media_polls", Integer, nullable=False, server_default="0"),
    Column("unreadable", UnreadableType, nullable=False, server_default=text("''")),
    Column("claim", Integer, nullable=False, default=0),
    Column("leased", Boolean, key="is_leased", nullable=False, default=False),
    Column("woken", Boolean, key="wake_requested", nullable=False, default=False),
    Column("called_at", UtcDateTime),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("looks", Integer, key="polls", nullable=False, default=0),
    Column("last_request_id", String),
    Column("last_error_code", String),
    # Retention. `erase_at` is null under a legal hold and if nothing is left to erase.
    Column("retain_until", UtcDateTime, nullable=False),
    Column("retain_media_until", UtcDateTime, nullable=False),
    Column("erase_at", UtcDateTime),
    Column("erased_at", UtcDateTime),
    Column("legal_hold", Boolean, nullable=False, server_default=false()),
    Column("nonce", String),
    # For look-ups by token alone and by client and token.
    Index(None, "biz_token", "client", unique=True),
    Index("ix_verification_nonce", "nonce", unique=True, sqlite_where=_HAS_NONCE, postgresql_where=_HAS_NONCE),
    _partial_index("erase_at", "erase_at IS NOT NULL", "erase_at"),
    _partial_index("turns", "due_at IS NOT NULL", "account", "priority", "client", "due_at"),
    _partial_index("deadline_at", IS_OPEN, "deadline_at"),
    # One index per list (`app.storage.listing`). Those without a client serve admins.
    _partial_index("subject_ref_id", "subject_ref IS NOT NULL", "subject_ref", "id"),
    *(
        Index(None, *first, "state", "outcome", *last)
        for first, last in (
            (["client"], ["id"]),
            (["client", "rule_id"], ["id"]),
            (["client"], ["received_at", "id"]),
            (["client", "rule_id"], ["received_at", "id"]),
            ([], ["id"]),
            (["rule_id"], ["id"]),
            ([], ["received_at", "id"]),
            (["client"], ["updated_at", "id"]),
            ([], ["updated_at", "id"]),
        )
    ),
    *(
        _partial_index("_".join(columns), f"{at} IS NOT NULL", *columns)
        for at in ("registered_at", "retrieved_at")
        for client in (["client"], [])
        for columns in ([*client, "state", "outcome", at, "id"],)
    ),
    # The id of an erased row is never assigned to another person.
    sqlite_autoincrement=True,
)

_HAS_POSITION = text("position IS NOT NULL")
_HAS_NO_POSITION = text("position IS NULL")

# Without a foreign key: rows of verifications are never removed, and each insert would look one up.
event = Table(
    "event",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("public_id", String, nullable=False),
    # Null until the sequencer assigns one (`app.storage.events`).
    Column("position", BigInteger),
    Column("type", EnumType(EventType), nullable=False),
    Column("client", String, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("verification_id", BigInteger),
    Column("biz_token", String),
    Column("rule_id", String),
    Column("subject_ref", String),
    Column("state", EnumType(State)),
    Column("outcome", OutcomeType, nullable=False, server_default=text("''")),
    Column("provisional", Boolean, nullable=False, server_default=false()),
    Column("err_code", BigInteger),
    Column("revision", Integer),
    Column("details", String),
    Index(None, "verification_id", "id"),
    Index("ix_event_new", "id", sqlite_where=_HAS_NO_POSITION, postgresql_where=_HAS_NO_POSITION),
    *(
        Index(f"ix_event_{name}", *columns, unique=unique, sqlite_where=_HAS_POSITION, postgresql_where=_HAS_POSITION)
        for name, columns, unique in (
            ("position", ("position",), True),
            ("client_position", ("client", "position"), False),
        )
    ),
    sqlite_autoincrement=True,
)

# One row: the newest position. Its lock lets one sequencer work at a time.
event_counter = Table(
    "event_counter",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, default=1),
    Column("position", BigInteger, nullable=False),
)

# A signed state can be used by one token, and the token's result must contain the nonce of one of its states.
redirect_nonce = Table(
    "redirect_nonce",
    metadata,
    Column("nonce", String, primary_key=True),
    Column("client", String, nullable=False),
    Column("biz_token", String, nullable=False),
    # An erasure removes the nonces of its verification.
    Index(None, "biz_token", "client"),
)


def _count_columns(*, primary: bool) -> list[Column[Any]]:
    return [
        Column("day", DayType, primary_key=primary, nullable=False),
        Column("client", String, primary_key=primary, nullable=False),
        Column("rule_id", String, primary_key=primary, nullable=False),
        Column("state", EnumType(State), primary_key=primary, nullable=False),
        Column("outcome", OutcomeType, primary_key=primary, nullable=False),
        Column("err_code", CodeType, primary_key=primary, nullable=False),
        Column("number", BigInteger, nullable=False),
    ]


# The counts of verifications are the sum of both tables (`app.storage.counts`).
count_total = Table("count_total", metadata, *_count_columns(primary=True), Index(None, "client", "day"))
count_change = Table("count_change", metadata, Column("id", BigId, primary_key=True), *_count_columns(primary=False))

# Binary columns are encrypted (`app.sealing.personal_data`), except the two indexes, which are keyed digests.
detection = Table(
    "detection",
    metadata,
    _verification_key(primary=True),
    Column("err_code", BigInteger),
    Column("err_msg", String),
    Column("id_card", LargeBinary),
    Column("name", LargeBinary),
    Column("ocr_nation", LargeBinary),
    Column("ocr_address", LargeBinary),
    Column("ocr_birth", LargeBinary),
    Column("ocr_authority", LargeBinary),
    Column("ocr_valid_date", LargeBinary),
    Column("ocr_name", LargeBinary),
    Column("ocr_id_card", LargeBinary),
    Column("ocr_gender", LargeBinary),
    Column("live_status", BigInteger),
    Column("live_msg", String),
    Column("compare_status", BigInteger),
    Column("compare_msg", String),
    Column("sim", String),
    Column("is_intention_required", Boolean, nullable=False, server_default=false()),
    Column("intention_status", BigInteger),
    Column("intention_msg", String),
    Column("location", LargeBinary),
    Column("extra", LargeBinary),
    Column("further", LargeBinary),
    Column("document", LargeBinary),
    Column("masked", LargeBinary),
    Column("id_card_index", LargeBinary),
    Column("person_index", LargeBinary),
    Index(None, "err_code", "verification_id"),
    Index(None, "id_card_index", "verification_id"),
    Index(None, "person_index", "verification_id"),
)

liveness_attempt = Table(
    "liveness_attempt",
    metadata,
    _verification_key(primary=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("err_code", BigInteger),
    Column("err_msg", String),
    Column("req_time", String),
    Column("id_card", LargeBinary),
    Column("name", LargeBinary),
    Column("further", LargeBinary),
)

media = Table(
    "media",
    metadata,
    _verification_key(primary=True),
    Column("kind", EnumType(MediaKind), primary_key=True),
    Column("object_key", String, nullable=False),
    Column("content_type", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("stored_at", UtcDateTime, nullable=False),
    UniqueConstraint("object_key"),
)

upstream_call = Table(
    "upstream_call",
    metadata,
    Column("id", BigId, primary_key=True),
    _verification_key(),
    Column("called_at", UtcDateTime, nullable=False),
    Column("action", String, nullable=False),
    Column("info_type", String, nullable=False),
    Column("request_id", String),
    Column("error_code", String),
    Column("duration_ms", Integer, nullable=False),
    Column("bytes_received", BigInteger, nullable=False),
    Index(None, "verification_id", "id"),
)

quota = Table(
    "quota",
    metadata,
    Column("account", String, primary_key=True),
    # The theoretical arrival time in microseconds since the epoch.
    Column("tat_us", BigInteger, nullable=False),
    # The slots of the newest minute with slots, in minutes since the epoch, and of the one before it.
    Column("minute", BigInteger, nullable=False, server_default="0"),
    Column("slots", Integer, nullable=False, server_default="0"),
    Column("slots_before", Integer, nullable=False, server_default="0"),
)

# Workers report themselves, so every process can count them.
worker = Table(
    "worker",
    metadata,
    Column("id", String, primary_key=True),
    Column("seen_at", UtcDateTime, nullable=False),
)

pause = Table(
    "pause",
    metadata,
    Column("account", String, primary_key=True),
    # Empty for a pause of the whole account.
    Column("rule_id", String, primary_key=True),
    Column("error_code", String, nullable=False),
    Column("paused_at", UtcDateTime, nullable=False),
    Column("probe_at", UtcDateTime, nullable=False),
)

reconciliation = Table(
    "reconciliation",
    metadata,
    Column("rule_id", String, primary_key=True),
    Column("day", DayType, primary_key=True),
    Column("cursor", BigInteger, nullable=False),
    Column("due_at", UtcDateTime),
)

# One row, which the first process writes.
installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, default=1),
    Column("database_id", String(32), nullable=False),
    Column("checked_at", UtcDateTime),
    Column("doubted_since", UtcDateTime),
    Column("erasure_stopped_at", UtcDateTime),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("client", String, nullable=False),
    Column("scopes", NamesType(Scope), nullable=False),
    Column("sealed_digest", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("networks", NetworksType, nullable=False, server_default=text("''")),
)

# Sessions of the console. A key ring seals the id, bound to the rights of the session.
console_session = Table(
    "console_session",
    metadata,
    Column("id_hash", LargeBinary, primary_key=True),
    Column("key_id", String),
    Column("caller_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("client", String, nullable=False),
    Column("scopes", NamesType(Scope), nullable=False),
    Column("sealed_hash", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "expires_at"),
)

_HAS_SUBJECT = text("subject IS NOT NULL")

# Without a foreign key to the verification: the record of a disclosure stays when the data are erased.
audit = Table(
    "audit",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("who", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("client", String, nullable=False),
    Column("action", EnumType(Action), nullable=False),
    Column("verification_id", BigInteger),
    Column("subject", String),
    Column("fields", String, nullable=False),
    Column("purpose", String),
    Column("request_id", String, nullable=False),
    Column("outcome", String, nullable=False),
    Index(None, "verification_id", "id"),
    Index(None, "action", "id"),
    Index(None, "key_id", "id"),
    Index("ix_audit_subject", "subject", sqlite_where=_HAS_SUBJECT, postgresql_where=_HAS_SUBJECT),
    sqlite_autoincrement=True,
)

audit_link = Table(
    "audit_link",
    metadata,
    Column("position", BigId, primary_key=True, autoincrement=False),
    Column("audit_id", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    UniqueConstraint("audit_id"),
)


def columns_of(value: "DataclassInstance") -> dict[str, Any]:
    """Returns a dataclass as the columns of its table. `asdict` would deep-copy the values."""
    return {name: getattr(value, name) for name in _names_of(type(value))}


@cache
def _names_of(kind: type["DataclassInstance"]) -> Sequence[str]:
    return [field.name for field in fields(kind)]
