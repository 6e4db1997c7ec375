"""The inbound HTTP API, and the only place that knows FastAPI: routes translate requests, services decide."""
