"""Webhooks: signatures after Standard Webhooks, and requests to addresses that clients choose."""
