# Two commands: `make run` opens the debugger, `make test` checks everything.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WORKERS ?= 2   # processes that tests are shared out to, a file each; one takes up to 3 GB

.PHONY: run test lint types clean

run: $(VENV)/installed
	@$(BIN)/minisgl-tui run $(ARGS)

test: $(VENV)/installed-dev tests/node/node_modules/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/minisgl-tui models pull smollm2-135m
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "minisgl-tui needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)

# Where the type checker finds `minisgl_tui.*`: it does not follow setuptools' package-dir.
$(VENV)/typing: Makefile | $(VENV)/bin/python
	mkdir -p $@/minisgl_tui
	for package in engine api tui demos; do ln -sfn ../../../$$package $@/minisgl_tui/$$package; done
	@touch $@

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (PyTorch is large: a minute or more)"
	@$(BIN)/python -m pip install --quiet --editable '.[serve]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python $(VENV)/typing
	@echo "installing into $(VENV) (PyTorch is large: a minute or more)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev,serve]'
	@touch $@ $(VENV)/installed

# OpenAI's package for Node, which is one of the clients in the tests. Runs none of its scripts.
tests/node/node_modules/installed: tests/node/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null && npm -v >/dev/null 2>&1 \
	  || { echo 'the tests need Node.js 20 or newer, with npm, in PATH'; exit 1; }
	@npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf $(VENV) tests/node/node_modules
