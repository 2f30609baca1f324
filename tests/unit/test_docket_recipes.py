"""The docket study's models have the sizes that it published."""

from __future__ import annotations

import pytest

from jobs.plan.architecture import read_architecture
from jobs.plan.storage import exported_parameters
from nemo_ext.models.family import FAMILIES
from recipes import load_recipe

# https://github.com/freelawproject/classifier-experiments at 251c1f0, experiments/docketbert; tied heads counted once
PUBLISHED = {
    "docket_base": 149_655_232,
    "docket_packed": 149_655_232,
    "docket_sliced_10l": 175_250_624,
    "docket_scratch_41m": 40_790_208,
    "docket_scratch_27m": 26_723_648,
    "docket_scratch_7m": 7_203_776,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name: str) -> None:
    model = load_recipe(name).model
    family = FAMILIES.get(model.family)
    assert exported_parameters(read_architecture(family, family.hf_config(model.preset, model.overrides))) == PUBLISHED[name]


def test_a_packed_step_has_as_much_text_as_a_padded_one() -> None:
    padded, packed = load_recipe("docket_base").train, load_recipe("docket_packed").train
    assert packed.seq_length * packed.global_batch_size == pytest.approx(padded.global_batch_size * 69, rel=0.1)
