"""What a user gets: the wheel and the source package are whole, and what they say of themselves holds elsewhere."""

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import yolov3_trt

TREE = Path(__file__).parents[1]

for _tool in ("hatchling", "hatch_fancy_pypi_readme"):
    pytest.importorskip(_tool, reason=f"{_tool} is not installed (extra dev): nothing builds the package")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built of the tree as it is."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=TREE, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"yolov3_trt-{yolov3_trt.__version__}.dist-info/METADATA"))


def tracked(*patterns: str) -> set[str]:
    """Files under version control, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git repository")
    return {name for name in done.stdout.splitlines() if (TREE / name).is_file()}


def test_the_wheel_is_the_package_with_recipes_and_tables_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    recipes = {f"yolov3_trt/recipes/{name}" for name in tracked("engines", "calib")}
    assert names == tracked("yolov3_trt") | recipes
    assert {"yolov3_trt/py.typed", "yolov3_trt/models/shapes.weights", "yolov3_trt/camera/sinks/page.js"} <= names
    assert "yolov3_trt/recipes/engines/yolov3-416-fp16.toml" in names
    assert any(name.endswith(".cu") for name in names) and any(name.endswith(".css") for name in names)


def test_the_licence_is_in_both(dist: Path, wheel: Path):
    licence = (TREE / "LICENSE").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"yolov3_trt-{yolov3_trt.__version__}.dist-info/licenses/LICENSE") == licence
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(f"yolov3_trt-{yolov3_trt.__version__}/LICENSE")
        assert member is not None and member.read() == licence


def test_the_source_package_has_all_that_the_tests_and_the_documents_need(dist: Path):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = tracked("yolov3_trt", "tests", "engines", "calib", "docs/*.md", "docs/*.jpg", "docs/examples", ".ci")
    wanted |= tracked(
        "*.md", "constraints*.txt", "*.lock", "Makefile", "pyproject.toml", "LICENSE", "acceptance", "benchmarks"
    )
    assert wanted <= names


def test_the_description_has_no_link_into_the_repository(metadata: email.message.Message):
    text = metadata.get_payload()
    assert isinstance(text, str) and len(text) > 3000
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")] == []
    assert "(tutorial)" in text and "(docs/tutorials" not in text  # the words stay


def test_the_metadata_says_what_the_project_is(metadata: email.message.Message):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "The yolov3_trt maintainers"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "darknet" in (metadata["Keywords"] or "")
    classifiers = metadata.get_all("Classifier") or []
    versions = [name for name in classifiers if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)]
    legs = (TREE / ".ci" / "legs.py").read_text()
    assert versions and all(f'"{name.rpartition(" ")[2]}"' in legs for name in versions)
    assert {"pc", "jetson", "server", "train", "all"} <= set(metadata.get_all("Provides-Extra") or [])


def test_the_lowest_versions_that_ci_runs_are_those_that_are_promised(metadata: email.message.Message):
    asked: dict[str, set[str]] = {}  # an extra may ask for more than another
    for requirement in metadata.get_all("Requires-Dist") or []:
        found = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)", requirement)
        if found:
            asked.setdefault(found[1].lower().replace("_", "-"), set()).add(found[2])
    for line in (TREE / "constraints-lowest.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version.startswith(tuple(asked[name.lower().replace("_", "-")])), line


def test_the_lock_of_ci_has_all_that_is_asked_for_as_it_is_pinned_with_its_hash_and_no_index(
    metadata: email.message.Message,
):
    text = (TREE / "requirements-ci.lock").read_text()
    locked = {}
    for line in text.splitlines()[1:]:
        found = re.fullmatch(r"([a-z0-9.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert found, line
        locked[found[1]] = found[2].partition("+")[0]
    pins = re.findall(r"(?m)^([\w.-]+)==([^;\s]+)(?:; *python_version >= .*)?$", (TREE / "constraints.txt").read_text())
    pinned = {name.lower().replace("_", "-"): version for name, version in pins}
    assert len(pinned) > 20 and {name: locked[name] for name in pinned.keys() & locked} == {
        name: pinned[name] for name in pinned.keys() & locked
    }, "make lock writes it anew"
    extras = re.findall(r"(?m)^ *EXTRAS := (?:\$\(EXTRAS\),)?(\S+)$", (TREE / "Makefile").read_text())
    wanted = "|".join(",".join(extras).split(","))
    asked = re.compile(rf"([\w.-]+)(?:\[.*\])?>=[0-9.]+(; extra == '({wanted})')?")
    found_names = [asked.fullmatch(requirement) for requirement in metadata.get_all("Requires-Dist") or []]
    names = {found[1].lower().replace("_", "-") for found in found_names if found}
    assert len(names) > 20 and names <= locked.keys(), f"make lock adds {names - locked.keys()}"
    assert "://" not in text and "+cpu" in text


@pytest.mark.parametrize("tool", ["twine", "check_wheel_contents"])
def test_the_tools_of_the_trade_have_nothing_to_say(tool: str, dist: Path, wheel: Path):
    pytest.importorskip(tool, reason=f"{tool} is not installed (extra dev)")
    files = ["check", "--strict", *map(str, dist.iterdir())] if tool == "twine" else ["--no-config", str(wheel)]
    done = subprocess.run([sys.executable, "-m", tool, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
