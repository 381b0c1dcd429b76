"""The epochs that rules of selection choose."""

from purenoise_jax.training.selection import selected_epochs, selected_lines


def record(epoch, test=None, val=None):
    found = {"epoch": epoch, "step": 10 * epoch}
    found |= {} if test is None else {"test/accuracy": test}
    return found | ({} if val is None else {"val/balanced_accuracy": val})


RECORDS = [
    record(1, 0.5, 0.4),
    record(2),
    record(3, 0.7, 0.6),
    record(4, 0.6, 0.8),
    record(5, 0.65),
]


def test_each_rule_chooses_among_evaluated_epochs():
    assert selected_epochs(RECORDS) == {
        "last": {"epoch": 5, "test_accuracy": 0.65, "evaluations": 4},
        "val": {"epoch": 4, "test_accuracy": 0.6, "evaluations": 3},
        "test_best": {"epoch": 3, "test_accuracy": 0.7, "evaluations": 4},
    }


def test_among_equals_the_first_epoch_is_chosen():
    chosen = selected_epochs([record(1, 0.5, 0.4), record(2, 0.5, 0.4)])
    assert (chosen["test_best"]["epoch"], chosen["val"]["epoch"], chosen["last"]["epoch"]) == (
        1,
        1,
        2,
    )


def test_rules_without_a_choice_are_left_out():
    assert selected_epochs([]) == {}
    assert selected_epochs([record(1)]) == {}
    assert "val" not in selected_epochs([record(1, 0.5)])


def test_lines_are_shown_only_where_there_was_a_choice():
    assert selected_lines(selected_epochs([record(1, 0.5, 0.4)])) == []
    lines = selected_lines(selected_epochs(RECORDS))
    assert lines[0] == (
        "best on validation: 60.0 % on the test set after epoch 4, of 3 evaluations"
    )
    assert "70.0 % on the test set after epoch 3, of 4 evaluations" in lines[1]
    assert "too high" in lines[1]
