"""Schema migrations, which alembic applies on both databases. A migration is never edited once it is merged."""
