"""The S3 stand-in of the tests of storage, and the tokenize job of its own tests."""

from __future__ import annotations

from tests.data.conftest import s3, s3_endpoint
from tests.kinds.test_tokenize import office

__all__ = ["office", "s3", "s3_endpoint"]
