"""Bytes of an encoded image to an RGB picture and to pixel values, safely. Knows Pillow; not models.

Only bytes are read: a path or an address that a row names is never opened. The size in the header is checked before
a pixel is decoded, and only the six common formats are tried.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from hfray.errors import RowError
from hfray.tasks.base import TaskOptions
from hfray.types import Array, Row

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

MAX_ASPECT_RATIO = 200
"""Resized by its short edge, as CLIP does it, a longer strip takes gigabytes: 1 x 60,000 becomes 224 x 13 million."""

_PILLOW_LIMIT = 178_956_970
"""Pillow itself refuses more pixels than this (twice its `Image.MAX_IMAGE_PIXELS`)."""


class ImageOptions(TaskOptions):
    """Options of every task with images."""

    max_image_bytes: int = Field(default=20 * 2**20, ge=1)
    """Most bytes of one encoded image."""
    max_pixels: int = Field(default=64_000_000, ge=1, le=_PILLOW_LIMIT)
    """Most pixels of one image (width times height), checked before decoding."""


def image_of(row: Row, column: str, options: ImageOptions) -> Image.Image:
    """The picture in a column, upright and in RGB; of an animation the first frame.

    The column holds bytes, or a struct with a field "bytes". Raises RowError: MissingColumn, NullImage, WrongType,
    ImageTooLarge, BrokenImage.
    """
    if column not in row:
        raise RowError(f"column {column!r} is missing", type="MissingColumn")
    return decode_image(_bytes_of(row[column], column), column, options)


def decode_image(data: bytes, what: str, options: ImageOptions) -> Image.Image:
    """An encoded image as an upright RGB picture; `what` names it in the error.

    Orientation and colour follow Transformers' `load_image`: EXIF transposition, then `convert("RGB")`.
    """
    if len(data) > options.max_image_bytes:
        raise RowError(
            f"{what} has {len(data):,} bytes, over max_image_bytes {options.max_image_bytes:,}", type="ImageTooLarge"
        )
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height, what, options)
            image.load()
            return _upright_rgb(image)
    except (RowError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise RowError(f"{what} is not an image that can be read ({known})", type="BrokenImage") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError(f"{what}: {_first_line(error)}", type="ImageTooLarge") from None
    except Exception as error:  # decoders raise anything on damaged input: OSError, SyntaxError, struct.error ...
        raise RowError(f"{what} is damaged: {_first_line(error)}", type="BrokenImage") from None


def pixel_values(image: Image.Image, image_processor: Any, what: str) -> Array:
    """Pixel values float32 [channels, height, width] by a Transformers image processor (its PIL and numpy backend).

    Raises RowError UnsupportedImage if the processor cannot take the picture.
    """
    try:
        values = image_processor(images=[image], return_tensors="np")["pixel_values"][0]
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise RowError(
            f"the image processor refused {what} ({image.width} x {image.height}): {_first_line(error)}",
            type="UnsupportedImage",
        ) from None
    return np.ascontiguousarray(values, dtype=np.float32)


def _bytes_of(value: Any, what: str) -> bytes:
    if isinstance(value, Mapping):
        if "bytes" not in value:
            raise RowError(f"{what} is a struct without a field 'bytes'", type="WrongType")
        if value["bytes"] is None and value.get("path") is not None:
            raise RowError(f"{what} has a path but no bytes; paths in rows are not opened", type="NullImage")
        value = value["bytes"]
    if value is None:
        raise RowError(f"{what} is null", type="NullImage")
    if isinstance(value, str):
        raise RowError(f"{what} is text; give the image's bytes: paths and addresses are not opened", type="WrongType")
    if not isinstance(value, bytes | bytearray | memoryview):
        raise RowError(f"{what} is {type(value).__name__}, not the bytes of an image", type="WrongType")
    if not value:
        raise RowError(f"{what} has no bytes", type="BrokenImage")
    return bytes(value)


def _check_size(width: int, height: int, what: str, options: ImageOptions) -> None:
    if width * height > options.max_pixels:
        raise RowError(
            f"{what} is {width:,} x {height:,} pixels, over max_pixels {options.max_pixels:,}", type="ImageTooLarge"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise RowError(
            f"{what} is {width:,} x {height:,} pixels, longer than {MAX_ASPECT_RATIO}:1", type="ImageTooLarge"
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole; damaged EXIF only loses the orientation
        upright = image
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")  # the same colours as straight to RGB, without Pillow's warning
    return upright.convert("RGB")


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
