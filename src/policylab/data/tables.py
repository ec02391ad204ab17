"""Tables on disk (CSV, Parquet, JSON lines) as a stream of Arrow tables with the columns that are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from policylab.data.packages import package
from policylab.errors import BadInput

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".jsonl", ".ndjson")


def is_table(path: Path) -> bool:
    """Whether the name of the file says that it is a table."""
    return path.name.lower().endswith(SUFFIXES)


def column_names(path: Path) -> list[str]:
    """The columns of the file. Raises `BadInput` if it cannot be read or is empty."""
    return next(_stream(path, None, {})).column_names


def batches(path: Path, columns: Sequence[str], words: Sequence[str] = ()) -> Iterator[Any]:
    """The table piece by piece with these columns; those in `words` are read as text whatever they look like.

    Raises `BadInput` where the file cannot be read, with the first line of the reason.
    """
    return _stream(path, list(dict.fromkeys(columns)), dict.fromkeys(words))


def _stream(path: Path, columns: list[str] | None, words: dict[str, None]) -> Iterator[Any]:
    pa = package("pyarrow", "reading tables")
    rows = 0
    try:
        for piece in _pieces(pa, path, columns, words):
            table = piece if isinstance(piece, pa.Table) else pa.Table.from_batches([piece])
            rows += table.num_rows
            if columns is None or table.num_rows:
                yield table
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowKeyError, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadInput(
            f"{path} cannot be read as a table ({reason}): mend the file, or say NAME:categorical for a column of mixed kind"
        ) from error
    if rows == 0:
        raise BadInput(f"{path} has no rows: give at least one logged decision")


def _pieces(pa: Any, path: Path, columns: list[str] | None, words: dict[str, None]) -> Iterator[Any]:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        parquet = package("pyarrow.parquet", "reading Parquet files")
        with parquet.ParquetFile(path) as file:
            if columns is None:
                yield file.schema_arrow.empty_table() if file.metadata.num_rows == 0 else next(file.iter_batches(1))
            else:
                yield from file.iter_batches(2**18, columns=columns)
    elif name.endswith((".jsonl", ".ndjson")):
        table = package("pyarrow.json", "reading JSON lines").read_json(path)
        yield table if columns is None else table.select(columns)
    else:
        reader = package("pyarrow.csv", "reading CSV files")
        convert = reader.ConvertOptions(include_columns=columns or [], column_types={word: pa.string() for word in words})
        with reader.open_csv(
            path,
            parse_options=reader.ParseOptions(delimiter="\t" if name.endswith(".tsv") else ",", newlines_in_values=True),
            convert_options=convert,
            read_options=reader.ReadOptions(block_size=2**24),
        ) as stream:
            yield from stream
