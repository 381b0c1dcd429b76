"""Config faults: illegal values for every field, each of which must be refused in one line."""

from purenoise_jax.chaos.harness import Harness, Result, first_lines
from purenoise_jax.chaos.invalid_configs import bad_values, field_paths, with_value
from purenoise_jax.config.fields import default_config
from purenoise_jax.config.validation import validate
from purenoise_jax.runtime.errors import ConfigError


def inject(harness: Harness, most: int) -> list[Result]:
    """Validates configs with one illegal value each, as every run does before it reads anything.

    Args:
        harness: its `advance` is called after each field.
        most: largest number of values for each field.
    """
    problems: list[str] = []
    tried = 0
    for path in field_paths():
        values = bad_values(path)
        # Spread over the list, because the first values are all of the wrong type.
        step = max(len(values) // most, 1)
        for value in values[::step][:most]:
            tried += 1
            problem = _problem(path, value)
            if problem:
                problems.append(f"{path}={value!r:.60}: {problem}")
        harness.advance()
    fields = len(field_paths())
    refused = tried - len(problems)
    return [
        Result(
            "config with a bad value",
            tried,
            refused,
            f"{fields} fields, up to {most} values each; {refused} refused in one line that names "
            "the field and the legal values",
            {"fields": fields, "values": tried, "refused": refused},
            first_lines(problems),
        )
    ]


def _problem(path: str, value: object) -> str:
    """The problem with the refusal of a value; "" if there is none."""
    try:
        validate(with_value(default_config(), path, value))
    except ConfigError as error:
        text = str(error)
        complete = text.startswith(path) and "legal: " in text and "\n" not in text
        return "" if complete else f"refused without the field or the legal values: {text[:100]!r}"
    except Exception as error:
        return f"crashed instead of refusing it: {error!r:.100}"
    return "accepted"
