"""The JSON of the audit trail."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.domain.audit import Action, AuditRecord
from app.routers.schemas import Instant


class AuditEvent(BaseModel):
    """One row of the audit trail."""

    model_config = ConfigDict(from_attributes=True)

    at: Instant
    who: str
    key_id: str = Field(description="The API key, or `oidc:` and the subject of a person.")
    client: str
    action: Action | str
    biz_token: str | None
    subject: str | None = Field(
        description="The API key that a key action is about, the holder of sessions that an operator has ended, or the "
        "address of a refused authentication."
    )
    fields: list[str] = Field(description="The names of the disclosed, searched or erased fields.")
    purpose: str | None
    request_id: str
    outcome: str = Field(
        description="`done`, `found N` for a search, `erased IDS` with the ids of the log for `retention`, or why the "
        "action was refused."
    )

    @classmethod
    def of(cls, record: AuditRecord, biz_token: str | None) -> Self:
        """Converts the domain value."""
        values = {name: getattr(record, name) for name in cls.model_fields if hasattr(record, name)}
        return cls(**values | {"biz_token": biz_token, "fields": record.fields.split()})


class AuditPage(BaseModel):
    """A page of the audit trail, newest first; `next_cursor` is null on the last one."""

    items: list[AuditEvent]
    next_cursor: str | None
