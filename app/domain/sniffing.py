"""What a medium is, told from its first bytes: nobody's word is taken for it."""

HEAD_BYTES = 64
"""How many of the first bytes `sniff` wants to see."""

UNKNOWN = "application/octet-stream"

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)
_RIFF = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}  # what stands after RIFF and four bytes of size
_BRANDS = (  # the major brand of an ISO base media file; any other is taken for MP4
    (b"qt  ", "video/quicktime"),
    (b"3g", "video/3gpp"),
    (b"heic", "image/heic"),
    (b"heix", "image/heic"),
    (b"mif1", "image/heif"),
    (b"avif", "image/avif"),
    (b"M4A ", "audio/mp4"),
)


def sniff(head: bytes) -> str:
    """The content type of the medium that begins with `head`; `application/octet-stream` for any other.

    Args:
        head: the first `HEAD_BYTES` bytes, or all there are.
    """
    if head[4:8] == b"ftyp":
        return _find(_BRANDS, head[8:]) or "video/mp4"
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], UNKNOWN)
    if head[:4] == b"\x1a\x45\xdf\xa3":  # EBML: the document type tells WebM from any other Matroska
        return "video/webm" if b"webm" in head[:HEAD_BYTES] else "video/x-matroska"
    return _find(_MAGIC, head) or UNKNOWN


def _find(table: tuple[tuple[bytes, str], ...], head: bytes) -> str | None:
    return next((content_type for magic, content_type in table if head.startswith(magic)), None)
