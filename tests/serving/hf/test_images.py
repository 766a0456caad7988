from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from hfray.serving.errors import RequestError
from hfray.serving.hf.call import Limits
from hfray.serving.hf.images import check_image
from hfray.serving.hf.protocol import parse, parse_image


def encoded(format: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, format)
    return file.getvalue()


def header_of_png(width: int, height: int) -> bytes:
    """A file that claims a size and holds no pixel."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks
    )


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("form", ["{}", "data:image/{};base64,{}", "DATA:;base64,{}", "lines"])
def test_the_bytes_come_through(format: str, form: str) -> None:
    data = encoded(format)
    text = base64.b64encode(data).decode()
    if form == "lines":
        text = base64.encodebytes(data).decode()
    else:
        text = form.format(*[format.lower()] * (form.count("{}") - 1), text)
    call = parse("image-classification", {"inputs": text}, Limits())
    assert [row["image"] for row in call.rows] == [data]
    assert parse_image("image-classification", data, Limits()).rows == call.rows


def test_several_images_and_labels() -> None:
    text = base64.b64encode(encoded()).decode()
    body = {"inputs": [text, text], "parameters": {"candidate_labels": ["a", "b"], "hypothesis_template": "A {}."}}
    call = parse("zero-shot-image-classification", body, Limits())
    assert call.rows == ({"image": encoded(), "candidate_labels": ("a", "b")},) * 2
    assert (call.changes, call.many) == ({"hypothesis_template": "A {}."}, True)


@pytest.mark.parametrize(("over", "status"), [(0, None), (1, 413)])
def test_bytes(over: int, status: int | None) -> None:
    data = encoded()
    limits = Limits(max_image_bytes=len(data) - over)
    for ask in (
        lambda: parse_image("image-classification", data, limits),
        lambda: parse("image-classification", {"inputs": base64.b64encode(data).decode()}, limits),
    ):
        if status is None:
            ask()
            continue
        with pytest.raises(RequestError, match="bytes") as caught:
            ask()
        assert caught.value.status == status


def test_long_base64_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> bytes:
        raise AssertionError("decoded")

    monkeypatch.setattr(base64, "b64decode", never)
    with pytest.raises(RequestError, match="bytes"):
        parse("image-classification", {"inputs": "A" * 20_000}, Limits(max_image_bytes=1000))


@pytest.mark.parametrize(("size", "fits"), [((10, 10), True), ((10, 11), False), ((100_000, 100_000), False)])
def test_pixels_by_the_header_alone(size: tuple[int, int], fits: bool) -> None:
    data = header_of_png(*size)  # to decode it would fail
    limits = Limits(max_image_pixels=100)
    if fits:
        assert check_image(data, limits) == data
        return
    with pytest.raises(RequestError, match="100 pixels") as caught:
        check_image(data, limits)
    assert caught.value.status == 422


def test_the_number_of_images_is_refused_before_one_is_read() -> None:
    with pytest.raises(RequestError, match="at most 2 entries"):
        parse("image-classification", {"inputs": ["not base64"] * 3}, Limits(max_inputs=2))


def test_characters_of_images_do_not_count_but_labels_do() -> None:
    text = base64.b64encode(encoded()).decode()
    limits = Limits(max_chars=60)
    assert len(text) > 60
    parse("zero-shot-image-classification", {"inputs": text, "parameters": {"candidate_labels": ["a"]}}, limits)
    with pytest.raises(RequestError, match="may have 60"):
        parse(
            "zero-shot-image-classification", {"inputs": text, "parameters": {"candidate_labels": ["a" * 61]}}, limits
        )
