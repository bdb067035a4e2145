"""The rules of the house, kept by reading the code: imports, sizes, errors, failpoints, packaging."""

import ast
import fnmatch
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from apt_ostree import errors
from apt_ostree.cli.main import COMMANDS, apt_ostree

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "apt_ostree"
PACKAGE = "apt_ostree"

#: Imports go from a higher number to a lower one, or stay within one part.
LAYERS = {
    "": 0,
    "wrappers": 0,
    "errors": 0,
    "program": 0,
    "model": 1,
    "system": 2,
    "core": 3,
    "boot": 4,
    "query": 4,
    "worker": 4,
    "daemon": 5,
    "cli": 5,
    "__main__": 6,
}

#: Library -> the modules that may import it; everyone else asks them.
OWNERS = {
    "apt": ["system.apt*"],
    "apt_inst": ["system.apt*"],
    "apt_pkg": ["system.apt*"],
    "aptsources": ["system.apt*"],
    "click": ["cli", "cli.*"],
    "ctypes": [
        "system.exchange",
        "system.inside",
        "system.mounts",
        "system.process",
        "system.seccomp",
        "system.systemd_login",
    ],
    "dasbus": ["daemon", "daemon.*", "system.polkit", "system.systemd_units"],
    "debian": ["system.changelogs"],
    "gi": [
        "system.background",
        "system.mainloop",
        "system.ostree",
        "system.ostree.*",
        "system.peer_server",
    ],
    "jeepney": ["system.busclient"],
    "jinja2": ["system.templates"],
    "rich": ["cli", "cli.*"],
    "sqlite3": ["system.sqlite"],
    "subprocess": ["system.polkit_agent", "system.process", "cli.client"],
    "systemd": ["daemon", "daemon.*", "system.journal"],
    "yaml": ["system.yamlfile"],
    "zstandard": ["system.zstd"],
}

#: What a module of pure values has no use for.
IMPURE = {
    "asyncio", "ctypes", "fcntl", "glob", "logging", "mmap", "os", "select", "shutil", "signal",
    "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}

MAX_MODULE_LINES = 480  # the guide says about 400
MAX_FUNCTION_LINES = 50
MEDIAN_FUNCTION_LINES = 7

#: Room of core -> the rooms that it may use; the transaction, its steps and its policy are everybody's.
ROOMS = {
    "state": set(),
    "build": {"state"},
    "live": {"state", "build"},
    "overlays": {"state", "build", "live"},
    "boot": {"state", "build", "live", "overlays"},
    "images": set(),
    "compose": {"build", "images"},
    "container": {"state", "build", "compose"},
}
FOR_ALL_ROOMS = {"core.operation", "core.transaction", "core.steps", "core.policing", "core.trust"}

#: So many modules of core are tested without a machine, at least.
TESTED_MODULES = 25


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the product, parsed, by its name below the package ("" is the package)."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), filename=str(path))
    return found


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    """Return all nodes of a module."""
    return tuple(ast.walk(modules()[name]))


@cache
def imports_of(name: str, *, running: bool = False) -> tuple[tuple[str, int], ...]:
    """Return (absolute module, line) for each import of a module; `running` leaves out what is for types."""
    return tuple(_imports_of(name, running=running))


def _imports_of(name: str, *, running: bool) -> Iterator[tuple[str, int]]:
    for_types = {
        inner
        for node in nodes(name)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in node.body
        for inner in ast.walk(child)
    }
    for node in nodes(name):
        if running and node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                is_package = (SOURCE / name.replace(".", "/") / "__init__.py").exists()
                here = [PACKAGE, *filter(None, name.split("."))]
                up = node.level - (1 if is_package else 0)
                base = ".".join([*here[: len(here) - up], *filter(None, [base])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if own(full) in modules() else base), node.lineno


def own(module: str) -> str | None:
    """Return the name below our package, or None for somebody else's module."""
    if module == PACKAGE:
        return ""
    return module.removeprefix(f"{PACKAGE}.") if module.startswith(f"{PACKAGE}.") else None


def part_of(name: str) -> str:
    return name.split(".")[0]


def where(name: str, line: int) -> str:
    return f"{PACKAGE}.{name}:{line}".replace("..", ".")


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of plain names in a module."""
    for node in nodes(name):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def test_every_part_has_a_layer():
    assert {part_of(name) for name in modules()} <= set(LAYERS)


def test_imports_point_one_way():
    wrong = []
    for name in modules():
        for module, line in imports_of(name):
            target = own(module)
            if target is None or part_of(target) == part_of(name):
                continue
            if LAYERS[part_of(target)] >= LAYERS[part_of(name)]:
                wrong.append(f"{where(name, line)} imports {module}")
    assert not wrong


def test_each_library_has_one_owner():
    wrong = []
    for name in modules():
        for module, line in imports_of(name):
            allowed = OWNERS.get(module.split(".")[0])
            if allowed is not None and not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed):
                wrong.append(f"{where(name, line)} imports {module}; only {', '.join(allowed)} may")
    assert not wrong


def test_foreign_libraries_are_all_known():
    known = set(OWNERS) | sys.stdlib_module_names | {PACKAGE}
    unknown = {
        f"{where(name, line)} imports {module}"
        for name in modules()
        for module, line in imports_of(name)
        if module.split(".")[0] not in known
    }
    assert not unknown, "give the library an owner in OWNERS and a line in debian/control"


def test_no_import_cycles():
    graph = {
        name: {t for module, _ in imports_of(name, running=True) if (t := own(module)) in modules()} - {name}
        for name in modules()
    }
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these modules import each other, or are above a cycle: {sorted(graph)}"


@cache
def folder_of(name: str) -> str:
    """Return the folder of a module; one that lies beside folders stands for itself."""
    parent = name.rpartition(".")[0]
    beside_folders = any(path.is_dir() for path in (SOURCE / parent.replace(".", "/")).glob("[!_]*"))
    return name if beside_folders else parent


def test_no_import_cycles_between_folders():
    graph: dict[str, set[str]] = {}
    for name in modules():
        targets = {folder_of(t) for m, _ in imports_of(name, running=True) if (t := own(m)) in modules()}
        graph.setdefault(folder_of(name), set()).update(targets - {folder_of(name)})
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these folders import each other, or are above a cycle: {sorted(graph)}"


def room_of(name: str) -> str | None:
    """Return the room of core in which a module lies; "" for what lies in core itself, None elsewhere."""
    part, _, rest = name.partition(".")
    return (rest.partition(".")[0] if "." in rest else "") if part == "core" and rest else None


def test_every_folder_of_core_is_a_known_room():
    rooms = {path.name for path in (SOURCE / "core").glob("[!_]*/")}
    assert rooms == set(ROOMS)


def test_rooms_of_core_point_one_way():
    wrong = []
    for name in modules():
        room = room_of(name)
        for module, line in imports_of(name):
            target = own(module)
            if room is None or target not in modules() or (there := room_of(target)) is None:
                continue
            if name in FOR_ALL_ROOMS:  # they know nothing of core but its state
                allowed = there == "state" or target in FOR_ALL_ROOMS
            elif there == "":  # a verb in core itself is used by no room
                allowed = target in FOR_ALL_ROOMS or room == ""
            else:
                allowed = room in ("", there) or there in ROOMS[room]
            if not allowed:
                wrong.append(f"{where(name, line)} imports {module}")
    assert not wrong


def test_model_is_pure():
    wrong = []
    for name in modules():
        if part_of(name) != "model":
            continue
        for module, line in imports_of(name):
            top = module.split(".")[0]
            if top in IMPURE or (own(module) is None and top not in sys.stdlib_module_names):
                wrong.append(f"{where(name, line)} imports {module}")
        for node in nodes(name):
            if isinstance(node, ast.ImportFrom) and node.module == "pathlib":
                wrong += [
                    f"{where(name, node.lineno)} imports pathlib.{alias.name}"
                    for alias in node.names
                    if not alias.name.startswith("Pure")
                ]
        wrong += [f"{where(name, c.lineno)} calls {f}()" for f, c in calls(name) if f in IMPURE_CALLS]
    assert not wrong


def test_only_render_prints():
    wrong = [
        where(name, call.lineno)
        for name in modules()
        if name != "cli.render"
        for function, call in calls(name)
        if function == "print"
    ]
    assert not wrong


def test_modules_say_what_they_own():
    assert not [name for name, tree in modules().items() if not ast.get_docstring(tree)]


def test_modules_are_short():
    lines = {path: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    too_long = [f"{p.relative_to(SOURCE)}: {n} lines" for p, n in lines.items() if n > MAX_MODULE_LINES]
    assert not too_long


def test_functions_are_short():
    found = {
        f"{where(name, node.lineno)} {node.name}": node.end_lineno - node.lineno + 1
        for name in modules()
        for node in nodes(name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    }
    assert not [f"{name}: {lines} lines" for name, lines in found.items() if lines > MAX_FUNCTION_LINES]
    assert statistics.median(found.values()) <= MEDIAN_FUNCTION_LINES


def test_core_is_tested_without_a_machine():
    tested = set()
    for path in (ROOT / "tests" / "unit").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                tested |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    core = {name for name in modules() if part_of(name) == "core" and own_file(name).name != "__init__.py"}
    tested_core = {name for name in core if f"{PACKAGE}.{name}" in tested}
    assert len(tested_core) >= TESTED_MODULES, f"not imported: {sorted(core - tested_core)}"


def own_file(name: str) -> Path:
    """Return the file of a module."""
    place = SOURCE / name.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def test_failpoint_names_are_unique_literals():
    names: Counter[str] = Counter()
    for name in modules():
        for function, call in calls(name):
            if function == "failpoint":
                argument = call.args[0]
                assert isinstance(argument, ast.Constant), f"{where(name, call.lineno)}: not a literal"
                names[argument.value] += 1
    assert not [name for name, count in names.items() if count > 1]


def error_classes() -> list[type[errors.AptOstreeError]]:
    found, todo = [], [errors.AptOstreeError]
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return [cls for cls in found if cls.__module__.startswith(PACKAGE)]


def test_errors_have_distinct_dbus_names():
    names = Counter(cls.dbus_name for cls in error_classes())
    assert not [name for name, count in names.items() if count > 1]


def test_errors_survive_the_wire():
    for cls in error_classes():
        sent = cls("message", details=("one", "two"), hint="hint", internals=("command: x",))
        received = errors.AptOstreeError.from_json(json.loads(json.dumps(sent.to_json())))
        assert type(received) is cls
        assert vars(received) == vars(sent)


def test_an_error_of_an_unknown_kind_is_one_of_the_program():
    obj = {**errors.Refused("no").to_json(), "error": "OfTomorrow"}
    assert type(errors.AptOstreeError.from_json(obj)) is errors.AptOstreeError


def test_documented_errors_are_those_of_the_code():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| `([\w.]+)` \| (\d+) \|$", text, re.MULTILINE)
    documented = {name: (dbus_name, int(code)) for name, dbus_name, code in rows}
    assert documented == {cls.__name__: (cls.dbus_name, cls.exit_code) for cls in error_classes()}


def control_field(paragraph: str, field: str) -> set[str]:
    """Return the package names of a dependency field."""
    match = re.search(rf"^{field}:(.*?)(?=^\S+:|\Z)", paragraph, re.MULTILINE | re.DOTALL)
    assert match, field
    text = re.sub(r"^#.*\n", "", match.group(1), flags=re.MULTILINE)
    names = (re.split(r"[ (:\[<]", entry.strip())[0] for entry in text.split(","))
    return {name for name in names if name and not name.startswith("$")}


def test_everything_needed_at_run_time_is_there_to_test():
    source, binary = (ROOT / "debian" / "control").read_text().split("\n\n")[:2]
    assert control_field(binary, "Depends") <= control_field(source, "Build-Depends")


def test_version_is_one():
    from apt_ostree import __version__

    changelog = (ROOT / "debian" / "changelog").read_text()
    assert changelog.startswith(f"apt-ostree ({__version__}) ")
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("installed")
    subprocess.run([ROOT / "tools" / "install-files", destination], check=True)
    return destination


def test_all_data_is_installed(installed: Path):
    there = {path.name for path in installed.rglob("*")}
    data = [p for p in (ROOT / "data").rglob("*") if p.is_file() or p.is_symlink()]
    assert not [str(path) for path in data if path.name not in there and path.name != ".gitkeep"]


def test_program_is_installed_whole(installed: Path):
    there = installed / "usr/lib/python3/dist-packages" / PACKAGE
    assert {p.relative_to(there) for p in there.rglob("*.py")} == {
        p.relative_to(SOURCE) for p in SOURCE.rglob("*.py")
    }
    assert not list(installed.rglob("__pycache__"))
    assert (installed / "usr/share/bash-completion/completions/apt-ostree").stat().st_size > 100


def test_each_command_has_a_manual_page(installed: Path):
    pages = {path.name: path.read_text() for path in (installed / "usr/share/man/man8").glob("*")}
    of_commands = {f"apt-ostree-{name}.8" for name in COMMANDS}
    assert pages.keys() == {"apt-ostree.8", "apt-ostree-wrappers.8"} | of_commands
    for name in COMMANDS:
        page = pages[f"apt-ostree-{name}.8"]
        context = click.Context(apt_ostree, info_name="apt-ostree")
        command = apt_ostree.get_command(context, name)
        assert command
        listed = (param for param in command.params if not getattr(param, "hidden", False))
        options = [option for param in listed for option in param.opts if option.startswith("--")]
        plain = page.replace("\\-", "-")
        assert [option for option in options if option not in plain] == [], name


def test_manual_page_is_up_to_date():
    command = [sys.executable, ROOT / "tools/man_commands.py", "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
