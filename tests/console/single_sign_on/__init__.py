"""Tests of the sign-in with OpenID Connect: who gets in with which rights, and which answers are refused."""
