# Two commands for everyone: `make demo` and `make test`. Both make .venv and install what they need.
.PHONY: help demo test lint unit format docs screenshots parity bench clean
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT := demo-output
PEERS := benchmarks/.peers
# screenshots are of one size, whatever screen there is
SCREEN := $(shell command -v xvfb-run >/dev/null && echo 'xvfb-run -a -s "-screen 0 1400x900x24"')

help:  ## list the verbs
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' Makefile | expand -t 18

demo: $(READY)  ## track the sample clip: in napari, or without a screen
	$(BIN)/napari-samexp demo --out $(OUT)

test: lint unit  ## lint, then every test

lint: $(READY)  ## ruff, mypy, import contracts, workflow files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github/workflows

unit: $(READY)  ## every test, with coverage
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered

format: $(READY)  ## let ruff repair and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## build the site into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

screenshots: $(READY)  ## make docs/images anew, in the dark and the light theme
	$(SCREEN) $(BIN)/python docs/make_screenshots.py

parity: $(READY)  ## compare with what Meta's code computed
	$(BIN)/python -m tests.parity.parity

bench: $(READY) $(PEERS)/.ready  ## measure speed and memory, against transformers and what META= and SAM1= name
	$(BIN)/python -m benchmarks.speed.suite --peers $(PEERS)/bin/python $(if $(META),--meta $(META)) $(if $(SAM1),--sam1 $(SAM1)) $(BENCH)

$(PEERS)/.ready: benchmarks/speed/peers.txt constraints.txt
	$(BIN)/python -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/speed/peers.txt
	touch $@

$(READY): pyproject.toml constraints.txt .ci/environment
	.ci/environment $(VENV)
	touch $(READY)

clean:  ## remove .venv, demo-output, site and the benchmarks' peers
	rm -rf $(VENV) $(OUT) site $(PEERS) benchmarks/out
