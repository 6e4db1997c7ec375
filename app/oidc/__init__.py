"""The adapter of OpenID Connect: the provider that staff of the operator sign in with."""
