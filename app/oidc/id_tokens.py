"""Signatures of ID tokens. The only module that needs joserfc, which is the extra `oidc`."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from app.errors import UnauthenticatedError
from app.oidc.settings import UNKNOWN_KEY

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
"""The accepted algorithms, all with a public key. The token only chooses among them."""

_KEY_TYPES = {"RSA", "EC", "OKP"}
# Of what joserfc raises about malformed values, only JoseError is documented.
_MALFORMED = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
# Providers add fields of their own to the header. A critical one that is unknown is still rejected.
_REGISTRY = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)


class IdTokenVerifier:
    """Verifies signatures with the public keys of a provider."""

    def __init__(self) -> None:
        self._keys = KeySet([])

    def replace_keys(self, documents: Sequence[Mapping[str, object]]) -> None:
        """Replaces the keys. Those of unknown types are left out, and a malformed one does not cost the others."""
        keys: list[Key] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            for document in documents:
                with suppress(*_MALFORMED):
                    if document["kty"] in _KEY_TYPES:
                        texts = {name: value for name, value in document.items() if isinstance(value, str | list)}
                        keys.append(JWKRegistry.import_key(texts))
            self._keys = KeySet(keys)

    def verify(self, token: str) -> Mapping[str, object]:
        """Returns the claims of a token that one of the keys has signed.

        Raises:
            UnauthenticatedError: the token is malformed, its signature, algorithm or type is wrong, or no key has the
                id that it names.
        """
        try:
            with warnings.catch_warnings():
                # RFC 9864 deprecates the name EdDSA, not the signature.
                warnings.simplefilter("ignore", SecurityWarning)
                verified = jwt.decode(token, self._keys, registry=_REGISTRY)
            kind = verified.header.get("typ", "JWT")
        except InvalidKeyIdError:
            raise UnauthenticatedError("The key of the ID token is unknown.", reason=UNKNOWN_KEY) from None
        except _MALFORMED:
            raise UnauthenticatedError("The ID token is not signed as it should be.", reason="oidc_token") from None
        # Another kind of token of the same provider is not a proof of the sign-in.
        if not isinstance(kind, str) or kind.upper() != "JWT":
            raise UnauthenticatedError("The token is not an ID token.", reason="oidc_token")
        return verified.claims
