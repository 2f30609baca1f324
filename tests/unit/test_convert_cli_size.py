"""Sizes on the export command line."""

from __future__ import annotations

import pytest

from nemo_ext.common.errors import ConfigError
from recipes.cli.export import parse_size


@pytest.mark.parametrize(("text", "size_bytes"), [("5GB", 5 * 10**9), ("2 GiB", 2**31), ("1.5mb", 1_500_000), ("123", 123)])
def test_sizes_are_read_in_decimal_and_binary_units(text, size_bytes):
    assert parse_size(text, "--max-shard") == size_bytes


@pytest.mark.parametrize("text", ["", "0", "5 gigs", "-1GB", "GB"])
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError, match="--max-shard"):
        parse_size(text, "--max-shard")
