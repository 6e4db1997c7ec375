"""Encrypt personal data: binary columns instead of text, the wrapped keys, and digests for the search.

Versions before this one stored everything in clear and were never released. A database of such a version that has rows
is rejected, not encrypted, because its media cannot be encrypted here.
"""

import sqlalchemy as sa
from alembic import op

from app.errors import ConfigurationError

revision = "0004"
down_revision = "0003"

_SEALED = {
    "detection": [
        *("id_card", "name", "ocr_nation", "ocr_address", "ocr_birth", "ocr_authority", "ocr_valid_date", "ocr_name"),
        *("ocr_id_card", "ocr_gender", "location", "extra", "further"),
    ],
    "liveness_attempt": ["id_card", "name", "further"],
    "verification": ["callback_extra"],
}
_NEW = {
    "detection": ["document", "masked", "id_card_index", "person_index"],
    "liveness_attempt": [],
    "verification": ["sealed_key"],
}


def upgrade() -> None:
    for table in ("verification", "api_key"):
        if op.get_bind().scalar(sa.select(sa.literal(1)).select_from(sa.table(table)).limit(1)):
            raise ConfigurationError(
                "The database was filled by a version that sealed nothing. This one needs an empty database and an "
                "empty media store: set others, and keep those until nobody needs them."
            )
    for table, columns in _SEALED.items():
        for column in columns:
            op.drop_column(table, column)
        for column in (*columns, *_NEW[table]):
            op.add_column(table, sa.Column(column, sa.LargeBinary(), nullable=True))
    for index in ("id_card_index", "person_index"):
        op.create_index(op.f(f"ix_detection_{index}_verification_id"), "detection", [index, "verification_id"])
    with op.batch_alter_table("media") as media:
        media.add_column(sa.Column("sealed_key", sa.LargeBinary(), nullable=False))
    with op.batch_alter_table("api_key") as api_key:
        api_key.drop_column("secret_sha256")
        api_key.add_column(sa.Column("sealed_digest", sa.LargeBinary(), nullable=False))
