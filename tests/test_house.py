"""The house stands as DESIGN.md drew it: floors, doors, no circles, nothing executable, no author's folders.

Every rule is a function from sources to findings. Its test runs it over the packages, and then over a source
that breaks it, so that a rule that finds nothing because it looks at nothing is found out.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[1]
FLOORS = ("models", "consumers", "worker")  # from the ground up
DOORS: dict[str, set[str]] = {
    "kafka": {"consumers/kafka.py", "consumers/kafka_sink.py", "consumers/kafka_admin.py"},
    "redis": {"models/server.py"},
    "prometheus_client": {"worker/metrics*.py"},
    "tensorflow": {"models/network.py", "models/training.py"},
    "keras": {"worker/damped_keras.py"},
    "click": {"worker/cli*.py"},
    "fastapi": {"worker/api*.py"},
    "starlette": {"worker/api*.py"},
    "uvicorn": {"worker/api*.py"},
    "plotly": {"worker/report*.py"},
    "distributed": {"worker/executors.py"},
    "optuna": {"worker/tune_study.py"},
    "river": {"models/drift_*.py"},
    "pymannkendall": {"models/trend.py"},
}
ENVIRONMENT_DOORS = {"worker/settings_reading.py"}
EXECUTABLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full dotted name, and where."""

    path: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def sources() -> dict[str, str]:
    """The modules of the three packages."""
    paths = (p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in sorted(paths)}


def imports(files: Mapping[str, str]) -> Iterator[Import]:
    """Every import, wherever it stands: in a function and under TYPE_CHECKING too."""
    known = {_dotted(path) for path in files}
    for path, text in files.items():
        for node in ast.walk(ast.parse(text, path)):
            if isinstance(node, ast.Import):
                yield from (Import(path, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = _absolute(path, node)
                for alias in node.names:
                    full = f"{start}.{alias.name}"
                    yield Import(path, node.lineno, full if full in known else start)


def wrong_floors(files: Mapping[str, str]) -> list[str]:
    """Imports that go up the house, or out of it into the tests."""
    found = []
    for one in imports(files):
        top, mine = one.module.split(".")[0], one.path.split("/")[0]
        upward = top in FLOORS and FLOORS.index(top) > FLOORS.index(mine)
        if upward or top in {"tests", "benchmarks"}:
            found.append(str(one))
    return found


def circle(files: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle; empty when there is none."""
    names = {_dotted(path) for path in files}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for one in imports(files):
        if one.module in names and one.module != _dotted(one.path):
            graph[_dotted(one.path)].add(one.module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def wrong_doors(files: Mapping[str, str]) -> list[str]:
    """Imports of a dependency elsewhere than at its door."""
    guarded = ((one, DOORS.get(one.module.split(".")[0])) for one in imports(files))
    return [str(one) for one, doors in guarded if doors is not None and not _matches(one.path, doors)]


def environment_reads(files: Mapping[str, str]) -> list[str]:
    """Uses of the environment outside the settings."""
    found = []
    for path, text in files.items():
        if path in ENVIRONMENT_DOORS:
            continue
        for node in ast.walk(ast.parse(text, path)):
            named = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            aliases = [a.name for a in node.names] if isinstance(node, ast.ImportFrom) and node.module == "os" else []
            if {named, *aliases} & {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}:
                found.append(f"{path}:{getattr(node, 'lineno', 0)} uses the environment")
    return found


def executable_formats(files: Mapping[str, str]) -> list[str]:
    """Imports of formats that run code when they are read, and calls that allow them."""
    found = [str(one) for one in imports(files) if one.module.split(".")[0] in EXECUTABLE]
    for path, text in files.items():
        for node in ast.walk(ast.parse(text, path)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not _is_false(node.value):
                found.append(f"{path}:{node.value.lineno} allows pickle")
            if isinstance(node, ast.Attribute) and node.attr in {"load_model", "read_pickle", "clone_model"}:
                found.append(f"{path}:{node.lineno} calls {node.attr}")
    return found


def without_docstring(files: Mapping[str, str]) -> list[str]:
    """Modules that don't say what they are for."""
    return [path for path, text in files.items() if not ast.get_docstring(ast.parse(text, path))]


def machine_paths(files: Mapping[str, str]) -> list[str]:
    """Lines that name a folder which only one machine has."""
    folder = re.compile(r"(?<![\w.*}~-])/(?:work|root|home|Users|tmp/scratch)(?:/|\b(?=[\"'\s]))")
    return [
        f"{path}:{number} {line.strip()[:80]}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        if folder.search(line)
    ]


def test_imports_go_down_the_house() -> None:
    """From worker to consumers to models, never back, and never into tests or benchmarks."""
    assert wrong_floors(sources()) == []


@pytest.mark.parametrize(
    "text",
    [
        "from worker.settings import Settings",
        "import worker",
        "def f():\n    from worker import settings",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import worker.cli",
        "from ..worker import settings",
        "import tests.conftest",
    ],
)
def test_an_import_up_the_house_is_found(text: str) -> None:
    """However it is written, the middle floor's import of the top floor is a finding."""
    assert len(wrong_floors({"consumers/bad.py": text, "worker/settings.py": ""})) == 1
    assert wrong_floors({"worker/good.py": "import consumers.loop\nfrom models import errors"}) == []


def test_modules_import_in_no_circle() -> None:
    """No module imports, by whatever way, one that imports it; imports in functions and for types count."""
    assert circle(sources()) == []


def test_a_circle_is_found() -> None:
    """Three modules in a circle are a finding, also when one of the imports hides in a function."""
    files = {
        "models/a.py": "from models import b",
        "models/b.py": "from models.c import x",
        "models/c.py": "def f():\n    import models.a",
    }
    assert set(circle(files)) == {"models.a", "models.b", "models.c"}
    assert circle({**files, "models/c.py": ""}) == []


def test_every_dependency_has_one_door() -> None:
    """Kafka, Redis, Prometheus, TensorFlow and click are imported at their doors only."""
    assert wrong_doors(sources()) == []


@pytest.mark.parametrize("name", sorted(DOORS))
def test_a_dependency_beside_its_door_is_found(name: str) -> None:
    """An import elsewhere is a finding, for every dependency with a door; at the door it is none."""
    lazy = f"def f():\n    from {name}.deep import thing"
    assert len(wrong_doors({"models/errors.py": lazy})) == 1
    assert wrong_doors({door.replace("*", "_x"): lazy for door in DOORS[name]}) == []


@pytest.mark.parametrize("name", sorted(DOORS))
def test_every_door_is_in_use(name: str) -> None:
    """A door that nobody uses any more is taken off the list."""
    users = {one.path for one in imports(sources()) if one.module.split(".")[0] == name}
    assert all(any(_matches(path, {door}) for path in users) for door in DOORS[name])


def test_the_environment_is_read_by_the_settings_only() -> None:
    """Nothing but worker/settings_reading.py looks at environment variables."""
    assert environment_reads(sources()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import os\nx = os.environ['A']",
        "import os as o\no.getenv('A')",
        "from os import environ",
        "from os import getenv as g",
    ],
)
def test_a_look_at_the_environment_is_found(text: str) -> None:
    """However it is written, a look at the environment outside the settings is a finding."""
    assert environment_reads({"worker/bad.py": text})
    assert not environment_reads({"worker/settings_reading.py": text})


def test_nothing_executable_is_loaded() -> None:
    """No module imports pickle or its kin, or loads a Keras file."""
    assert executable_formats(sources()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "tf.keras.models.load_model(f)",
    ],
)
def test_an_executable_format_is_found(text: str) -> None:
    """Pickle, its kin and Keras files are findings; saying no to pickle is none."""
    assert len(executable_formats({"models/bad.py": text})) == 1
    assert executable_formats({"models/good.py": "np.load(f, allow_pickle=False)"}) == []


def test_every_module_says_what_it_is_for() -> None:
    """Every module and package has a docstring."""
    assert without_docstring(sources()) == []
    assert without_docstring({"models/__init__.py": "x = 1", "models/a.py": '"""Says."""'}) == ["models/__init__.py"]


def test_no_file_names_a_place_of_one_machine() -> None:
    """No tracked file names a folder that only its author's machine has."""
    assert machine_paths(_tracked()) == []


@pytest.mark.parametrize("folder", ["work/x", "tmp/scratch/v", "root/.cache", "home/me/x"])
def test_a_place_of_one_machine_is_found(folder: str) -> None:
    """An absolute path into a machine's own folders is a finding; the same words elsewhere are none."""
    assert machine_paths({"a.md": f"see /{folder} there", "b.py": f"x = '/{folder}'"}) != []
    assert machine_paths({"a.md": f"docs/{folder}, $HOME/{folder}, and at work/home"}) == []


def test_the_command_starts_without_tensorflow() -> None:
    """Importing the command line loads neither TensorFlow nor Keras: `killick status` is quick."""
    program = "import sys, worker.cli; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _tracked() -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    if not names:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return {name: (ROOT / name).read_text(encoding="utf-8", errors="replace") for name in names}


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _absolute(path: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = path.split("/")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(Path(path).match(pattern) for pattern in patterns)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
