"""What is written around the parts of a tokenised folder at the end: errors, facts, the tokenizer, samples to look at.

Knows the ledger and small files; reads at most one part.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hfray.data.ledger import Ledger
from hfray.data.parts import ERROR_TYPE
from hfray.data.routing import Split
from hfray.data.token_parts import decode_tokens, from_table
from hfray.data.tokens import TOKENIZER_FOLDER, TOKENS_FILE, Tokens, TokenSplit
from hfray.inference.receipt import Receipt
from hfray.inference.token_counts import TOKENS
from hfray.inference.tokenizing import error_path
from hfray.inference.totals import Totals
from hfray.kinds.corpus import Corpus, SplitFacts
from hfray.models.tokenizers import save_tokenizer
from hfray.types import Ragged

NUM_SAMPLES = 3
SAMPLE_TOKENS = 400


def write_error_table(ledger: Ledger, shards: Sequence[int], schema: pa.Schema) -> None:
    """`errors.parquet`: `file`, `row` (its number in the file), the input columns, `error`; also without failures."""
    fields = [pa.field("file", pa.string()), pa.field("row", pa.int64()), *schema, pa.field("error", ERROR_TYPE)]
    target = pa.schema(fields)
    with ledger.storage.writer("errors.parquet") as file, pq.ParquetWriter(file, target, compression="zstd") as writer:
        for shard in shards:
            table = pq.read_table(io.BytesIO(ledger.read(error_path(shard))))
            writer.write_table(table.select(target.names).cast(target))


def split_facts(ledger: Ledger, splits: Sequence[Split], receipts: Sequence[Receipt]) -> tuple[SplitFacts, ...]:
    """What the parts of each split hold together."""
    sums = {split.name: [0, 0, 0] for split in splits}
    for receipt in receipts:
        counts = sums[splits[ledger.layout.split_of(receipt.shard)].name]
        for index, value in enumerate((receipt.documents, receipt.rows, receipt.tokens)):
            counts[index] += value
    return tuple(
        SplitFacts(name=each.name, parts=each.parts, documents=documents, examples=examples, tokens=tokens)
        for each in splits
        for documents, examples, tokens in [sums[each.name]]
    )


def read_tokens_of(ledger: Ledger, part: int) -> pa.Table:
    """The table of a part; all parts have one schema."""
    return decode_tokens(ledger.read_part(part), ledger.format, ledger.layout.path(part)).replace_schema_metadata(None)


def samples(table: pa.Table, tokenizer: Any) -> tuple[str, ...]:
    """The first examples of a part, decoded as far as a person reads."""
    table = table.slice(0, NUM_SAMPLES)
    names = [name for name in table.column_names if name.endswith(TOKENS)]
    columns = from_table(table.select(names))
    texts = []
    for row in range(table.num_rows):
        for name in names:
            column = columns[name]
            ids = column[row][:SAMPLE_TOKENS].tolist() if isinstance(column, Ragged) else []
            prefix = f"{name}: " if len(names) > 1 else ""
            texts.append(prefix + str(tokenizer.decode(ids)))
    return tuple(texts)


def write_tokens_file(ledger: Ledger, tokens: Tokens) -> None:
    ledger.write(TOKENS_FILE, (tokens.model_dump_json(indent=1) + "\n").encode())


def token_splits(corpus: Corpus) -> tuple[TokenSplit, ...]:
    return tuple(
        TokenSplit(name=each.name, parts=each.parts, examples=each.examples, tokens=each.tokens)
        for each in corpus.splits
    )


def write_tokenizer(ledger: Ledger, tokenizer: Any) -> None:
    """`tokenizer/`, which `AutoTokenizer` loads."""
    ledger.storage.make_dirs(TOKENIZER_FOLDER)
    for name, data in save_tokenizer(tokenizer).items():
        ledger.write(f"{TOKENIZER_FOLDER}/{name}", data)


def write_dataset_files(
    ledger: Ledger, splits: Sequence[Split], parts: Sequence[int], schema: pa.Schema, fingerprint: str
) -> None:
    """What makes `data/` a folder that `datasets.load_from_disk` opens as a DatasetDict. parts: that are there."""
    from datasets import Features

    info = {"features": Features.from_arrow_schema(schema).to_dict()}
    for number, split in enumerate(splits):
        own = [part for part in parts if ledger.layout.split_of(part) == number]
        names = [ledger.layout.name(part).rpartition("/")[2] for part in own]
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for name in names],
            "_fingerprint": fingerprint[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": split.name,
        }
        ledger.write(f"data/{split.name}/state.json", json.dumps(state, indent=1).encode())
        ledger.write(f"data/{split.name}/dataset_info.json", json.dumps(info, indent=1).encode())
    ledger.write("data/dataset_dict.json", json.dumps({"splits": [split.name for split in splits]}).encode())


def corpus(
    mode: str, max_length: int | None, source_rows: int, splits: tuple[SplitFacts, ...], read: Totals, made: Totals
) -> Corpus:
    """read: totals of what read the input; made: of what made the parts, the same in a job of one phase."""
    left_out = dict(read.left_out) | {step: n for step, n in made.left_out.items() if step == "deduplicate"}
    return Corpus(
        mode=mode,
        max_length=max_length,
        source_rows=source_rows,
        left_out={step: count for step, count in left_out.items() if count},
        documents=sum(split.documents for split in splits),
        splits=splits,
        capacity_tokens=made.padded_tokens,
    )
