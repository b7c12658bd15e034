"""The output of batch scoring: a folder, local or in an object store.

Rows are in `<out>/model_version=<version>/part-*.parquet`, images that could not be scored in
`<out>/_errors/model_version=<version>/part-*.parquet`, verdicts on groups in
`<out>/_groups/model_version=<version>.csv`, and checksums of the model in
`<out>/_models/<version>.json`. Readers of Parquet folders skip names that begin with `_`.
"""

import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.files import atomic_path
from steelseg.predict.predictions import SCHEMA, PredictionRow, judge_groups

ROW_SCHEMA = SCHEMA.append(pa.field("class_name", pa.string())).append(
    pa.field("in_order", pa.bool_())  # per image: no class is an alarm; null without verdicts
)
ERROR_SCHEMA = pa.schema({"image": pa.string(), "reason": pa.string()})
_SAFE = "/:@%*!$&'()+,;="


class Place(NamedTuple):
    """A folder, local or in an object store."""

    filesystem: fs.FileSystem
    path: str

    def __truediv__(self, name: str) -> "Place":
        return Place(self.filesystem, posixpath.join(self.path, name))


def place(uri: str) -> Place:
    """Return a folder by its path, or by its URI for pyarrow (such as `s3://bucket/path`).

    Raises:
        BadInput: pyarrow does not know this kind of URI, or cannot open it.
    """
    try:
        if "://" in uri:
            address, mark, options = uri.partition("?")
            # characters that a URI may not have, such as blanks and brackets
            return Place(*fs.FileSystem.from_uri(quote(address, _SAFE) + mark + options))
        return Place(fs.LocalFileSystem(), str(Path(uri).absolute()))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{uri}: cannot be opened: {' '.join(str(error).split())}") from error


class ScoreStore:
    """The rows and errors of one version of a model."""

    def __init__(self, out: Place, version: str) -> None:
        """Write below `out`."""
        self.rows = out / f"model_version={version}"
        self.errors = out / "_errors" / f"model_version={version}"
        self.groups = out / "_groups" / f"model_version={version}.csv"
        self.card = out / "_models" / f"{version}.json"

    def claim(self, card: dict[str, Any]) -> None:
        """Record which model wrote the rows.

        Raises:
            SteelsegError: rows of another model have the same version.
        """
        text = json.dumps(card, indent=2, sort_keys=True) + "\n"
        known = self._read_card()
        if known is None:
            _put(self.card, text.encode())
        elif known != text:
            raise SteelsegError(
                f"{self.card.path}: another model with this version has rows here; "
                "choose another --out"
            )

    def done(self) -> set[str]:
        """Return the images that have rows or an error."""
        return self.scored() | self.failed()

    def scored(self) -> set[str]:
        """Return the images that have rows."""
        return {image for part in self._parts(self.rows) for image in part["image"]}

    def failed(self) -> set[str]:
        """Return the images that have an error."""
        return {image for part in self._parts(self.errors) for image in part["image"]}

    def judge_groups(self, groups: Mapping[str, str], classes: Sequence[int]) -> pd.DataFrame:
        """Judge groups of images that are scored or failed, and write the result as csv."""
        parts = self._parts(self.rows, ["image", "class_id", "alarm"])
        judged = judge_groups(parts, groups, classes, self.failed())
        _put(self.groups, judged.to_csv(index=False).encode())
        return judged

    def forget_errors(self) -> None:
        """Delete the errors, so that their images are tried again."""
        if self.errors.filesystem.get_file_info(self.errors.path).type != fs.FileType.NotFound:
            self.errors.filesystem.delete_dir_contents(self.errors.path)

    def write(
        self,
        images: Sequence[str],
        rows: Sequence[PredictionRow],
        errors: dict[str, str],
        class_names: Mapping[int, str],
    ) -> None:
        """Write the results of some images, replacing earlier results of the same list."""
        name = hashlib.sha256("\n".join(images).encode()).hexdigest()[:16]
        if errors:
            listed = [{"image": k, "reason": v} for k, v in errors.items()]
            table = pa.Table.from_pylist(listed, schema=ERROR_SCHEMA)
            _put_table(self.errors / f"part-{name}.parquet", table)
        if rows:
            alarms = {row.image for row in rows if row.alarm}
            named = [
                row._asdict()
                | {
                    "class_name": class_names[row.class_id],
                    "in_order": None if row.alarm is None else row.image not in alarms,
                }
                for row in rows
            ]
            table = pa.Table.from_pylist(named, schema=ROW_SCHEMA)
            _put_table(self.rows / f"part-{name}.parquet", table)

    def count_rows(self) -> int:
        """Return the number of rows in all parts."""
        return sum(
            pq.read_metadata(path, filesystem=self.rows.filesystem).num_rows
            for path in _files(self.rows)
        )

    def _parts(self, folder: Place, columns: Sequence[str] = ("image",)) -> Iterator[pd.DataFrame]:
        for path in _files(folder):
            try:
                table = pq.read_table(path, filesystem=folder.filesystem, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                reason = " ".join(str(error).split())
                raise BadInput(f"{path}: is damaged ({reason}); delete it and run again") from error
            yield table.to_pandas()

    def _read_card(self) -> str | None:
        try:
            with self.card.filesystem.open_input_file(self.card.path) as file:
                return bytes(file.read()).decode()
        except FileNotFoundError:
            return None


def _files(folder: Place) -> list[str]:
    selector = fs.FileSelector(folder.path, allow_not_found=True)
    listed = folder.filesystem.get_file_info(selector)
    return sorted(f.path for f in listed if f.base_name.startswith("part-"))


def _put_table(where: Place, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    _put(where, sink.getvalue())


def _put(where: Place, data: bytes | pa.Buffer) -> None:
    """Write a file atomically; an object store does not show unfinished objects."""
    if isinstance(where.filesystem, fs.LocalFileSystem):
        with atomic_path(Path(where.path)) as temporary:
            temporary.write_bytes(data)
        return
    try:
        with where.filesystem.open_output_stream(where.path) as stream:
            stream.write(data)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise SteelsegError(f"{where.path}: cannot be written: {reason}") from error
