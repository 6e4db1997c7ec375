"""The schema's history: one migration per change, run by alembic on both databases, never edited once landed."""
