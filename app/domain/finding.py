"""By what a person is found: the spelling that all spellings of a number or a name come to."""

import unicodedata


def normal_id_card(number: str | None) -> str | None:
    """An ID number without spaces, its letters in upper case and ASCII; None for none."""
    return _normal(number or "").upper() or None


def normal_name(name: str | None) -> str | None:
    """A name without spaces, so that those around a middle dot do not matter; None for none."""
    return _normal(name or "").casefold() or None


def _normal(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())
