"""Who may import whom: the dependency direction of the design, walked in the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "safetensors", "huggingface_hub", "numpy"}
TORCH_SIDE = (
    "engine/runner/",
    "engine/kernels/",
    "engine/models/",
    "engine/check.py",
    "engine/llm.py",
    "engine/loader.py",
    "engine/bench/compare.py",
    "engine/bench/machine.py",
    "engine/bench/offline.py",
    "engine/bench/peers/",
)


def sources(*packages: str) -> list[Path]:
    return [p for package in packages for p in sorted((ROOT / package).rglob("*.py"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, module_level_only: bool) -> set[str]:
    """Absolute dotted names that ``path`` imports, relative ones spelled out from the root."""
    tree = ast.parse(path.read_text())
    nodes = _module_level(tree) if module_level_only else ast.walk(tree)
    found: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return {n.removeprefix("minisgl_tui.") for n in found}


def _module_level(tree: ast.Module) -> list[ast.AST]:
    """Statements that run on import: not inside functions, nor under TYPE_CHECKING."""
    found: list[ast.AST] = []
    stack: list[ast.AST] = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        found.append(node)
        stack += ast.iter_child_nodes(node)
    return found


def tops(names: set[str]) -> set[str]:
    return {n.split(".")[0] for n in names}


CORE = [p for p in sources("engine") if not name(p).startswith(TORCH_SIDE)]


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_imports_no_torch_and_no_textual(path: Path) -> None:
    allowed_inside = name(path) in ("engine/tokenizer.py", "engine/model_store.py")
    assert not tops(imports(path, module_level_only=allowed_inside)) & {*HEAVY, "textual", "rich"}


@pytest.mark.parametrize("path", sources("engine"), ids=name)
def test_the_engine_knows_neither_screens_nor_server(path: Path) -> None:
    assert not tops(imports(path, module_level_only=False)) & {"tui", "api", "demos", "textual"}


@pytest.mark.parametrize("path", sources("tui"), ids=name)
def test_screens_import_no_torch_on_start(path: Path) -> None:
    assert not tops(imports(path, module_level_only=True)) & HEAVY
    torch_side = tuple(n.removesuffix(".py").replace("/", ".") for n in TORCH_SIDE)
    assert not any(n.startswith(torch_side) for n in imports(path, module_level_only=True))


@pytest.mark.parametrize("path", sources("tui"), ids=name)
def test_screens_do_without_the_server_unless_it_is_asked_for(path: Path) -> None:
    assert "api" not in tops(imports(path, module_level_only=True))


@pytest.mark.parametrize("path", sources("api"), ids=name)
def test_the_server_knows_the_engine_and_no_screens(path: Path) -> None:
    assert not tops(imports(path, module_level_only=False)) & {"tui", "demos", "textual", "rich"}
    assert not tops(imports(path, module_level_only=True)) & HEAVY


@pytest.mark.parametrize("path", sources("tui/widgets", "tui/screens"), ids=name)
def test_panes_read_the_picture_and_never_the_engine(path: Path) -> None:
    inside = {"cache", "radix", "scheduler", "engine", "llm", "simulate", "runner", "audit"}
    found = {n.split(".")[1] for n in imports(path, False) if n.startswith("engine.")}
    assert not found & inside


def test_there_is_no_circle_of_imports() -> None:
    graph = {}
    for path in sources("engine", "api", "tui", "demos"):
        dotted = name(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        graph[dotted] = imports(path, module_level_only=True)
    graph = {m: {n for n in deps if n in graph and n != m} for m, deps in graph.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path, module))
        if module not in done:
            for dependency in sorted(graph[module]):
                visit(dependency, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(
    "statement",
    [
        "import minisgl_tui.engine",
        "import minisgl_tui.engine.simulate, minisgl_tui.engine.debugger",
        "import minisgl_tui.tui.cli",
        "import minisgl_tui.api.server",
    ],
)
def test_what_is_loaded_for_real(statement: str) -> None:
    probe = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not tops(set(run.stdout.split())) & {*HEAVY, "textual"}
