"""Unknown names list the near misses, and other packages can add to a registry but not take a name over."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from nemo_ext.common import registry
from nemo_ext.common.errors import ConfigError, nearest
from nemo_ext.common.registry import Registry


def test_an_unknown_name_lists_the_nearest() -> None:
    shapes = Registry("shape", "sibol.test", {"circle": "math:pi", "square": "math:sqrt"})
    assert shapes.get("circle") == pytest.approx(3.14159, abs=1e-5)
    with pytest.raises(ConfigError, match=r"Unknown shape 'circel'. Did you mean 'circle'"):
        shapes.get("circel")
    with pytest.raises(ConfigError, match=r"Known: circle, square"):
        shapes.get("zzzz")


def test_entry_points_add_names_but_do_not_replace_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("triangle", "math:tau", "sibol.test"), EntryPoint("circle", "math:e", "sibol.test")]
    monkeypatch.setattr(registry, "installed", lambda group: points if group == "sibol.test" else [])
    shapes = Registry("shape", "sibol.test", {"circle": "math:pi"})
    assert shapes.names() == ["circle", "triangle"]
    assert shapes.get("triangle") == pytest.approx(6.28318, abs=1e-5)
    assert shapes.get("circle") == pytest.approx(3.14159, abs=1e-5)


def test_nearest_without_any_name() -> None:
    assert nearest("a", []) == " Known: (none)."
