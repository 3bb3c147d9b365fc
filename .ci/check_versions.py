"""Check that all packages have one version: check_versions.py [EXPECTED] [--root FOLDER].

They are released together, and each is tested only with its siblings of the same version.
"""

import argparse
import sys
import tomllib
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("expected", nargs="?", help="the version, such as 1.2.3 (default: any)")
parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the repository")
options = parser.parse_args()

files = sorted(
    [*options.root.glob("packages/*/pyproject.toml"), *options.root.glob("apps/*/pyproject.toml")]
)
versions = {}
for file in files:
    project = tomllib.loads(file.read_text())["project"]
    versions[project["name"]] = project["version"]
if not versions:
    sys.exit(f"{options.root}: no packages; expected packages/*/pyproject.toml")

expected = options.expected or max(set(versions.values()), key=list(versions.values()).count)
others = {name: version for name, version in versions.items() if version != expected}
if others:
    lines = [f"  {name} has version {version}" for name, version in others.items()]
    sys.exit("\n".join([f"All packages must have version {expected}:", *lines]))
print(f"{len(versions)} packages have version {expected}")
