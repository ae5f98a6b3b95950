"""FeatureSpec: what it takes, and that it is what it was given."""

import dataclasses
import json

import pytest

import tfmtl


def test_one_width_or_one_for_each_column():
    sizes = {"item": 12, "user": 7}
    assert tfmtl.FeatureSpec(sizes, width=3).widths == {"item": 3, "user": 3}
    own = {"item": 5, "user": 2}
    assert tfmtl.FeatureSpec(sizes, width=own).widths == own
    assert tfmtl.FeatureSpec({}, ["age"]).widths == {}


@pytest.mark.parametrize("width", [4, {"item": 5, "user": 2}])
def test_a_configuration_restores_it_through_json(width):
    spec = tfmtl.FeatureSpec({"user": 7, "item": 12}, ["age"], width=width)
    again = tfmtl.FeatureSpec(**json.loads(json.dumps(spec.get_config())))
    assert again == spec
    assert list(again.categorical) == ["user", "item"]  # the order is the table's


def test_it_is_not_its_callers_to_change():
    sizes, numeric = {"item": 12}, ["age"]
    spec = tfmtl.FeatureSpec(sizes, numeric)
    sizes["user"] = 7
    numeric.append("height")
    assert spec == tfmtl.FeatureSpec({"item": 12}, ["age"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.width = 3
