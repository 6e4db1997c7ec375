"""Answers of a hostile Tencent: beyond every real one, and the costliest ones that are still within the limits."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

MILLION = 10**6
EMPTY, BACKSLASH = '""', "\\"
TEXTS = ",".join(f'"{"x" * 4000}"' for _ in range(16))
PICTURE = "/9j/" + "A" * 4096


def plain(text: str) -> bytes:
    """Returns an answer whose result is an object, with these fields in its Text."""
    return f'{{"Response":{{"DetectInfo":{{"Text":{{"ErrCode":0,{text}}}}}}}}}'.encode()


def wrapped(text: str) -> bytes:
    """Returns an answer whose result is JSON in a string, with these fields in its Text."""
    return json.dumps({"Response": {"DetectInfo": f'{{"Text":{{"ErrCode":0,{text}}}}}'}}).encode()


def keys(count: int) -> str:
    return ",".join(f'"k{number}":{number}' for number in range(count))


def media(count: int) -> str:
    return ",".join(f'"OcrFront":"{PICTURE}"' for _ in range(count))


TOO_MUCH: Mapping[str, Callable[[], str]] = {
    "40 MB of text": lambda: f'"ErrMsg":"{"x" * 40 * MILLION}"',
    "40 MB of white space": lambda: " " * 40 * MILLION + '"Name":"a"',
    "a million keys": lambda: keys(MILLION),
    "a million attempts": lambda: f'"Detail":{{"LivenessData":[{"{}," * MILLION}{{}}]}}',
    "100,000 keys with 2,000 media": lambda: f"{keys(100_000)},{media(2000)}",
    "2,000 media": lambda: media(2000),
    "a million short media": lambda: f'"BestFrames":[{",".join([EMPTY] * MILLION)}]',
    "millions of escapes": lambda: f'"Name":"{(BACKSLASH + "u0000") * 3 * MILLION}"',
    "millions of line breaks": lambda: f'"Name":"{(BACKSLASH + "n") * 3 * MILLION}"',
    "millions of backslashes": lambda: f'"Name":"{BACKSLASH * 2 * 3 * MILLION}"',
    "a million lists in lists": lambda: ",".join(f'"k{n}":{"[" * 30}{"]" * 30}' for n in range(33_000)),
    "a million lists": lambda: f'"New":[{"[]," * MILLION}[]]',
}
# Below every limit, at the largest cost.
ALLOWED: Mapping[str, Callable[[], str]] = {
    "a long text": lambda: f'"ErrMsg":"{"x" * MILLION}"',
    "2,000 keys": lambda: keys(2_000),
    "200 attempts with 10 keys": lambda: f'"LivenessDetail":[{",".join(["{" + keys(10) + "}"] * 200)}]',
    "escapes": lambda: f'"Name":"{(BACKSLASH + "u0000") * 6_000}"',
    "texts a little shorter than media": lambda: ",".join(f'"k{n}":[{TEXTS}]' for n in range(15)),
    "lists": lambda: f'"New":[{"[]," * 4_000}[]]',
    "numbers in lists": lambda: ",".join(f'"k{n}":[{",".join(["1.5e300"] * 7)}]' for n in range(600)),
    "lists in lists": lambda: ",".join(f'"k{n}":{"[" * 30}{"]" * 30}' for n in range(400)),
    "escapes in a media item": lambda: f'"Avatar":"{(BACKSLASH + "/") * 3 * MILLION}"',
    "junk in a media item": lambda: f'"Avatar":"{"?" * 10 * MILLION}"',
    "line breaks in a media item": lambda: f'"Avatar":"{("A" * 76 + BACKSLASH + "r" + BACKSLASH + "n") * 100_000}"',
}


@contextmanager
def sending(body: bytes) -> Iterator[str]:
    """Serves one request from a thread of its own, so the client's event loop does nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
                    connection.sendall(body)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()
