"""A dataset folder as later stages see it: its manifest, checked against the files beside it.

`sibol data prepare` writes the folder; training, inspection and evaluation open it here. Only sizes (and, on request,
digests) are looked at: reading the tokens is the business of Megatron, or of `data_tools.indexed` for inspection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.common.errors import DataError
from nemo_ext.common.files import read_json, sha256_of_file, sha256_of_json

DATASET_SCHEMA = "sibol.dataset/1"
MANIFEST_NAME = "manifest.json"
TOKENIZER_FOLDER = "tokenizer"
PREPARE_AGAIN = "Prepare the dataset again with `sibol data prepare`, or restore an intact copy."


@dataclass(frozen=True)
class SplitInfo:
    """One split. `bytes` are the UTF-8 bytes of the documents' text (end-of-document tokens have none)."""

    name: str
    prefix: str  # path without .bin/.idx, as Megatron wants it
    documents: int
    tokens: int
    bytes: int
    max_token_id: int
    bin_bytes: int
    idx_bytes: int
    bin_sha256: str
    idx_sha256: str


@dataclass(frozen=True)
class DatasetInfo:
    """A checked dataset folder. `splits` holds only the splits that have documents; "train" is always there."""

    path: Path
    splits: Mapping[str, SplitInfo]
    tokenizer_fingerprint: str
    vocab_size: int
    eod_id: int
    append_eod: bool
    manifest: Mapping[str, Any]

    @property
    def plugin(self) -> str:
        """Name of the tokenizer plugin that the dataset was prepared with."""
        return str(self.manifest["plugin"]["name"])

    @property
    def plugin_settings(self) -> dict[str, Any]:
        """All settings of that plugin."""
        return dict(self.manifest["plugin"]["settings"])

    @property
    def tokenizer_dir(self) -> Path:
        """The tokenizer that travels with the dataset."""
        return self.path / TOKENIZER_FOLDER

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of what the dataset holds (tokenizer and token files): equal contents, equal digests, wherever it lies."""
        contents = {name: [split.bin_sha256, split.idx_sha256] for name, split in self.splits.items()}
        return sha256_of_json({"schema": DATASET_SCHEMA, "tokenizer": self.tokenizer_fingerprint, "splits": contents})

    def require_tokenizer(self, fingerprint: str, owner: str) -> None:
        """Raise DataError unless `owner` (for the message: "the model in init_from") has the tokenizer of this dataset."""
        if fingerprint != self.tokenizer_fingerprint:
            raise DataError(
                f"{self.path} was tokenized with tokenizer {self.tokenizer_fingerprint[:12]}, but {owner} uses {fingerprint[:12]}: "
                "the same ids would mean different text. Prepare the dataset again with that tokenizer (`sibol data prepare --tokenizer`)."
            )


def open_dataset(path: Path | str, verify_contents: bool = False) -> DatasetInfo:
    """Open a dataset folder after checking that every split's files are there and have the sizes in the manifest.

    `verify_contents` also compares SHA-256 digests, which reads every byte.
    Raises DataError: no such folder, no manifest, unknown schema, damaged manifest, missing or altered files.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    try:
        splits = {name: _split(path, name, entry) for name, entry in manifest["splits"].items()}
        tokenizer = manifest["tokenizer"]
        info = DatasetInfo(
            path=path,
            splits=splits,
            tokenizer_fingerprint=tokenizer["fingerprint"],
            vocab_size=tokenizer["vocab_size"],
            eod_id=tokenizer["eod_id"],
            append_eod=manifest["append_eod"],
            manifest=manifest,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path / MANIFEST_NAME} is damaged: {type(error).__name__} {error}. {PREPARE_AGAIN}") from None
    _check_dataset(info, verify_contents)
    return info


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        found = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"Dataset folder {path} {found}. Expected a folder written by `sibol data prepare`; check the path.")
    if not (path / MANIFEST_NAME).is_file():
        raise DataError(
            f"{path} is not a Sibol dataset: it has no {MANIFEST_NAME}. Expected a folder written by `sibol data prepare`; "
            "run it on the original text, or check the path."
        )
    manifest = read_json(path / MANIFEST_NAME, "dataset manifest")
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != DATASET_SCHEMA:
        raise DataError(
            f"{path / MANIFEST_NAME} has schema {schema!r}, but this version reads {DATASET_SCHEMA!r}. "
            "Open it with the version that wrote it, or prepare the dataset again."
        )
    return manifest


def _split(path: Path, name: str, entry: Mapping[str, Any]) -> SplitInfo:
    counts = {key: int(entry[key]) for key in ("documents", "tokens", "bytes", "max_token_id", "bin_bytes", "idx_bytes")}
    return SplitInfo(name=name, prefix=str(path / name), bin_sha256=entry["bin_sha256"], idx_sha256=entry["idx_sha256"], **counts)


def _check_dataset(info: DatasetInfo, verify_contents: bool) -> None:
    if "train" not in info.splits:
        raise DataError(f"{info.path} has no train split (found: {', '.join(info.splits) or 'none'}). {PREPARE_AGAIN}")
    if not any((info.tokenizer_dir / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise DataError(f"{info.path} has lost its tokenizer: {info.tokenizer_dir / 'tokenizer.json'} is missing. {PREPARE_AGAIN}")
    for split in info.splits.values():
        _check_file(Path(split.prefix + ".bin"), split.bin_bytes, split.bin_sha256 if verify_contents else None)
        _check_file(Path(split.prefix + ".idx"), split.idx_bytes, split.idx_sha256 if verify_contents else None)
        if not 0 <= split.max_token_id < info.vocab_size:
            raise DataError(
                f"Split {split.name!r} of {info.path} has token id {split.max_token_id}, outside its tokenizer's vocabulary of "
                f"{info.vocab_size}. {PREPARE_AGAIN}"
            )


def _check_file(file: Path, expected_bytes: int, expected_sha256: str | None) -> None:
    if not file.is_file():
        raise DataError(f"Dataset file {file} is missing; the manifest lists it with {expected_bytes:,} bytes. {PREPARE_AGAIN}")
    found_bytes = file.stat().st_size
    if found_bytes != expected_bytes:
        problem = "truncated" if found_bytes < expected_bytes else "altered"
        raise DataError(f"Dataset file {file} is {problem}: {found_bytes:,} bytes found, {expected_bytes:,} expected. {PREPARE_AGAIN}")
    if expected_sha256 is not None and (found := sha256_of_file(file)) != expected_sha256:
        raise DataError(f"Dataset file {file} is altered: SHA-256 {found} found, {expected_sha256} expected. {PREPARE_AGAIN}")
