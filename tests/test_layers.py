"""The structure of the package: imports go down, and some modules stay in one place."""

import ast
from pathlib import Path

import purenoise_jax

ROOT = Path(purenoise_jax.__file__).parent
# A module may import those of its own row or of a lower one.
LAYERS = [
    ["errors", "files", "paths", "console", "data.npy", "background", "peers", "cluster", "stop", "lock", "storage", "processes",
     "xla", "compile_cache", "rng", "numerics", "noise", "array_checks", "schedules", "metrics",
     "optimizer", "config_files",
     "data.longtail", "data.sampling", "data.augment", "data.autoaugment", "data.color",
     "data.dataset", "data.labels", "models.norm", "models.norm_batch", "models.moments", "models.heads", "models.conv",
     "models.dropout", "models.places", "legal", "exact"],
    ["networks", "recipe", "data.cifar", "data.cifar_archive", "data.cifar_checksums", "data.cifar_names",
     "data.decode", "data.digits", "data.download", "data.folder", "data.image_files", "data.image_stack", "data.npz",
     "data.splits", "data.resize", "data.sources",
     "data.tfds_source", "data.unpickle", "models", "models.resnet_cifar", "models.wide_resnet",
     "models.capture", "models.one_block", "resolve"],
    ["methods", "methods.erm", "methods.noise_source", "methods.pure_noise",
     "methods.appended_noise", "methods.resampling", "methods.arguments", "methods.class_balanced_weights",
     "methods.classifier_retraining", "methods.ema", "methods.ldam", "methods.m2m", "methods.sam",
     "methods.manifold_mixup", "methods.mixup",
     "data.pipeline", "checkpoint",
     "checkpoint.manifest", "writer"],
    ["totals", "step", "compile_steps", "evaluate", "init_transforms", "frozen_networks"],
    ["config", "config_parts", "contradictions", "bad_values", "command", "clock", "experiment", "report", "resume", "begin",
     "skipped", "record_fields",
     "train"],
    ["analysis.load"],
    ["analysis.drawing", "analysis.outcome"],
    ["analysis.classes", "analysis.features", "analysis.ood"],
    ["analysis.class_accuracy", "analysis.confusion", "analysis.curves", "analysis.facts",
     "analysis.groups", "analysis.images", "analysis.subsets", "analysis.tsne",
     "analysis.predictions", "analysis.noise_features", "analysis.activations",
     "analysis.gradients"],
    ["analysis.catalog", "analysis.page"],
    ["chaos.privileges", "chaos.order", "chaos.case", "chaos.progress", "chaos.kept"],
    ["chaos.damage_kinds", "chaos.damaged_starts", "chaos.births"],
    ["chaos.victim", "chaos.scene"],
    ["chaos.kills", "chaos.mistakes", "chaos.signals", "chaos.damage", "chaos.starve", "chaos.races",
     "chaos.table"],
    ["main", "analysis.__main__", "checkpoint.__main__", "chaos.__main__", "chaos.forkserver"],
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Packages that only gather what others offer.
GATHERING = {"", "data", "analysis", "chaos"}


def modules():
    for path in ROOT.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        name = name.removesuffix("__init__").removesuffix(".")
        yield name, ast.parse(path.read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from package import module` names the module second.
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def inside(target):
    """The package's module that an imported name is, or is defined in."""
    name = target.removeprefix("purenoise_jax").removeprefix(".")
    while name not in LEVEL and name:
        name = name.rpartition(".")[0]
    return name


def test_every_module_has_a_layer():
    assert {name for name, _ in modules()} - GATHERING == set(LEVEL)


def test_imports_go_down_only():
    for name, tree in modules():
        if name in GATHERING:
            continue
        for target in imported(tree):
            if target.startswith("purenoise_jax"):
                other = inside(target)
                assert other, f"{name} imports {target}, which gathers"
                assert LEVEL[other] <= LEVEL[name], f"{name} imports {other} above it"


def test_linen_stays_in_the_models_and_orbax_in_the_checkpoints():
    for name, tree in modules():
        names = set(imported(tree))
        if not name.startswith("models"):
            assert not any(n.startswith("flax.linen") for n in names), name
        if not name.startswith("checkpoint"):
            assert not any(n.startswith("orbax") for n in names), name


def test_the_trainer_names_no_method_data_set_model_or_norm():
    source = (ROOT / "train.py").read_text()
    code = ast.unparse(ast.parse(source))
    for word in ("open", "cifar", "resnet", "wrn", "dar", "pure_noise", "digits"):
        found = [
            node
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Constant) and node.value == word
        ]
        assert not found, word


def test_nothing_runs_what_it_reads():
    """No pickle, eval or exec, but for the reader that refuses what a pickle would run."""
    banned = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "torch", "joblib"}
    for name, tree in modules():
        if name != "data.unpickle":
            assert not banned & {n.partition(".")[0] for n in imported(tree)}, name
        calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
        called = {f.id for f in calls if isinstance(f, ast.Name)}
        assert not called & {"eval", "exec", "__import__"}, name
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            named = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            assert named not in {"unsafe_load", "system", "popen", "find_class"}, name
            assert not any(
                k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in call.keywords
            ), name
