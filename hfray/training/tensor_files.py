"""Tensors to a safetensors file, one after another, and its digest. Knows the format; not what the tensors mean.

The library's own writer wants all tensors in host memory at once, and files are read again for their digest; an
optimizer's states are the largest thing that a worker has. Files are read with the library's reader.

Format: 8 bytes with the length of the header (little endian), the header as JSON (name to dtype, shape and the place of
its bytes; `__metadata__` is text to text), then the bytes. (huggingface/safetensors, README)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfray.training.manifest import Entry

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_ALIGNMENT_BYTES = 8
_CHUNK_BYTES = 1 << 24


def write_tensors(path: Path, tensors: Mapping[str, Any], facts: Any) -> Entry:
    """Writes and syncs. tensors: by name, on any device; facts: plain JSON, kept in the file's header.

    Raises OSError.
    """
    header: dict[str, Any] = {"__metadata__": {"hfray": json.dumps(facts)}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        dtype = _DTYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT_BYTES)
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for part in (len(encoded).to_bytes(8, "little"), encoded):
            _write(file, memoryview(part), digest)
        for tensor in tensors.values():
            _write(file, _bytes_of(tensor), digest)
        os.fsync(file.fileno())
        return Entry(path.name, os.fstat(file.fileno()).st_size, digest.hexdigest())


def facts_of(handle: Any) -> Any:
    """What `write_tensors` was given. handle: of `safetensors.safe_open`."""
    return json.loads(handle.metadata()["hfray"])


def _bytes_of(tensor: Any) -> memoryview:
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).cpu().numpy())


def _write(file: Any, content: memoryview, digest: Any) -> None:
    for start in range(0, len(content), _CHUNK_BYTES):
        chunk = content[start : start + _CHUNK_BYTES]
        digest.update(chunk)
        while chunk:
            chunk = chunk[file.write(chunk) :]
