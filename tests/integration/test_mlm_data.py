"""What ranks are given to learn from: all of the text, once per epoch, each row on one rank, with masks that only their key decides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_ext.common.blend import open_blend
from nemo_ext.common.files import read_json
from nemo_ext.config import RunConfig
from nemo_ext.tokenizers import load
from tests.support.masked_runs import PACKED, masked_run
from tests.support.ranks import run_ranks

AS_IT_IS = ["data.masking.mask_share=0", "data.masking.random_share=0"]


def module(config: RunConfig) -> Any:
    """The data of a run, set up."""
    from nemo_ext.tasks.mlm import MaskedData

    data = MaskedData(config, open_blend({config.data.path: 1.0}), Path(config.output_dir) / "index_cache")
    data.setup()
    return data


def first_epoch(dataset: Any) -> list[dict[str, Any]]:
    """The rows of the first epoch."""
    return [dataset[number] for number in range(dataset.index.first_epoch()[0])]


def pieces(rows: list[dict[str, Any]], key: str = "shown") -> Counter[bytes]:
    """How often each piece is in `rows`, as bytes of its ids."""
    return Counter(part.tobytes() for row in rows for part in np.split(row[key], row["starts"][1:]))


@pytest.mark.parametrize("packing", [[], PACKED], ids=["padded", "packed"])
def test_an_epoch_has_every_document_once_and_the_run_folder_says_so(
    packing: list[str], masked_datasets: dict[str, Path], tmp_path: Path
) -> None:
    config = masked_run(tmp_path, masked_datasets["modernbert"], *packing, *AS_IT_IS)
    run_ranks(1, check_epoch, config)


def check_epoch(config: RunConfig) -> None:
    data, info = module(config), open_blend({config.data.path: 1.0}).datasets[0]
    tokenizer, split, dataset = load(info.tokenizer_dir), info.splits["train"], data._train
    rows = first_epoch(dataset)
    stored = [dataset.dataset.get(document)[:-1].tolist() for document in range(split.documents)]
    room = 32 - 2
    cut = [document[start : start + room] for document in stored for start in range(0, len(document), room)]
    cls, sep = (tokenizer.special_ids[role] for role in ("cls_token", "sep_token"))
    assert pieces(rows) == Counter(np.array([cls, *part, sep]).tobytes() for part in cut)
    report = read_json(Path(config.output_dir) / "rows.json")["train"][0]
    real = sum(len(row["shown"]) for row in rows)
    assert report["documents"] == split.documents and report["tokens_stored"] == split.tokens
    assert report["documents_cut"] == sum(len(document) > room for document in stored) > 0
    assert (report["pieces"], report["rows"], report["tokens"]) == (len(cut), len(rows), real)
    assert report["tokens"] == report["tokens_stored"] - report["tokens_replaced_by_template"] + report["tokens_of_template"]
    assert data.tokens_between(0, len(rows)) == real
    if config.data.packing:
        assert real / (len(rows) * config.train.seq_length) > 0.95


def test_ranks_have_disjoint_rows_whatever_reads_them(masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    packed = masked_run(tmp_path / "packed", masked_datasets["modernbert"], *PACKED)
    padded = masked_run(tmp_path / "padded", masked_datasets["modernbert"], "data.num_workers=1")
    for config in (packed, padded):
        one, two = run_ranks(2, batches_of_rank, config)
        rows = run_ranks(1, all_rows, config, 2 * len(one))[0]
        assert one == rows[0::2] and two == rows[1::2]
        assert len(set(rows)) == len(rows)


def batches_of_rank(config: RunConfig) -> list[bytes]:
    """Labels of the micro batches that this data parallel rank is given."""
    from nemo.lightning.data import WrappedDataLoader

    from tests.support.tiny_models import start_megatron

    start_megatron()
    data = module(config)
    loader = WrappedDataLoader(mode="train", dataset=data._train, num_workers=config.data.num_workers, collate_fn=data.collate)
    batches = iter(data.data_sampler.transform_dataloader(loader))
    return [labelled(next(batches)["labels"].numpy()) for _ in range(20)]


def all_rows(config: RunConfig, count: int) -> list[bytes]:
    """The same of the first rows, read one after the other."""
    data = module(config)
    return [labelled(data.collate([data._train[number]])["labels"].numpy()) for number in range(count)]


def labelled(labels: Any) -> bytes:
    return labels.tobytes()


def test_masks_of_validation_never_change_and_those_of_training_do(masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    run_ranks(1, check_masks, masked_datasets["modernbert"], tmp_path)


def check_masks(dataset: Path, folder: Path) -> None:
    def rows(split: str, name: str, *settings: str) -> list[dict[str, Any]]:
        data = module(masked_run(folder / name, dataset, "validation.batches=40", "train.max_steps=300", *settings))
        rows = getattr(data, f"_{split}")
        epoch = rows.index.first_epoch()[0]
        assert len(rows) >= 2 * epoch
        return [rows[number] for number in range(2 * epoch)]

    for split, is_fixed in (("validation", True), ("train", False)):
        one, other, packed = (
            rows(split, name, *settings) for name, settings in (("one", ()), ("seed", ["train.seed=5"]), ("packed", PACKED))
        )
        half = len(one) // 2
        assert (pieces(one, "labels") == pieces(other, "labels")) is is_fixed
        assert (pieces(one[:half], "labels") == pieces(one[half:], "labels")) is is_fixed
        assert pieces(packed[: len(packed) // 2]) == pieces(one[:half])  # packing changes no mask
        assert any(not np.array_equal(left["shown"], right["shown"]) for left, right in zip(one[:half], one[half:], strict=True))


def test_packed_and_padded_batches_have_one_loss_on_the_real_model(masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    for family, dataset in masked_datasets.items():
        padded, packed = run_ranks(1, losses_of_epoch, family, dataset, tmp_path / family)[0]
        assert packed[1] == padded[1] > 100
        assert packed[0] == pytest.approx(padded[0], abs=1e-5)


def losses_of_epoch(family: str, dataset: Path, folder: Path) -> list[tuple[float, int]]:
    """Mean loss and number of predicted tokens of an epoch of the validation split, padded and packed."""
    import torch

    from nemo_ext.engine.resolve import resolve
    from nemo_ext.tasks.mlm import forward_step
    from tests.support.tiny_models import build_model, start_megatron

    start_megatron()
    model, results = None, []
    for name, settings in (("padded", ["train.micro_batch_size=4"]), ("packed", list(PACKED))):
        config = masked_run(folder / name, dataset, *settings, family=family)
        model = model or build_model(resolve(config, 1).hf_config).eval()
        data, total, count = module(config), 0.0, 0
        rows = first_epoch(data._validation)
        for start in range(0, len(rows), config.train.micro_batch_size):
            batch = data.collate(rows[start : start + config.train.micro_batch_size])
            with torch.no_grad():
                losses = forward_step(model, batch)
            total += float((losses * batch["loss_mask"]).double().sum())
            count += int(batch["loss_mask"].sum())
        results.append((total / count, count))
    return results


def test_a_blend_counts_its_tokens_and_keeps_to_its_shares(masked_datasets: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(masked_datasets["modernbert"])
    shares = f"{{{masked_datasets['modernbert']}: 0.75, {tmp_path / 'again'}: 0.25}}"
    config = masked_run(tmp_path / "run", Path(), "data.path=", f"data.blend={shares}", "train.max_steps=25")
    run_ranks(1, check_blend, config)


def check_blend(config: RunConfig) -> None:
    from nemo_ext.tasks.mlm import MaskedData

    data = MaskedData(config, open_blend(config.data.blend), Path(config.output_dir) / "index_cache")
    data.setup()
    lengths = [len(data._train[number]["shown"]) for number in range(200)]
    assert data.tokens_between(0, 200) == sum(lengths) and data.tokens_between(30, 90) == sum(lengths[30:90])
    assert np.bincount(data._train.dataset_index[:200]).tolist() == [150, 50]
    assert len(read_json(Path(config.output_dir) / "rows.json")["train"]) == 2
