"""`dynamic`: the first matching pattern decides, what it says is checked, and its order survives every journey."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from core.configs import GPTQConfig, RTNConfig, ScaleSearch, config_from_dict
from core.errors import InvalidConfigError
from core.overrides import Overrides

DYNAMIC = {
    r"-:model\.layers\.0\.": {},
    r"+:.*\.down_proj": {"bits": 8, "group_size": -1},
    r"+:.*\.mlp\.": {"bits": 3, "scale_search": "minmax"},
    "model.norm": {"sym": False},
}


def test_the_first_pattern_that_matches_from_the_start_decides():
    """Skipped, changed twice over, changed, or left with the config's own options."""
    config = GPTQConfig(bits=4, group_size=64, dynamic=DYNAMIC)
    assert config.for_linear("model.layers.0.mlp.down_proj") is None
    down = config.for_linear("model.layers.1.mlp.down_proj")
    assert down == GPTQConfig(bits=8, group_size=-1)
    up = config.for_linear("model.layers.1.mlp.up_proj")
    assert up == GPTQConfig(bits=3, group_size=64, scale_search=ScaleSearch.MINMAX)
    assert config.for_linear("model.layers.1.self_attn.q_proj") == GPTQConfig(bits=4, group_size=64)
    assert config.for_linear("model.norm") == GPTQConfig(bits=4, group_size=64, sym=False)
    assert not config.always_sym
    assert GPTQConfig().for_linear("anything") == GPTQConfig()


def test_the_order_survives_a_sorted_store():
    """A database may sort an object's keys; the stored form is a list, so the first pattern stays the first."""
    config = GPTQConfig(dynamic=DYNAMIC)
    stored = json.loads(json.dumps(config.to_dict(), sort_keys=True))
    assert config_from_dict(stored) == config
    assert list(config_from_dict(stored).dynamic) == list(DYNAMIC)
    backwards = GPTQConfig(dynamic=dict(reversed(DYNAMIC.items())))
    assert backwards != config
    assert json.dumps(backwards.to_dict(), sort_keys=True) != json.dumps(config.to_dict(), sort_keys=True)
    assert hash(config) == hash(config_from_dict(stored))
    assert Overrides(DYNAMIC) == DYNAMIC


@pytest.mark.parametrize(
    ("dynamic", "words"),
    [
        ({"+:.*": {"bits": 5}}, "bits of"),
        ({"+:.*": {"group_size": 0}}, "group_size of"),
        ({"+:.*": {"order": "natural"}}, "unknown option"),
        ({"+:.*": {"dynamic": {}}}, "unknown option"),
        ({"-:.*": {"bits": 4}}, "skipped"),
        ({"+:(": {}}, "regular expression"),
        ({"+:(a+)+b": {}}, "repeated group"),
        ({"+:a*b*c*d*e*": {}}, "repetitions"),
        ({"+:" + "a" * 300: {}}, "too long"),
        ({"+:": {}}, "not a pattern"),
        ({"+:a": 4}, "not a pattern"),
        ("+:a", "not a mapping"),
        ({f"+:a{number}": {} for number in range(257)}, "more than"),
    ],
)
def test_what_is_no_pattern_or_no_option_is_refused(dynamic: Any, words: str):  # noqa: ANN401 - of any wrong type
    """Before a run, naming the field."""
    with pytest.raises(InvalidConfigError, match=words) as caught:
        GPTQConfig(dynamic=dynamic)
    assert caught.value.field == "dynamic"


def test_options_of_another_method_are_unknown():
    """RTN has no damping."""
    with pytest.raises(InvalidConfigError, match="unknown option"):
        RTNConfig(dynamic={"+:.*": {"damp_percent": 0.1}})
    assert GPTQConfig(dynamic={"+:.*": {"damp_percent": 0.1}}).for_linear("a") == GPTQConfig(damp_percent=0.1)


def test_the_slowest_allowed_pattern_is_quick():
    """Patterns come from users: what is allowed cannot hold up the service."""
    slow = Overrides({"+:.*.*.*.*X": {}})
    started = time.process_time()
    for number in range(20):
        assert slow.match(f"model.layers.{number}.self_attn.q_proj") is None
    assert time.process_time() - started < 5
