"""Stands in for building an engine on the simulated device: a file that says so, and no plan.

python -m acceptance.stand_in GRAPH.onnx -o OUT.engine --json FILE
"""

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    if not options.graph.is_file():
        raise SystemExit(f"{options.graph}: there is no such graph; make it first")
    options.output.write_text("simulated: the graph beside this file runs in its place\n")
    options.json.write_text(json.dumps({"engine": str(options.output), "simulated": True}) + "\n")


if __name__ == "__main__":
    main()
