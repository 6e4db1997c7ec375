"""The schema. Private to this folder; `migrations/` brings a database here and a test holds the two together."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
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


class Instant(TypeDecorator[datetime]):
    """An aware instant in UTC. SQLite keeps no zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the driver."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the driver."""
        return value and value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value and value.astimezone(UTC)


NO_OUTCOME = ""


class Verdict(TypeDecorator[str]):
    """An outcome. None is an empty text, which indexes can be searched for like any other (`app.storage.lists`)."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, _: Dialect) -> str:
        """To the driver."""
        return value or NO_OUTCOME

    def process_result_value(self, value: str | None, _: Dialect) -> str | None:
        """From the driver."""
        return value or None


# SQLite numbers rows by itself only where the key is exactly an INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")


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


_HAS_NONCE = text("nonce IS NOT NULL")

verification = Table(
    "verification",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("client", String, nullable=False),
    Column("biz_token", String, nullable=False),
    Column("rule_id", String, nullable=False),
    Column("account", String, nullable=False, server_default="default"),
    Column("subject_ref", String),
    Column("purpose", String),
    Column("callback_extra", LargeBinary),
    Column("sealed_key", LargeBinary),
    Column("state", String, nullable=False),
    Column("outcome", Verdict, nullable=False, server_default=text("''")),
    Column("provisional", Boolean, nullable=False, default=False),
    Column("created_at", Instant),
    Column("registered_at", Instant),
    Column("received_at", Instant),
    Column("retrieved_at", Instant),
    Column("deadline_at", Instant, nullable=False),
    # The queue: what is due, and whose claim is the newest. `woken` remembers a callback that came during a fetch.
    Column("due_at", Instant),
    Column("priority", Integer, nullable=False, server_default="1"),
    Column("pulled", String, nullable=False, server_default=text("''")),
    Column("one_by_one", Boolean, nullable=False, server_default=false()),
    Column("claim", Integer, nullable=False, default=0),
    Column("leased", Boolean, nullable=False, default=False),
    Column("woken", Boolean, nullable=False, default=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("looks", Integer, nullable=False, default=0),
    Column("last_request_id", String),
    Column("last_error_code", String),
    # How long it is kept, and when there is next something to erase; null where it is held, or nothing is left.
    Column("retain_until", Instant, nullable=False),
    Column("retain_media_until", Instant, nullable=False),
    Column("erase_at", Instant),
    Column("erased_at", Instant),
    Column("legal_hold", Boolean, nullable=False, server_default=false()),
    Column("nonce", String),
    UniqueConstraint("biz_token"),
    Index("ix_verification_nonce", "nonce", unique=True, sqlite_where=_HAS_NONCE, postgresql_where=_HAS_NONCE),
    _partial_index("erase_at", "erase_at IS NOT NULL", "erase_at"),
    _partial_index("queue", "due_at IS NOT NULL", "account", "priority", "due_at"),
    _partial_index("deadline_at", "state = 'pending' OR pulled <> ''", "deadline_at"),
    # The lists, one after the other (`app.storage.lists`); those without a client are admins'.
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
        )
    ),
    sqlite_autoincrement=True,  # an id that was erased never names another person
)

# What is binary is sealed (`app.services.vault`); the two indexes are keyed digests, to be found by and not to be read.
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
    Column("location", LargeBinary),
    Column("extra", LargeBinary),
    Column("further", LargeBinary),
    Column("document", LargeBinary),
    Column("masked", LargeBinary),
    Column("id_card_index", LargeBinary),
    Column("person_index", LargeBinary),
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
    Column("kind", String, primary_key=True),
    Column("object_key", String, nullable=False),
    Column("content_type", String, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("stored_at", Instant, nullable=False),
    UniqueConstraint("object_key"),
)

upstream_call = Table(
    "upstream_call",
    metadata,
    Column("id", BigId, primary_key=True),
    _verification_key(),
    Column("called_at", Instant, nullable=False),
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
    Column("tat_us", BigInteger, nullable=False),  # theoretical arrival time: microseconds since the epoch
)

pause = Table(
    "pause",
    metadata,
    Column("account", String, primary_key=True),
    Column("rule_id", String, primary_key=True),  # empty: the whole account
    Column("error_code", String, nullable=False),
    Column("paused_at", Instant, nullable=False),
    Column("probe_at", Instant, nullable=False),
)

reconciliation = Table(
    "reconciliation",
    metadata,
    Column("rule_id", String, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("cursor", BigInteger, nullable=False),
    Column("due_at", Instant),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("client", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("sealed_digest", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Column("networks", String, nullable=False, server_default=text("''")),
)

# Names no verification by a foreign key: what was disclosed stays on record when the data are gone.
audit = Table(
    "audit",
    metadata,
    Column("id", BigId, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("who", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("client", String, nullable=False),
    Column("action", String, nullable=False),
    Column("verification_id", BigInteger),
    Column("subject", String),
    Column("fields", String, nullable=False),
    Column("purpose", String),
    Column("request_id", String, nullable=False),
    Column("outcome", String, nullable=False),
    Index(None, "verification_id", "id"),
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
    """A dataclass as the columns of its table; `asdict` would copy all that it holds."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
