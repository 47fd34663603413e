"""Rows that are like others: what one does not say, the other does; circles and strangers are refused."""

import pytest
from test_config import DEFAULT, changed

from privimage.alike import spelt_out
from privimage.config import load
from privimage.schema import ConfigError


def test_a_row_is_what_it_says_over_what_the_other_says():
    table = {"a": {"x": 1, "deep": {"y": 2, "z": 3}}, "b": {"like": "a", "deep": {"z": 4}}, "c": {"like": "b", "x": 5}}
    found = spelt_out({"datasets": table, "run": {}})
    assert found["datasets"]["b"] == {"x": 1, "deep": {"y": 2, "z": 4}}
    assert found["datasets"]["c"] == {"x": 5, "deep": {"y": 2, "z": 4}}
    assert found["run"] == {} and table["b"] == {"like": "a", "deep": {"z": 4}}


def test_a_set_like_another_has_its_constants_and_settings():
    config = load(changed("datasets.other", {"like": "digits", "finetune": {"num_steps": 7}}))
    one, other = config.datasets["digits"], config.datasets["other"]
    assert (other.num_images, other.delta, other.pretrain) == (one.num_images, one.delta, one.pretrain)
    assert (one.finetune.num_steps, other.finetune.num_steps) == (30, 7)
    assert other.finetune.learning_rate == one.finetune.learning_rate


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"like": "digit"}, "did you mean `digits`"),
        ({"like": "mine"}, "leads back to `mine`"),
        ({"like": ["digits"]}, "expected the name"),
    ],
)
def test_what_a_row_cannot_be_like_is_refused(row, told):
    with pytest.raises(ConfigError, match=told):
        load(changed("datasets.mine", row))


def test_a_configuration_without_such_rows_is_left_as_it_is():
    assert spelt_out(DEFAULT) == DEFAULT
