"""Encoded images to pictures: the formats that are read, and everything that must not get through."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor, CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil
from transformers.image_utils import load_image

from hfray.errors import RowError
from hfray.tasks.images import FORMATS, ImageOptions, image_of, pixel_values

OPTIONS = ImageOptions(name="image-classification")


def encoded(image: Image.Image, format: str = "PNG", **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **kwargs)
    return buffer.getvalue()


def picture(width: int = 20, height: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def failure(value: Any, options: ImageOptions = OPTIONS) -> RowError:
    with pytest.raises(RowError) as caught:
        image_of({"image": value}, "image", options)
    return caught.value


@pytest.mark.parametrize("name", ["chelsea.png", "camera.png", "horse.png", "hubble_deep_field.jpg"])
def test_photos_are_what_transformers_loads(shared_data: Path, name: str) -> None:
    path = shared_data / "photos" / name
    found = image_of({"image": path.read_bytes()}, "image", OPTIONS)
    wanted = load_image(str(path))
    assert found.mode == "RGB"
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_read(format: str) -> None:
    kwargs = {"lossless": True} if format == "WEBP" else {}
    found = image_of({"image": encoded(picture(), format, **kwargs)}, "image", OPTIONS)
    assert found.size == (20, 10)
    if format not in ("JPEG", "GIF"):
        assert np.array_equal(found, picture())


@pytest.mark.parametrize("format", ["PPM", "ICO", "PCX", "TGA"])
def test_other_formats_are_not(format: str) -> None:
    assert failure(encoded(picture(16, 16), format)).type == "BrokenImage"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_each_colour_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("I;16", (20, 10)) if mode == "I;16" else picture().convert(mode)
    assert image_of({"image": encoded(image)}, "image", OPTIONS).mode == "RGB"


def test_a_palette_with_transparency_becomes_rgb() -> None:
    image = picture().quantize(4)
    data = encoded(image, transparency=b"\x00\x80\xff\xff")
    assert np.array_equal(image_of({"image": data}, "image", OPTIONS), image.convert("RGB"))


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert image_of({"image": data}, "image", OPTIONS).getpixel((0, 0)) == (255, 0, 0)


def test_the_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(), "PNG", exif=exif)
    assert np.array_equal(image_of({"image": data}, "image", OPTIONS), picture().rotate(-90, expand=True))


def test_damaged_exif_keeps_the_pixels() -> None:
    data = encoded(picture(), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\x01\x12")
    assert image_of({"image": data}, "image", OPTIONS).size == (20, 10)


def test_a_struct_gives_its_bytes() -> None:
    data = encoded(picture())
    for value in ({"bytes": data, "path": "/etc/passwd"}, {"bytes": data}, bytearray(data), memoryview(data)):
        assert image_of({"image": value}, "image", OPTIONS).size == (20, 10)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "NullImage"),
        ({"bytes": None, "path": None}, "NullImage"),
        ({"bytes": None, "path": "cat.png"}, "NullImage"),
        ({"path": "cat.png"}, "WrongType"),
        ({"bytes": "cat.png"}, "WrongType"),
        ("https://images.test/cat.png", "WrongType"),
        ("/etc/hostname", "WrongType"),
        (7, "WrongType"),
        ([1, 2], "WrongType"),
        (b"", "BrokenImage"),
        (b"not an image", "BrokenImage"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "BrokenImage"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "BrokenImage"),
    ],
)
def test_what_is_no_image_is_named(value: Any, error: str) -> None:
    assert failure(value).type == error


def test_paths_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(picture()))
    assert failure(str(path)).type == "WrongType"
    assert failure({"bytes": None, "path": str(path)}).type == "NullImage"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(RowError, match="'image' is missing") as caught:
        image_of({}, "image", OPTIONS)
    assert caught.value.type == "MissingColumn"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_files_are_broken(format: str, kept: float) -> None:
    data = encoded(picture(64, 64), format)
    assert failure(data[: int(kept * len(data))]).type == "BrokenImage"


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_answer_or_are_broken(format: str) -> None:
    data = encoded(picture(64, 64), format)
    random = np.random.default_rng(1)
    failures = []
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(len(data), size=3):
            damaged[place] ^= int(random.integers(1, 256))
        try:
            image_of({"image": bytes(damaged)}, "image", OPTIONS)
        except RowError as error:
            failures.append(error)
    assert {error.type for error in failures} <= {"BrokenImage", "ImageTooLarge"}
    assert not [error for error in failures if "\n" in error.message]


def test_too_many_bytes_are_refused() -> None:
    data = encoded(picture())
    options = OPTIONS.model_copy(update={"max_image_bytes": len(data) - 1})
    assert failure(data, options).type == "ImageTooLarge"


@pytest.mark.parametrize(
    ("width", "height"), [(8001, 8000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)]
)
def test_bombs_are_refused_before_they_are_decoded(width: int, height: int) -> None:
    error = failure(png_header(width, height))
    assert error.type == "ImageTooLarge"


def test_long_strips_are_refused() -> None:
    assert failure(encoded(Image.new("L", (1, 201)))).type == "ImageTooLarge"
    assert image_of({"image": encoded(Image.new("L", (1, 200)))}, "image", OPTIONS).size == (1, 200)


@pytest.mark.parametrize("processor", [ViTImageProcessorPil, CLIPImageProcessorPil, SiglipImageProcessorPil])
@pytest.mark.parametrize("size", [(1, 1), (20, 10), (2, 400), (500, 300)])
def test_pixel_values_are_float32_channels_first(tmp_path: Path, processor: Any, size: tuple[int, int]) -> None:
    processor().save_pretrained(tmp_path)
    stored = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = picture(*size)
    values = pixel_values(image, stored, "image")
    assert values.shape == (3, 224, 224)
    assert values.dtype == np.float32
    assert np.array_equal(values, processor()(images=image, return_tensors="np")["pixel_values"][0])


def test_an_image_that_a_processor_refuses_is_named() -> None:
    def refuse(**_: Any) -> Any:
        raise ValueError("mean must have 1 elements\nmore")

    with pytest.raises(RowError, match=r"20 x 10\): mean must have 1 elements$") as caught:
        pixel_values(picture(), refuse, "image")
    assert caught.value.type == "UnsupportedImage"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
