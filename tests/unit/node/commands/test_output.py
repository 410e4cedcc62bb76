"""What the commands print."""

import pytest

from node.commands.output import in_words


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, "never"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (2.6e8, "3 d"),
    ],
)
def test_durations_are_said_as_a_person_says_them(milliseconds: float | None, words: str) -> None:
    assert in_words(milliseconds) == words
