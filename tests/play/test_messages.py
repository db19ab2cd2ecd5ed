"""Messages of the browser: valid ones are parsed, others are rejected."""

import json

import pytest

from dreamerjax.play.messages import BadMessageError, Begin, Go, Hold, parse


def test_valid_messages() -> None:
    assert parse('{"do": "begin", "episode": 2, "step": 7}') == Begin(do="begin", episode=2, step=7)
    assert parse('{"do": "go", "to": 3}') == Go(do="go", to=3)
    assert parse('{"do": "hold", "action": null}') == Hold(do="hold", action=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '{"do": "dance"}',
        '{"do": "go"}',
        '{"do": "go", "to": -1}',
        '{"do": "go", "to": "1"}',
        '{"do": "go", "to": 1, "and": 2}',
        '{"do": "speed", "steps": 1e9}',
        '{"do": "speed", "steps": NaN}',
        '{"do": "hold", "action": [2.0]}',
        '{"do": "hold", "action": "left"}',
        '{"do": "driver", "who": "nobody"}',
        '{"do": "begin", "episode": 1.5}',
        json.dumps({"do": "hold", "action": [0.0] * 1000}),
        "[" * 3000,
    ],
)
def test_invalid_messages_are_rejected_with_a_reason(text: str) -> None:
    with pytest.raises(BadMessageError) as refused:
        parse(text)
    assert 0 < len(str(refused.value)) < 300
