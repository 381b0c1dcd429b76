"""The example of a Kubernetes Job: by the official schemas, and by the exit codes of the program."""

import copy
from pathlib import Path

import pytest
import yaml

from launch import local
from purenoise_jax import main as cli
from purenoise_jax.config.validation import validate
from purenoise_jax.data.sources.download import CACHE_VARIABLE
from purenoise_jax.runtime import errors

FILE = Path(local.__file__).with_name("kubernetes_job.yaml")
CLAIM, JOB = yaml.safe_load_all(FILE.read_text())
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def codes(action):
    """The exit codes to which the policy applies an action."""
    rules = [rule for rule in JOB["spec"]["podFailurePolicy"]["rules"] if rule["action"] == action]
    found = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert all(rule["operator"] == "In" for rule in found)
    assert all(rule["containerName"] == CONTAINER["name"] for rule in found)
    return sorted(code for rule in found for code in rule["values"])


# The first version in which failure policies are stable, and the newest that the checker knows.
@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_the_official_schemas_accept_it(version):
    checker = pytest.importorskip(
        "kubernetes_validate", reason="install the extra kubernetes for the official schemas"
    )
    for document in (CLAIM, JOB):
        assert checker.validate(document, version, strict=True) == version
    for path, value in (
        (("spec", "backofLimit"), 3),
        (("spec", "podFailurePolicy", "rules", 0, "onExitCodes", "values"), ["2"]),
        (("spec", "template", "spec", "containers", 0, "resources", "limits"), 1),
    ):
        wrong = inner = copy.deepcopy(JOB)
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        with pytest.raises(checker.ValidationError):
            checker.validate(wrong, version, strict=True)


def test_the_policy_has_every_exit_code_of_the_program():
    assert codes("Ignore") == [errors.TERMINATED]
    # Another start ends in the same way.
    final = (
        errors.ConfigError,
        errors.DataError,
        errors.CheckpointError,
        errors.NonFiniteError,
    )
    assert codes("FailJob") == sorted(kind.exit_code for kind in final)
    assert codes("Count") == [errors.StorageError.exit_code, errors.InUseError.exit_code]
    known = {kind.exit_code for kind in errors.PureNoiseError.__subclasses__()}
    mentioned = {*codes("Ignore"), *codes("FailJob"), *codes("Count")}
    # 1 is anything else, which counts where no rule fits.
    assert known - mentioned <= {1} and mentioned - known == {errors.TERMINATED}


def test_a_machine_that_is_taken_away_does_not_count():
    rules = [rule for rule in JOB["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" not in rule]
    wanted = [{"type": "DisruptionTarget", "status": "True"}]
    assert rules == [{"action": "Ignore", "onPodConditions": wanted}]
    # Without it, the API refuses a policy.
    assert POD["restartPolicy"] == "Never"


def test_its_command_is_one_of_the_program_and_keeps_its_files_on_the_volume():
    assert CONTAINER["command"] == ["purenoise-jax"]
    values = cli.parse(["purenoise-jax", *CONTAINER["args"]])
    validate(values.config)
    (mount,) = CONTAINER["volumeMounts"]
    (cache,) = [each["value"] for each in CONTAINER["env"] if each["name"] == CACHE_VARIABLE]
    for path in (values.workdir, values.config.data.path, cache):
        assert Path(mount["mountPath"]) in Path(path).parents
    (volume,) = POD["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert CONTAINER["resources"]["limits"]["nvidia.com/gpu"] == 1
