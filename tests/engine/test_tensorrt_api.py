"""Every name of TensorRT's Python API that this package uses is in every release it supports, or is probed for.

The releases are tables of members in the reference data (`tensorrt_api`). What the code uses is found in its source: the types
of expressions follow from `X.trt.Y(...)`, from annotations, and from the return types in `engine/api.py`. A member that some
release lacks must stand behind `hasattr(thing, "member")`, or be asked for by `Flavor.member("Enum", "MEMBER")`.
"""

import ast
import json
import textwrap
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import yolov3_trt
from yolov3_trt.engine import api

PACKAGE = Path(yolov3_trt.__file__).parent
MODULE = "TensorRT's module"
RELEASES = ("tensorrt-8.6.1", "tensorrt-10.3.0", "tensorrt-10.13.3", "tensorrt-11.4.0", "tensorrt_rtx-1.7.1")

Tables = dict[str, dict[str, list[str]]]  # members by class by release


@pytest.fixture(scope="module")
def tables(data: Path) -> Tables:
    return {release: json.loads((data / "tensorrt_api" / f"{release}.json").read_text()) for release in RELEASES}


def api_classes() -> dict[str, type]:
    """The types of `engine/api.py`, by TensorRT's names."""
    return {
        name: kind for name, kind in vars(api).items() if isinstance(kind, type) and kind.__module__ == api.__name__
    }


def members_of(kind: type) -> set[str]:
    return {name for name in (*vars(kind), *kind.__annotations__) if not name.startswith("_")}


def result_types() -> dict[tuple[str, str], str]:
    """What members of the API give, where that is a class of the API too."""
    results = {}
    for name, kind in api_classes().items():
        for member in members_of(kind):
            method = getattr(kind, member, None)
            hint = typing.get_type_hints(method if method else kind).get("return" if method else member)
            for option in typing.get_args(hint) or (hint,):
                if getattr(option, "__name__", None) in api_classes():
                    results[name, member] = option.__name__
    return results


@dataclass(frozen=True)
class Use:
    """A member taken of the module, or of one of its classes or of an object of that class."""

    line: int
    owner: str  # MODULE or the name of a class
    member: str
    probed: bool  # it stands behind a probe, or is one

    def __str__(self) -> str:
        return f"line {self.line}: {self.owner}.{self.member}"


@dataclass
class Finder(ast.NodeVisitor):
    """Finds uses. `types` says of names, and of attributes as they are written, what they hold or give.

    A value is (class, is the class itself); the module is (MODULE, True) and always called `trt`.
    """

    types: dict[str, tuple[str, bool]] = field(default_factory=lambda: {"trt": (MODULE, True)})
    probed: set[tuple[str, str]] = field(default_factory=set)  # (expression, member)
    uses: list[Use] = field(default_factory=list)

    def type_of(self, node: ast.expr) -> tuple[str, bool] | None:
        text = ast.unparse(node)
        if text in self.types:
            return self.types[text]
        if isinstance(node, ast.Attribute):
            if node.attr == "trt":
                return MODULE, True
            owner = self.type_of(node.value)
            if owner == (MODULE, True):
                return node.attr, True
            found = RESULTS.get((owner[0], node.attr)) if owner else None
            return (found, False) if found else None
        if isinstance(node, ast.Call):
            made = self.type_of(node.func)
            return (made[0], False) if made and made[0] != MODULE else None
        return self.type_of(node.value) if isinstance(node, ast.NamedExpr) else None

    def visit_Module(self, node: ast.Module) -> None:
        for function in ast.walk(node):
            if isinstance(function, ast.FunctionDef):
                for name in (function.name, f"self.{function.name}"):
                    self._bind(name, self._annotated(function.returns))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.type_of(node.value)
        if owner is not None and not node.attr.startswith("_"):
            probed = (ast.unparse(node.value), node.attr) in self.probed
            self.uses.append(Use(node.lineno, owner[0], node.attr, probed))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [argument.value if isinstance(argument, ast.Constant) else None for argument in node.args]
        if name in ("hasattr", "getattr") and len(words) > 1 and isinstance(words[1], str):
            owner = self.type_of(node.args[0])
            if owner is not None:
                self.uses.append(Use(node.lineno, owner[0], words[1], probed=True))
        elif name in ("member", "members") and isinstance(words[0], str):
            self.uses.append(Use(node.lineno, MODULE, words[0], probed=True))
            if len(words) > 1 and isinstance(words[1], str):
                self.uses.append(Use(node.lineno, words[0], words[1], probed=True))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        present, absent = self._probes(node.test)
        self._visit_block(node.body, present)
        self._visit_block(node.orelse, absent)
        if isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue):
            self.probed |= absent  # for what follows in this function

    def visit_IfExp(self, node: ast.IfExp) -> None:
        present, absent = self._probes(node.test)
        for branch, known in ((node.test, set()), (node.body, present), (node.orelse, absent)):
            self._visit_block([branch], known)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._bind(ast.unparse(target), self.type_of(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._bind(ast.unparse(node.target), self._annotated(node.annotation))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        inner = Finder(dict(self.types), set(self.probed), self.uses)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            inner._bind(argument.arg, self._annotated(argument.annotation))
        for statement in (*node.decorator_list, *node.body):
            inner.visit(statement)
        # What a method puts into `self` the methods after it find there.
        self.types.update((name, kind) for name, kind in inner.types.items() if name.startswith("self."))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        inner = Finder(dict(self.types), set(self.probed), self.uses)
        inner.generic_visit(node)

    def _visit_block(self, nodes: Iterable[ast.AST], known: set[tuple[str, str]]) -> None:
        before = set(self.probed)
        self.probed |= known
        for node in nodes:
            self.visit(node)
        self.probed = before

    def _probes(self, test: ast.expr) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """Members that are there where a test holds, and where it does not."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            present, absent = self._probes(test.operand)
            return absent, present
        if isinstance(test, ast.BoolOp):
            parts = [self._probes(value) for value in test.values]
            side = 0 if isinstance(test.op, ast.And) else 1
            known = set().union(*(part[side] for part in parts))
            return (known, set()) if side == 0 else (set(), known)
        if isinstance(test, ast.Call) and getattr(test.func, "id", "") == "hasattr":
            thing, member = test.args
            return {(ast.unparse(thing), ast.literal_eval(member))}, set()
        return set(), set()

    def _annotated(self, annotation: ast.expr | None) -> tuple[str, bool] | None:
        """`IBuilderConfig`, `IHostMemory | None`, `"ITimingCache"`."""
        words = ast.unparse(annotation).replace("'", "").split(" | ") if annotation else []
        found = next((word for word in words if word in api_classes()), None)
        return (found, False) if found else None

    def _bind(self, name: str, kind: tuple[str, bool] | None) -> None:
        if name == "trt":
            return
        self.types.pop(name, None)
        if kind is not None:
            self.types[name] = kind


RESULTS = result_types()


def uses_in(source: str) -> list[Use]:
    finder = Finder()
    finder.visit(ast.parse(source))
    return finder.uses


def faults_in(source: str, tables: Tables) -> Iterator[str]:
    """What a source uses that some release lacks, or that none has."""
    for use in uses_in(source):
        if use.owner != MODULE and not any(use.owner in table for table in tables.values()):
            continue  # the class itself is what no release has
        # Where a release lacks the class as a whole, the class is what must be probed for.
        members = {release: table if use.owner == MODULE else table.get(use.owner) for release, table in tables.items()}
        lacking = [release for release, names in members.items() if names is not None and use.member not in names]
        if not any(use.member in names for names in members.values() if names is not None):
            yield f"{use}: no release has it"
        elif lacking and not use.probed:
            yield f"{use}: {', '.join(lacking)} lacks it, and nothing probes for it"


def test_the_types_of_the_api_are_in_every_release(tables: Tables):
    for name, kind in api_classes().items():
        for release, table in tables.items():
            assert members_of(kind) <= set(table[name]), f"{name} in {release}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_code_uses_only_what_every_release_has_or_probes_for_it(path: Path, tables: Tables):
    assert list(faults_in(path.read_text(), tables)) == []


def test_the_search_finds_what_building_and_running_take():
    found = {
        (use.owner, use.member)
        for room in ("engine", "builder", "runtime")
        for path in (PACKAGE / room).glob("*.py")
        for use in uses_in(path.read_text())
    }
    assert found >= {
        (MODULE, "Builder"),
        (MODULE, "ILogger"),
        (MODULE, "IProgressMonitor"),
        ("ILogger", "WARNING"),
        ("Builder", "build_serialized_network"),
        ("Builder", "num_DLA_cores"),
        ("OnnxParser", "parse_from_file"),
        ("OnnxParser", "get_error"),
        ("ParserError", "desc"),
        ("BuilderFlag", "INT8"),
        ("BuilderFlag", "VERSION_COMPATIBLE"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("IBuilderConfig", "progress_monitor"),
        ("IBuilderConfig", "num_compute_capabilities"),
        ("IBuilderConfig", "create_timing_cache"),
        ("INetworkDefinition", "mark_weights_refittable"),
        ("IOptimizationProfile", "set_shape"),
        ("ITimingCache", "combine"),
        ("ICudaEngine", "create_engine_inspector"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "get_tensor_dtype"),
        ("IExecutionContext", "execute_async_v3"),
    }


@pytest.mark.parametrize(
    "source, fault",
    [
        ("flavor.trt.Bilder(log)", "line 1: TensorRT's module.Bilder: no release has it"),
        ("self.flavor.trt.BuilderFlag.SPEED", "line 1: BuilderFlag.SPEED: no release has it"),
        ("builder = trt.Builder(log)\nbuilder.go()", "line 2: Builder.go: no release has it"),
        (
            "config = trt.Builder(log).create_builder_config()\nconfig.max_speed = 1",
            "line 2: IBuilderConfig.max_speed: no release has it",
        ),
        (
            "def f(config: IBuilderConfig | None):\n    config.max_speed = 1",
            "line 2: IBuilderConfig.max_speed: no release",
        ),
        (
            "def f(c: IBuilderConfig):\n    if hasattr(c, 'max_speed'): pass",
            "line 2: IBuilderConfig.max_speed: no release",
        ),
        ("flavor.member('BuilderFlag', 'SPEED')", "line 1: BuilderFlag.SPEED: no release has it"),
        ("flavor.member('BuildFlag', 'INT8')", "line 1: TensorRT's module.BuildFlag: no release has it"),
        ("flags = trt.BuilderFlag\nflags.SPEED", "line 2: BuilderFlag.SPEED: no release has it"),
        (
            "class A:\n    def f(self): self.x = self.trt.Runtime(0)\n    def g(self): self.x.go()",
            "line 3: Runtime.go: no",
        ),
        (
            "config.set_flag(trt.BuilderFlag.FP16)",
            "line 1: BuilderFlag.FP16: tensorrt-11.4.0, tensorrt_rtx-1.7.1 lacks it, and nothing probes for it",
        ),
        (
            "def f(b: Builder): b.build_engine(0, 0)",
            "Builder.build_engine: tensorrt-10.3.0, tensorrt-10.13.3, tensorrt-11.4",
        ),
        (
            "def f(c: IBuilderConfig): c.progress_monitor = m",
            "IBuilderConfig.progress_monitor: tensorrt-8.6.1 lacks it",
        ),
        (
            "def f(c: IBuilderConfig):\n    if not hasattr(c, 'progress_monitor'):\n        c.progress_monitor = m",
            "line 3: IBuilderConfig.progress_monitor: tensorrt-8.6.1 lacks it",
        ),
    ],
)
def test_a_name_that_is_made_up_or_not_everywhere_is_found(source: str, fault: str, tables: Tables):
    (found,) = faults_in(source, tables)
    assert fault in found


@pytest.mark.parametrize(
    "source",
    [
        """
        def f(c: IBuilderConfig):
            if m is not None and hasattr(c, "progress_monitor"):
                c.progress_monitor = m
        """,
        """
        def f(c: IBuilderConfig):
            if not hasattr(c, "num_compute_capabilities") or not hasattr(c, "set_compute_capability"):
                raise ValueError
            c.num_compute_capabilities = 1
            c.set_compute_capability(0, 0)
        """,
        """
        c = trt.Builder(log).create_builder_config()
        n = c.progress_monitor if hasattr(c, "progress_monitor") else None
        """,
        """
        config = 3
        config.max_speed = trt.BuilderFlag.GPU_FALLBACK
        """,
    ],
)
def test_what_is_probed_for_or_is_not_tensorrts_is_left_alone(source: str, tables: Tables):
    assert list(faults_in(textwrap.dedent(source), tables)) == []
