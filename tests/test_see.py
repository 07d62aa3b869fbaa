"""What can be asked of the weights, and where the answer is."""

from dataclasses import fields

from sightline.see import Received, See, Seen


def test_each_question_has_its_answer_under_the_same_name() -> None:
    assert [field.name for field in fields(See)] == [field.name for field in fields(Seen)]


def test_nothing_is_asked_and_nothing_is_answered_unless_said() -> None:
    assert not any(getattr(See(), field.name) for field in fields(See))
    assert all(getattr(Seen(), field.name) is None for field in fields(Seen))


def test_received_counts_all_queries_unless_said() -> None:
    assert (Received().queries, Received().reduce) == (None, "sum")
