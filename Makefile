# The five verbs; pre-commit and CI call these same ones.
.PHONY: install format check test build requirements

install:
	uv sync

format:
	uv run ruff format .
	uv run ruff check --fix .

check:
	uv run ruff format --check .
	uv run ruff check .
	uv run mypy
	uv run lint-imports
	bash .ci/check-requirements

test:
	uv run pytest

build:
	rm -rf dist
	uv build --all-packages --out-dir dist

# After a change of dependencies or of exclude-newer: write what a fresh resolution gives.
requirements:
	bash .ci/check-requirements --write
