"""Bad values for every config field, all of which have to be refused in one line."""

from purenoise_jax.chaos.harness import Harness, Result, first_lines
from purenoise_jax.chaos.invalid_configs import bad_values, field_paths, with_value
from purenoise_jax.config.fields import default_config, validate
from purenoise_jax.runtime.errors import ConfigError


def inject(harness: Harness, most: int) -> list[Result]:
    """Checks configs that have one bad value each, as every run does before it reads anything.

    Args:
        harness: told of every field.
        most: values of each field, at most.
    """
    problems: list[str] = []
    tried = 0
    for path in field_paths():
        values = bad_values(path)
        # Spread over all kinds of badness: the first ones are all of the wrong type.
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
            "field and what is legal",
            {"fields": fields, "values": tried, "refused": refused},
            first_lines(problems),
        )
    ]


def _problem(path: str, value: object) -> str:
    """What is wrong with how a value is refused; "" if nothing is."""
    try:
        validate(with_value(default_config(), path, value))
    except ConfigError as error:
        text = str(error)
        said = text.startswith(path) and "legal: " in text and "\n" not in text
        return "" if said else f"refused without the field or what is legal: {text[:100]!r}"
    except Exception as error:
        return f"not refused but broken: {error!r:.100}"
    return "accepted"
