"""The settings of the media store."""

from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, SecretStr, field_validator, model_validator


class MediaSettings(BaseModel):
    """`MEDIA_URL` and the usual AWS variables.

    `media_url` is `file:///absolute/folder`, by default `media` in `data_dir`, or `s3://bucket/prefix`. An endpoint
    whose host begins with the bucket's name is addressed without the bucket in the path, as Tencent's COS requires:
    `AWS_ENDPOINT_URL=https://BUCKET-APPID.cos.REGION.myqcloud.com`, `AWS_REGION=REGION`, `s3://BUCKET-APPID/prefix`.
    Without a key pair, the credentials of the machine or container are used.

    `spool_dir` (by default `spool` in `data_dir`) holds media before they are uploaded to a bucket.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    data_dir: Path = Path("data")
    media_url: str | None = None
    spool_dir: Path | None = None
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    aws_region: str | None = None
    aws_endpoint_url: AnyHttpUrl | None = None

    @property
    def media_location(self) -> SplitResult:
        """`media_url` or its default, parsed."""
        return urlsplit(self.media_url or (self.data_dir.absolute() / "media").as_uri())

    @property
    def media_folder(self) -> Path:
        """The folder of a `file` URL."""
        return Path(unquote(self.media_location.path))

    @property
    def media_spool(self) -> Path:
        """The folder that holds media before they are uploaded to a bucket."""
        return self.spool_dir or self.data_dir / "spool"

    @field_validator("media_url")
    @classmethod
    def _names_a_store(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "file:///default")
        is_folder = parts.scheme == "file" and parts.netloc in {"", "localhost"} and len(parts.path) > 1
        is_bucket = parts.scheme == "s3" and parts.netloc and "@" not in parts.netloc
        if not (is_folder or is_bucket) or parts.query or parts.fragment:
            raise ValueError("it must be file:///absolute/folder or s3://bucket/prefix")
        return url

    @model_validator(mode="after")
    def _has_a_whole_key_pair(self) -> Self:
        if bool(self.aws_access_key_id) != bool(self.aws_secret_access_key):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together")
        return self
