"""The S3 stand-in of the tests of storage."""

from __future__ import annotations

from tests.data.conftest import s3, s3_endpoint

__all__ = ["s3", "s3_endpoint"]
