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
        "val": {
            "epoch": 4,
            "test_accuracy": 0.6,
            "evaluations": 3,
            "val_balanced_accuracy": 0.8,
        },
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


def test_validation_alone_chooses_as_well():
    """Without a test set, or with one that is looked at only at the end."""
    alone = selected_epochs([record(1, None, 0.4), record(2, None, 0.6), record(3, None, 0.5)])
    assert {rule: chosen["epoch"] for rule, chosen in alone.items()} == {"last": 3, "val": 2}
    assert alone["val"]["test_accuracy"] is None
    assert selected_lines(alone) == [
        "best on validation: 60.0 %, balanced, after epoch 2, of 3 evaluations"
    ]
    at_end = selected_epochs([record(1, None, 0.6), record(2, 0.7, 0.5)])
    assert at_end["last"] == {"epoch": 2, "test_accuracy": 0.7, "evaluations": 1}
    assert at_end["val"]["epoch"] == 1 and at_end["test_best"]["evaluations"] == 1


def test_lines_are_shown_only_where_there_was_a_choice():
    assert selected_lines(selected_epochs([record(1, 0.5, 0.4)])) == []
    lines = selected_lines(selected_epochs(RECORDS))
    assert lines[0] == (
        "best on validation: 60.0 % on the test set after epoch 4, of 3 evaluations"
    )
    assert "70.0 % on the test set after epoch 3, of 4 evaluations" in lines[1]
    assert "too high" in lines[1]
