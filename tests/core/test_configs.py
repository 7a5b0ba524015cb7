"""Configs: options are declared once, refused by name, and presets lie beneath what a user gives."""

from __future__ import annotations

import pytest

from core.configs import (
    CONFIG_CLASSES,
    CalibrationConfig,
    GPTQConfig,
    Method,
    Order,
    Preset,
    RTNConfig,
    config_from_dict,
)
from core.configs.options import declared_options
from core.errors import InvalidConfigError


def test_a_name_means_the_same_in_every_method():
    """Type, default and range of an option do not hang on the method."""
    seen = {}
    for config_class in CONFIG_CLASSES.values():
        for name, declared in declared_options(config_class).items():
            assert seen.setdefault(name, declared) == declared


def test_every_option_has_words_and_every_number_a_range():
    """A user can read what an option does and what it takes."""
    for config_class in (*CONFIG_CLASSES.values(), CalibrationConfig):
        for name, declared in declared_options(config_class).items():
            assert declared.option.help.endswith("."), name
            assert declared.type not in {int, float} or declared.option.allowed, name


@pytest.mark.parametrize("config_class", CONFIG_CLASSES.values())
def test_the_dict_of_a_config_is_the_config(config_class: type[GPTQConfig]):
    assert config_from_dict(config_class().to_dict()) == config_class()


def test_a_preset_lies_beneath_the_options():
    """An option that is given wins; the rest takes the preset's values; the preset that holds can be read off."""
    fast = config_from_dict({"preset": "fast", "bits": 3})
    assert isinstance(fast, GPTQConfig)
    assert (fast.bits, fast.mismatch_alpha, fast.preset) == (3, 0.0, Preset.FAST)
    mixed = config_from_dict({"preset": "fast", "mismatch_alpha": 0.25})
    assert isinstance(mixed, GPTQConfig)
    assert (mixed.mismatch_alpha, mixed.preset) == (0.25, None)
    assert GPTQConfig().preset is Preset.DEFAULT
    assert RTNConfig().preset is None


def test_every_preset_names_options_and_differs_from_the_others():
    for config_class in CONFIG_CLASSES.values():
        configs = [config_from_dict({"method": config_class.method, "preset": name}) for name in config_class.presets]
        assert len(set(configs)) == len(configs)
        assert [config.preset for config in configs] == list(config_class.presets)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"preset": "slow"}, "preset"),
        ({"method": "rtn", "preset": "fast"}, "preset"),
        ({"method": "rtn", "static_groups": True}, "static_groups"),
        ({"order": "natural", "desc_act": True}, "order"),
        ({"bits": True}, "bits"),
        ({"group_size": 0}, "group_size"),
        ({"damp_percent": 0}, "damp_percent"),
        ({"damp_percent": "0.1"}, "damp_percent"),
        ({"mismatch_alpha": 1.5}, "mismatch_alpha"),
        ({"sym": 1}, "sym"),
        ({"scale_search": "none"}, "scale_search"),
        ({"dynamic": {"+:x": {"order": "natural"}}}, "dynamic"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_what_an_option_does_not_take_is_refused_by_name(values: dict[str, object], field: str):
    with pytest.raises(InvalidConfigError) as refused:
        config_from_dict(values)
    assert refused.value.field == field
    assert refused.value.allowed


def test_the_two_flags_spell_an_order():
    """A flag that is not given keeps its part of the default order."""
    orders = [
        config_from_dict({"method": Method.GPTQ, **flags}).to_dict()["order"]
        for flags in ({"desc_act": False}, {"static_groups": False}, {})
    ]
    assert orders == [Order.NATURAL_STATIC, Order.DESC_ACT, Order.DESC_ACT_STATIC]


def test_numbers_are_stored_as_what_they_are():
    """JSON writes 1.0 as 1; the config holds one form, so equal configs have equal fingerprints."""
    assert GPTQConfig(mismatch_alpha=1).to_dict() == GPTQConfig(mismatch_alpha=1.0).to_dict()  # type: ignore[arg-type]
    assert repr(GPTQConfig(mismatch_alpha=0).mismatch_alpha) == "0.0"


def test_a_later_option_is_stored_only_where_it_is_used() -> None:
    """So a program that does not know it takes the configs that do without; those that use it keep it."""
    assert "embeddings" not in GPTQConfig().to_dict()
    assert GPTQConfig(lm_head=True, embeddings=True).to_dict()["embeddings"] is True
    assert config_from_dict(GPTQConfig(lm_head=True, embeddings=True).to_dict()).embeddings
    assert not config_from_dict(GPTQConfig().to_dict()).embeddings
