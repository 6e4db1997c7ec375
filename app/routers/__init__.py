"""Inbound HTTP, and the only place that knows FastAPI: requests are checked and translated, services decide."""
