# The five verbs; pre-commit and CI call these same ones.
.PHONY: install format check test build requirements

install:
	uv sync

format:
	uv run ruff format .
	uv run ruff check --fix .

check:
	bash .ci/check

test:
	uv run pytest

build:
	uv build --all-packages --out-dir dist --clear

# After a change of dependencies or of exclude-newer: write what a fresh resolution gives.
requirements:
	bash .ci/check-requirements --write
