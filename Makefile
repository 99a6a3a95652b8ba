# make run: install what is missing and open the app. make test: everything that continuous integration checks.
.PHONY: help setup run test bench lint format docs record chromium
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

help:
	@echo "make run     install what is missing, then serve the app on http://127.0.0.1:7860"
	@echo "make setup   only install"
	@echo "make test    lint, types and all tests; installs what they need, a Chromium included"
	@echo "make bench   the benchmarks"
	@echo "make lint    ruff and mypy alone;  make format  rewrite the code as ruff wants it"
	@echo "make record  train and evaluate the demo anew, for visitors of a shared machine to see"
	@echo "make docs    write docs/config.md anew from the config's schema"

setup: $(INSTALLED)

run: $(INSTALLED)
	@echo "Starting; Ctrl-C ends the page, not the runs"
	@exec $(PY) app.py

test: $(INSTALLED_DEV) chromium
	@$(MAKE) --no-print-directory lint
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

bench: $(INSTALLED_DEV)
	@$(PY) -m tests.bench

lint: $(INSTALLED_DEV)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(INSTALLED_DEV)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: $(INSTALLED_DEV)
	@$(PY) docs/generate.py

record: $(INSTALLED)
	@$(PY) docs/record.py

# A stamp newer than the list means that the list is installed; a changed list is installed again.
$(INSTALLED): requirements.txt
	@set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
		python=; \
		for candidate in $${PYTHON:-} python3 python3.13 python3.12 python3.11; do \
			if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$candidate; break; fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "error: Python 3.11 or newer is needed; $$(python3 --version 2>&1 || true) was found." >&2; \
			echo "Install one (Debian, Ubuntu: apt install python3.11 python3.11-venv), or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$($$python --version)"; \
		$$python -m venv $(VENV) || { \
			echo "error: $$python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	fi; \
	echo "Installing requirements.txt: about two minutes the first time, longer if torch comes with CUDA"; \
	$(PIP) -r requirements.txt; \
	touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	@echo "Installing requirements-dev.txt"
	@$(PIP) -r requirements-dev.txt
	@touch $@

# The page's tests drive a real browser: one that is there, or Debian's.
chromium:
	@set -e; \
	for name in chromium chromium-browser google-chrome; do \
		if command -v $$name >/dev/null 2>&1; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ]; then root=; \
	elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then root="sudo -n"; \
	else root=no; fi; \
	if [ "$$root" = no ] || ! command -v apt-get >/dev/null 2>&1; then \
		echo "error: the page's tests need a Chromium, and this cannot install one. Install chromium or google-chrome." >&2; \
		exit 1; \
	fi; \
	echo "Installing chromium"; \
	$$root apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq chromium >/dev/null
