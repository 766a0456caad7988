"""Bodies of the tasks with images, and the bytes in them. Knows base64, `data:` URLs and headers of image files; no
pixel is decoded, no address opened."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits
from hfray.serving.hf.checks import wrong
from hfray.serving.hf.fields import Body, Texts
from hfray.serving.hf.texts import CandidateParameters, ClassificationParameters
from hfray.tasks.images import FORMATS

_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,64})?((?:;[a-z0-9=._-]{1,64}){0,4}?);base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{1,31}:", re.IGNORECASE)
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
"""Of files in one of `FORMATS`; no JSON begins like one of them."""
_SPACES = str.maketrans("", "", " \t\r\n")


class ImageBody(Body):
    inputs: Annotated[str, Field(min_length=1)] | Texts
    """One image or several, in base64 or as `data:` URLs. One alone may also be the body itself, as image/*."""

    def rows(self, limits: Limits) -> tuple[list[dict[str, Any]], bool]:
        many = isinstance(self.inputs, list)
        images = self.inputs if isinstance(self.inputs, list) else [self.inputs]
        where = [f"inputs[{place}]" if many else "inputs" for place in range(len(images))]
        found = [image_bytes(image, limits, place) for image, place in zip(images, where, strict=True)]
        return [{"image": check_image(data, limits, place)} for data, place in zip(found, where, strict=True)], many


class ImageClassificationBody(ImageBody):
    parameters: ClassificationParameters | None = None


class ZeroShotImageClassificationBody(ImageBody):
    parameters: CandidateParameters | None = None


def image_bytes(text: str, limits: Limits, where: str) -> bytes:
    """The bytes that a string of a body stands for. Raises RequestError."""
    start = 0
    if text[:5].lower() == "data:":
        found = _DATA_URL.match(text)
        if found is None:
            raise wrong(where, "is a data: URL that does not begin like data:image/png;base64,")
        start = found.end()
    elif _ADDRESS.match(text):
        raise wrong(where, "is an address; nothing is fetched here, send the image itself in base64")
    # Four characters are three bytes; a tenth more for line breaks.
    if (len(text) - start) * 10 > limits.max_image_bytes // 3 * 44 + 440:
        raise _too_large(limits, where)
    try:
        data = base64.b64decode(text[start:].translate(_SPACES), validate=True)
    except (binascii.Error, ValueError):
        raise wrong(where, "is not base64; paths and addresses are not opened, send the image itself") from None
    return data


def begins_like_image(data: bytes) -> bool:
    return data.startswith(_BEGINNINGS)


def check_image(data: bytes, limits: Limits, where: str = "") -> bytes:
    """The bytes, if their header is that of an image that may be decoded. where: the field; "" is the body itself.

    Raises RequestError.
    """
    if len(data) > limits.max_image_bytes:
        raise _too_large(limits, where)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            num_pixels = image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        num_pixels = limits.max_image_pixels + 1
    except MemoryError:
        raise
    except Exception:  # readers of headers raise anything on damaged bytes: OSError, SyntaxError, struct.error ...
        raise wrong(where, f"{_subject(where)} no image that can be read ({', '.join(FORMATS)})") from None
    if num_pixels > limits.max_image_pixels:
        raise wrong(where, f"{_subject(where)} an image of more than {limits.max_image_pixels:,} pixels; scale it down")
    return data


def _subject(where: str) -> str:
    return "is" if where else "the body is"


def _too_large(limits: Limits, where: str) -> RequestError:
    words = f"{_subject(where)} an image of more than {limits.max_image_bytes:,} bytes; scale it down"
    return wrong(where, words, status=413)
