"""The structure of the package: imports go down, and some modules stay in one place."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import purenoise_jax

ROOT = Path(purenoise_jax.__file__).parent
# A folder imports folders of lower rank only; those of one rank know nothing of each other.
RANK = {"runtime": 1, "data": 2, "models": 2, "checkpoint": 3, "methods": 3, "config": 4}
RANK |= {"training": 5, "inference": 6, "chaos": 6, "analysis": 7, "main": 8, "": 8}
RANK |= {"predict": 8, "export": 8, "calibrate": 8, "cli": 9}


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


def folder_of(module):
    return module.removeprefix("purenoise_jax").removeprefix(".").partition(".")[0]


def test_imports_between_folders_go_down():
    for name, tree in modules():
        for target in imported(tree):
            here, there = folder_of(name), folder_of(target)
            if target.startswith("purenoise_jax") and here != there:
                assert RANK[there] < RANK[here], f"{name} imports {target}"


def test_the_package_is_ten_folders_and_the_command_lines():
    entries = {p.stem for p in ROOT.iterdir() if p.name != "__pycache__"}
    assert entries == {*RANK, "__init__"} - {""}


def test_no_module_imports_itself_through_others():
    trees = dict(modules())
    graph = {}
    for name, tree in trees.items():
        graph[name] = set()
        for target in imported(tree):
            inner = target.removeprefix("purenoise_jax").removeprefix(".")
            while inner and inner not in trees:
                inner = inner.rpartition(".")[0]
            if target.startswith("purenoise_jax") and inner != name:
                graph[name].add(inner)
    TopologicalSorter(graph).prepare()


def test_linen_stays_in_the_models_and_orbax_in_the_checkpoints():
    for name, tree in modules():
        names = set(imported(tree))
        if folder_of(name) != "models":
            assert not any(n.startswith("flax.linen") for n in names), name
        if folder_of(name) != "checkpoint":
            assert not any(n.startswith("orbax") for n in names), name


def test_only_the_builder_reads_a_config():
    """Beside it in `training`, a config is passed on as it is; other modules never see one."""
    for name, tree in modules():
        if folder_of(name) != "training" or name == "training.build":
            continue
        sees = any(target.endswith(".ConfigDict") for target in imported(tree))
        assert not sees or name in {"training.loop", "training.setup"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Subscript):
                read = isinstance(node.value, ast.Name) and node.value.id == "config"
                assert not read, f"{name}, line {node.lineno}"


def test_the_loop_fits_on_a_page():
    tree = ast.parse((ROOT / "training" / "loop.py").read_text())
    lengths = {
        node.name: node.end_lineno - node.lineno + 1
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    assert lengths["train"] <= 40, lengths


def test_the_trainer_names_no_method_data_set_model_or_norm():
    source = (ROOT / "training" / "loop.py").read_text()
    code = ast.unparse(ast.parse(source))
    for word in ("open", "cifar", "resnet", "wrn", "dar", "pure_noise", "digits"):
        found = [
            node
            for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Constant) and node.value == word
        ]
        assert not found, word


# The reader that refuses what a pickle would run, and the command that has PyTorch refuse it.
MAY_IMPORT = {
    "data.sources.safe_unpickle": {"pickle"},
    "checkpoint.convert_weights": {"torch"},
}


def test_pytorch_reads_files_in_its_restricted_mode_only():
    tree = dict(modules())["checkpoint.convert_weights"]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    (load,) = [n for n in calls if getattr(n.func, "attr", "") in ("load", "loads", "Unpickler")]
    assert ast.unparse(load.func) == "torch.load"
    assert {k.arg: ast.unparse(k.value) for k in load.keywords}["weights_only"] == "True"


def test_nothing_runs_what_it_reads():
    """No pickle, eval or exec, but for the modules of `MAY_IMPORT`."""
    banned = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "torch", "joblib"}
    for name, tree in modules():
        allowed = MAY_IMPORT.get(name, set())
        assert not (banned - allowed) & {n.partition(".")[0] for n in imported(tree)}, name
        calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
        called = {f.id for f in calls if isinstance(f, ast.Name)}
        assert not called & {"eval", "exec", "__import__"}, name
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            named = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            assert named not in {"unsafe_load", "system", "popen", "find_class"}, name
            assert not any(
                k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in call.keywords
            ), name
