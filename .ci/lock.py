"""All that an environment is installed from, with the SHA-256 of each file: `python .ci/lock.py EXTRAS > requirements-ci.lock`.

The files are those for this Python and this machine, so the lock is for these alone. No index stands in it: pip takes a file
from wherever it is configured to look, and refuses one of another content.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).parents[1]


def main() -> None:
    """Let pip say what it would install, and print that."""
    asked = [f"{TREE}[{sys.argv[1]}]", "pip", "editables"]  # the last for `pip install -e`
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    done = subprocess.run([*command, "-c", TREE / "constraints.txt", *asked], check=True, stdout=subprocess.PIPE)
    python = ".".join(platform.python_version_tuple()[:2])
    print(
        f"# What CI installs on {platform.system()} {platform.machine()} with Python {python}; `make lock` writes it."
    )
    lines = []
    for entry in json.loads(done.stdout)["install"]:
        name, version = entry["metadata"]["name"].lower().replace("_", "-"), entry["metadata"]["version"]
        if name != "yolov3-trt":
            lines.append(
                f"{name}=={version} --hash=sha256:{entry['download_info']['archive_info']['hashes']['sha256']}"
            )
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
