# Targets for contributors, pre-commit, and CI.
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
	bash .ci/build

# Rewrite requirements.txt after changing dependencies or exclude-newer.
requirements:
	bash .ci/check-requirements --write
