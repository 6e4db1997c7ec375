"""Says in words why a request is rejected: the field and its limit, and never the value."""

import re
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from app.routers import schemas, webhook_schemas

_PATTERN_WORDS = schemas.PATTERN_WORDS | webhook_schemas.PATTERN_WORDS
_INSTANT = "must be an instant with its time zone, like 2026-11-23T08:00:00Z"
_WHOLE_NUMBER, _NUMBER = "must be a whole number", "must be a number"
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "missing": "is required",
        "extra_forbidden": "is not known{hint}",
        "repeated": "may be given only once",
        "string_type": "must be a text",
        "string_unicode": "must be valid Unicode",
        "string_too_long": "must have at most {max_length} characters",
        "int_type": _WHOLE_NUMBER,
        "int_parsing": _WHOLE_NUMBER,
        "int_parsing_size": _WHOLE_NUMBER,
        "int_from_float": _WHOLE_NUMBER,
        "float_type": _NUMBER,
        "float_parsing": _NUMBER,
        "greater_than_equal": "must be at least {ge}",
        "less_than_equal": "must be at most {le}",
        "enum": "must be {expected}",
        "literal_error": "must be {expected}",
        "less_than": "must be less than {lt}",
        "too_long": "must have at most {max_length} values",
        "timezone_aware": _INSTANT,
        "datetime_type": _INSTANT,
        "datetime_parsing": _INSTANT,
        "datetime_from_date_parsing": _INSTANT,
        "model_attributes_type": "must be a JSON object, sent as application/json",
    }
)
# Other names may be personal data in the wrong place, such as an ID number.
_SHOWN_NAME = re.compile("[A-Za-z][A-Za-z_]{0,39}")


class Rejection(BaseModel):
    """The place of an error in a request, a stable word for the error, and a sentence with the limit."""

    location: list[str | int]
    type: str
    message: str


def rejection_of(error: Mapping[str, Any]) -> Rejection:
    """Converts an error of pydantic or of `StrictRoute`."""
    kind, location = error["type"], list(error["loc"])
    # The caller invented the name.
    if kind == "extra_forbidden" and not _SHOWN_NAME.fullmatch(str(location[-1])):
        return Rejection(location=location[:-1], type=kind, message=f"The {location[0]} has a field that is not known.")
    # Without the positions in lists.
    place = [part for part in location[1:] if isinstance(part, str)]
    name = ".".join(place) if place else f"The {location[0]}"
    return Rejection(location=location, type=kind, message=f"{name} {words_of(error)}.")


def words_of(error: Mapping[str, Any]) -> str:
    """Returns the fault of a field in words, to be put after its name."""
    context: Mapping[str, Any] = {"hint": ""} | error.get("ctx", {})
    match error["type"]:
        case "string_pattern_mismatch":
            return _PATTERN_WORDS[context["pattern"]]
        case "header_encoding" | "several_ranges" | "span":
            return str(error["msg"])
        case kind:
            return _WORDS.get(kind, "is not valid").format_map(context)


class StrictRoute(APIRoute):
    """A route that rejects query parameters that it does not declare, or that are given twice.

    A misspelt filter would otherwise select everything.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns the handler of FastAPI, after a check of the names in the query."""
        handle = super().get_route_handler()
        known = dict(_parameters(self))
        lists = {name for name, annotation in known.items() if _is_list(annotation)}

        async def handle_strictly(request: Request) -> Response:
            if request.url.query:
                names = [name for name, _ in request.query_params.multi_items()]
                errors = [_unknown(name, known) for name in dict.fromkeys(names) if name not in known]
                errors += [_error("repeated", name) for name in known.keys() - lists if names.count(name) > 1]
                if errors:
                    raise RequestValidationError(errors)
            return await handle(request)

        return handle_strictly


def _parameters(route: APIRoute) -> Iterator[tuple[str, object]]:
    """Yields the names and types of a route's query parameters. A model has one for each of its fields."""
    for parameter in route.dependant.query_params:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from ((field.alias or name, field.annotation) for name, field in kind.model_fields.items())
        else:
            yield parameter.alias, kind


def _is_list(annotation: object) -> bool:
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))


def _unknown(name: str, known: Collection[str]) -> dict[str, Any]:
    nearest = get_close_matches(name, known, n=1)
    return _error("extra_forbidden", name, hint=f"; the nearest name is {nearest[0]}" if nearest else "")


def _error(kind: str, name: str, **context: str) -> dict[str, Any]:
    return {"type": kind, "loc": ("query", name), "msg": "", "ctx": context}
