"""Use cases. Framework-independent: no FastAPI, SQLAlchemy or httpx here."""
