# Two commands for everyone: `make demo` and `make test`. Both make .venv and install what they need.
.PHONY: demo test lint unit format parity clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT := demo-output

demo: $(READY)
	$(BIN)/napari-samexp demo --out $(OUT)

test: lint unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(READY)
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(READY)
	$(BIN)/python benchmarks/parity.py

$(READY): pyproject.toml constraints.txt .ci/environment
	.ci/environment $(VENV)
	touch $(READY)

clean:
	rm -rf $(VENV) $(OUT)
