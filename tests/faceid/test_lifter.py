"""Media are lifted out of the streaming body, in every spelling and with every division into pieces."""

import base64
import io
import itertools
import json
import re
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.faceid.lifter import LiftedBody, Lifter, LiftError
from app.faceid.payloads import DecodeError, OversizedError

MEDIUM = bytes(range(256)) * 4 + b"\xff" * 50 + b"\xfb\xef\xbe" * 20 + b"x"
BASE64 = base64.b64encode(MEDIUM).decode()
KEYS = [
    *("OcrFront", "OcrBack", "BestFrame", "LivenessVideo"),
    *("ProcessedFrontImage", "ProcessedBackImage", "Avatar"),
]
CUTS = [1, 2, 3, 5, 7, 64, 1000, 10**6]
# Spellings by character: in the outer JSON, and inside the DetectInfo string.
OUTER = {"/": ["/", r"\/", r"\u002f", r"\u002F"], "+": ["+", r"\u002b", r"\u002B"], "=": ["=", r"\u003d", r"\u003D"]}
INNER = {
    "/": ["/", r"\/", r"\\/", r"\\\/", r"\u002f", r"\\u002f", r"\\u002F", r"\\\u002F"],
    "+": ["+", r"\u002b", r"\\u002B"],
    "=": ["=", r"\u003d", r"\\u003D"],
}


def lift(body: str, *, size: int = 1000, threshold: int = 16) -> LiftedBody[io.BytesIO]:
    lifter = Lifter(io.BytesIO, threshold=threshold)
    wire = body.encode()
    for start in range(0, len(wire), size):
        lifter.feed(wire[start : start + size])
    return lifter.finish()


def media(lifted: LiftedBody[io.BytesIO]) -> dict[str, bytes]:
    return {reference: sink.getvalue() for reference, sink in lifted.sinks.items()}


def outer(text: str, key: str = "OcrFront") -> str:
    return f'{{"{key}":"{text}"}}'


def inner(text: str, key: str = "OcrFront") -> str:
    return rf'{{"DetectInfo":"{{\"{key}\":\"{text}\"}}"}}'


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", [outer, inner])
def test_medium_becomes_a_reference_in_an_otherwise_equal_body(place: Callable[..., str], key: str, size: int) -> None:
    lifted = lift(place(BASE64, key), size=size)

    ((reference, data),) = media(lifted).items()
    assert data == MEDIUM
    assert lifted.skeleton.decode() == place(reference, key)


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(
    ("place", "char", "spelling"),
    [(outer, char, spelling) for char, spellings in OUTER.items() for spelling in spellings]
    + [(inner, char, spelling) for char, spellings in INNER.items() for spelling in spellings],
)
def test_every_spelling_of_an_escaped_character_is_read(
    place: Callable[..., str], char: str, spelling: str, size: int
) -> None:
    body = place(BASE64.replace(char, spelling))
    assert json.loads(json.loads(body).get("DetectInfo", body))["OcrFront"] == BASE64

    assert list(media(lift(body, size=size)).values()) == [MEDIUM]


@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("space", ["", " ", "\n\t ", " " * 8, "\n" * 8])
def test_white_space_around_the_colon_is_ignored(space: str, size: int) -> None:
    body = (
        json.dumps({"a": f'{{"LivenessVideo"{space}:{space}"{BASE64}"}}'})[:-1]
        + f',"OcrBack"{space}:{space}"{BASE64}"}}'
    )

    assert list(media(lift(body, size=size)).values()) == [MEDIUM, MEDIUM]


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("", id="nothing"),
        pytest.param(outer(""), id="empty"),
        pytest.param(inner(BASE64[:15]), id="short"),
        pytest.param(outer(BASE64[:16]), id="as long as the threshold"),
        pytest.param('{"BestFrame":{"BestFrame":null}}', id="an object of the same name, and null"),
        pytest.param(r'{"a":"{\"BestFrame\":{\"BestFrame\":\"\"}}"}', id="an object of the same name, and empty"),
        pytest.param(outer(BASE64, "Portrait"), id="another key"),
        pytest.param(f'{{"a\\"OcrFront":"{BASE64}"}}', id="a longer key that ends like one of ours"),
        pytest.param(rf'{{"a":"{{\"b\\\"OcrFront\":\"{BASE64}\"}}"}}', id="the same inside"),
        pytest.param(rf'{{"a":"{{\"Extra\":\"{{\\\"OcrFront\\\":\\\"{BASE64}\\\"}}\"}}"}}', id="one level too deep"),
        pytest.param(outer(BASE64, r"Ocr\u0046ront"), id="an escaped name"),
        pytest.param(inner(BASE64).replace(r"\"", r"\u0022"), id="escaped quotes"),
        pytest.param(f'{{"OcrFront"{" " * 9}:"{BASE64}"}}', id="more space than is searched"),
        pytest.param('{"OcrFront":"AAAA', id="cut within a short value"),
    ],
)
def test_other_content_stays_byte_for_byte(body: str, size: int) -> None:
    lifted = lift(body, size=size)

    assert (lifted.skeleton.decode(), media(lifted)) == (body, {})


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BASE64[:400] + "!" + BASE64[401:], id="junk"),
        pytest.param(BASE64[:400] + "é" + BASE64[402:], id="not ASCII"),
        pytest.param(BASE64[:400] + " " + BASE64[401:], id="a space"),
        pytest.param(BASE64[:400] + "\n" + BASE64[401:], id="a line feed"),
        pytest.param(BASE64 + " ", id="a space at the end"),
        pytest.param(BASE64[:401], id="one character too many"),
        pytest.param(BASE64 + "AAAA", id="data after the padding"),
        pytest.param("QQ==" * 100, id="padding in the middle"),
        pytest.param(BASE64 + "=", id="too much padding"),
        pytest.param("=" * 400, id="nothing but padding"),
        pytest.param(BASE64[:400] + r"\u0041" + BASE64[401:], id="an escaped letter"),
        pytest.param(BASE64[:400] + r"\u002" + BASE64[401:], id="half an escape"),
        pytest.param(BASE64[:400] + "\\u00", id="half an escape at the end"),
        pytest.param(BASE64[:400] + "\\" * 4 + "u002f" + BASE64[401:], id="text that looks like an escape"),
        pytest.param(BASE64[:400] + "\\" * 5 + "/" + BASE64[401:], id="an escaped backslash before a slash"),
        pytest.param(BASE64[:400] + "\\" * 20 + "/" + BASE64[401:], id="backslashes without end"),
        pytest.param(BASE64[:400] + r"\\\+" + BASE64[401:], id="a sign that must not be escaped"),
        pytest.param(BASE64[:400] + r"\\\u002b" + BASE64[401:], id="a sign that must not be escaped, escaped"),
    ],
)
@pytest.mark.parametrize("place", [outer, inner])
def test_value_that_is_not_base64_costs_only_itself(place: Callable[..., str], text: str, size: int) -> None:
    lifted = lift(two(place, text), size=size)

    broken, good = re.findall("lifted:[0-9a-f]+:[0-9]+", lifted.skeleton.decode())
    assert media(lifted) == {good: MEDIUM}
    assert lifted.skeleton.decode().replace(good, BASE64).replace(broken, "") == two(place, "")
    with pytest.raises(LiftError) as caught:
        lifted.item(broken)
    assert BASE64[:16] not in str(caught.value)


def two(place: Callable[..., str], text: str) -> str:
    """Returns a body with this value and then a good one, in an object of JSON or of JSON in a text."""
    escape = "" if place is outer else "\\"
    return place(f'{text}{escape}",{escape}"OcrBack{escape}":{escape}"{BASE64}')


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("spelling", [r"\\/", r"\\\/", r"\\u002f", r"\\n"])
def test_escape_of_two_levels_in_one_level_is_not_base64(spelling: str, size: int) -> None:
    assert media(lift(outer(BASE64.replace("/", spelling)), size=size)) == {}


def in_lines(length: int, end: str) -> Callable[[str], str]:
    """Returns a variant of base64 in lines of this length, as MIME, PEM and PHP's `chunk_split` write it."""
    return lambda text: "".join(text[at : at + length] + end for at in range(0, len(text), length))


VARIANTS: dict[str, Callable[[str], str]] = {
    "lines of MIME": in_lines(76, "\r\n"),
    "lines of PEM": in_lines(64, "\n"),
    "one line": lambda text: text + "\n",
    "no padding": lambda text: text.rstrip("="),
    "alphabet of URLs": lambda text: text.translate(str.maketrans("+/", "-_")),
    "alphabet of URLs, no padding": lambda text: text.translate(str.maketrans("+/", "-_")).rstrip("="),
    "address with the data": lambda text: f"data:image/jpeg;base64,{text}",
    "address with parameters": lambda text: f"data:video/mp4;codecs=avc1.42E01E;base64,{text}",
    "address without a type": lambda text: f"data:;base64,{in_lines(76, chr(10))(text)}",
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_every_variant_of_base64_is_read(variant: str, is_wrapped: bool) -> None:
    for length, size in itertools.product([1, 2, 3, 4, 5, 160, len(MEDIUM)], CUTS):
        data = MEDIUM[-length:]
        document = json.dumps({"OcrFront": VARIANTS[variant](base64.b64encode(data).decode())})
        body = json.dumps({"DetectInfo": document}) if is_wrapped else document

        assert list(media(lift(body, size=size, threshold=1)).values()) == [data], (length, size)


@settings(max_examples=200)
@given(
    st.binary(min_size=1, max_size=400),
    st.lists(st.sampled_from([*VARIANTS.values()]), max_size=2, unique=True),
    st.booleans(),
    st.integers(1, 90),
    st.randoms(use_true_random=True),
)
def test_bytes_do_not_depend_on_variant_spelling_and_pieces(
    data: bytes, variants: list[Callable[[str], str]], wrap: bool, threshold: int, random: Random
) -> None:
    text = base64.b64encode(data).decode()
    for variant in variants:
        text = variant(text)
    assume(text.count("base64,") < 2)
    wire = spelled({"OcrFront": text, "OcrBack": text}, wrap, random).encode()
    lifter = Lifter(io.BytesIO, threshold=threshold)
    while wire:
        size = random.randint(1, 40)
        lifter.feed(wire[:size])
        wire = wire[size:]
    lifted = lifter.finish()

    left = json.loads(lifted.skeleton)
    items = json.loads(left["DetectInfo"]) if wrap else left
    assert [lifted.item(item).getvalue() for item in items.values()] == [data, data]


@pytest.mark.parametrize(
    "text", ["data:image/jpeg;base64,", "\r\n", "https://bucket.cos.example/1.mp4", "é", '"', "AAAAA"]
)
def test_short_text_that_is_not_base64_is_an_error(text: str) -> None:
    with pytest.raises(LiftError, match="not base64"):
        lift("{}").item(text)


@pytest.mark.parametrize("unit", ["x" * 1000, '"",', "\\\\", "[],", '{"k":0},'])
def test_body_that_is_too_large_without_its_media_is_an_error(unit: str) -> None:
    body = unit * (2**21 // len(unit))

    with pytest.raises(OversizedError, match="too large without its media"):
        lift(body, size=3000)


def test_end_of_a_body_counts_too() -> None:
    lifter = Lifter(io.BytesIO, max_skeleton=100)
    lifter.feed(b" " * 150)

    with pytest.raises(OversizedError):
        lifter.finish()


@pytest.mark.parametrize("text", ["AAAA", BASE64])
def test_too_many_media_are_an_error(text: str) -> None:
    opened: list[io.BytesIO] = []

    def open_sink() -> io.BytesIO:
        opened.append(io.BytesIO())
        return opened[-1]

    lifter = Lifter(open_sink, threshold=16)

    with pytest.raises(OversizedError, match="too many media"):
        lifter.feed(json.dumps({"BestFrames": [text] * 2000}).encode())

    assert len(opened) <= 128


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("end", ["", "\\", "\\\\\\"])
def test_body_that_ends_within_a_medium_is_an_error(end: str, size: int) -> None:
    with pytest.raises(DecodeError, match="ends within a media item"):
        lift(inner(BASE64[:400]).partition(BASE64[396:400])[0] + end, size=size)


@pytest.mark.parametrize("size", CUTS)
def test_backslashes_before_the_closing_quote_are_not_content(size: int) -> None:
    lifted = lift(outer(BASE64 + "\\\\\\"), size=size)

    ((reference, data),) = media(lifted).items()
    assert (lifted.skeleton.decode(), data) == (outer(reference + "\\\\\\"), MEDIUM)


def test_result_does_not_depend_on_where_the_pieces_end() -> None:
    for threshold, size in itertools.product(range(13, 20), range(1, 60)):
        lifted = lift(inner("A" * 16), size=size, threshold=threshold)

        assert len(lifted.sinks) == (threshold < 17), "the backslash of the closing quote counts"


# Lists of media.


def listed(*texts: str) -> str:
    return json.dumps({"BestFrame": {"BestFrames": texts, "BestFrame": "AAAA"}}, separators=(",", ":"))


def wrapped(document: str) -> str:
    return json.dumps({"DetectInfo": document})


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("wrap", [str, wrapped])
@pytest.mark.parametrize("space", ["", " ", "\n\t ", " " * 8])
def test_every_medium_of_a_list_becomes_a_reference(wrap: Callable[[str], str], space: str, size: int) -> None:
    document = listed(BASE64, "AAAA", BASE64, BASE64).replace(",", f"{space},{space}").replace("[", f"[{space}")

    lifted = lift(wrap(document), size=size)

    references = iter(lifted.sinks)
    assert list(media(lifted).values()) == [MEDIUM] * 3
    expected = "".join(piece + next(references, "") for piece in document.split(BASE64))
    assert lifted.skeleton.decode() == wrap(expected)


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(
    ("body", "count"),
    [
        pytest.param(f'{{"BestFrames":[],"OcrFront":"{BASE64}"}}', 1, id="an empty list"),
        pytest.param(f'{{"BestFrames":["{BASE64}"],"X":"{BASE64}","OcrFront":"{BASE64}"}}', 2, id="after a list"),
        pytest.param(f'{{"BestFrames":["{BASE64}","{BASE64}"]', 2, id="cut after a list"),
        pytest.param(f'{{"BestFrames":["{BASE64}" , ', 1, id="cut within a list"),
        pytest.param(f'{{"BestFrames":["{BASE64}",null, null,"{BASE64}"]}}', 2, id="null in a list"),
        pytest.param(f'{{"BestFrames":[ null ,null,"{BASE64}"]}}', 1, id="null in front of a list"),
        pytest.param(f'{{"BestFrames":[{"null," * 17}"{BASE64}"]}}', 0, id="more nulls than are searched"),
        pytest.param(f'{{"BestFrames":["{BASE64}",{"null," * 17}"{BASE64}"]}}', 1, id="more nulls than are skipped"),
        pytest.param(f'{{"BestFrames":["{BASE64}"{" " * 9},"{BASE64}"]}}', 1, id="more space than is searched"),
        pytest.param(f'{{"BestFrames":[["{BASE64}"]]}}', 0, id="a list in a list"),
        pytest.param(f'{{"BestFrames":"{BASE64}"}}', 0, id="no list"),
        pytest.param(f'{{"BestFrame":["{BASE64}"]}}', 0, id="a list of another key"),
        pytest.param(f'{{"BestFrames":["AAAA"],"BestFrame":"{BASE64}"}}', 1, id="a short list and a media item"),
    ],
)
def test_list_ends_where_something_else_begins(body: str, count: int, size: int) -> None:
    lifted = lift(body, size=size)

    assert list(media(lifted).values()) == [MEDIUM] * count
    restored = lifted.skeleton.decode()
    for reference in lifted.sinks:
        restored = restored.replace(reference, BASE64)
    assert restored == body


TEXTS = st.binary(max_size=60).map(lambda data: base64.b64encode(data).decode())
BODIES = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(KEYS, TEXTS | st.none()) | {"BestFrames": st.lists(TEXTS | st.none(), max_size=14)}
)
SPACES = ("", " ", "\n", "\t ", " " * 8)


def spelled(document: object, wrap: bool, random: Random) -> str:
    """Dumps the document in one or two levels of JSON, with slashes and white space in any spelling."""
    comma, colon = (random.choice(SPACES) + sign + random.choice(SPACES) for sign in ",:")
    text = json.dumps(document, separators=(comma, colon))
    slashed = "".join(random.choice(["/", r"\/", r"\u002f"]) if char == "/" else char for char in text)
    return json.dumps({"DetectInfo": slashed}) if wrap else slashed


@settings(max_examples=200)
@given(BODIES, st.booleans(), st.integers(1, 90), st.integers(1, 40), st.randoms(use_true_random=True))
def test_skeleton_and_media_make_up_the_document(
    document: dict[str, object], wrap: bool, threshold: int, most: int, random: Random
) -> None:
    wire = spelled(document, wrap, random).encode()
    lifter = Lifter(io.BytesIO, threshold=threshold)
    while wire:
        size = random.randint(1, most)
        lifter.feed(wire[:size])
        wire = wire[size:]
    lifted = lifter.finish()

    skeleton = json.loads(lifted.skeleton)
    left = json.loads(skeleton["DetectInfo"]) if wrap else skeleton
    contents = {reference: base64.b64encode(data).decode() for reference, data in media(lifted).items()}

    def restore(text: str) -> str:
        assert text in contents or len(text) <= threshold, "a long text must not stay in memory"
        return contents.get(text, text)

    whole = {
        key: [text and restore(text) for text in value] if isinstance(value, list) else value and restore(value)
        for key, value in left.items()
    }
    assert whole == document


class Pieces(list[bytes]):
    def write(self, data: bytes, /) -> None:
        self.append(data)


@pytest.mark.parametrize("place", [outer, inner])
def test_medium_is_never_held_as_a_whole(place: Callable[..., str]) -> None:
    sink = Pieces()
    lifter = Lifter(lambda: sink)
    wire = place(BASE64.rstrip("=")[:-3] * 100).encode()

    for start in range(0, len(wire), 1000):
        lifter.feed(wire[start : start + 1000])

    assert len(wire) > 100_000
    assert max(map(len, sink)) < 4000
    assert len(lifter.finish().skeleton) < 100


def test_references_differ_from_body_to_body() -> None:
    assert not media(lift(outer(BASE64))).keys() & media(lift(outer(BASE64))).keys()


def test_skeleton_is_absent_from_repr() -> None:
    assert repr(lift(outer("AAAA"))) == "LiftedBody(sinks={})"
