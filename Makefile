# make demo: set up and show the main job.  make test: everything that must hold.  make lint, bench, bench-long,
# fuzz, faults, demo-certs.
.PHONY: demo demo-certs test lint format build wheel unit fuzz faults bench bench-long clean

PYTHON ?= python3
BIN := .venv/bin
export EIR_PYTHON := $(CURDIR)/$(BIN)/python

RUST_SOURCES := $(shell find rust benchmarks/native -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock
PYTHON_SOURCES := $(shell find eir sms -name '*.py' -o -name '*.pyi') pyproject.toml

demo: build
	$(BIN)/python -m benchmarks.demo

# An authority and certificates for a laboratory, in build/certs.
demo-certs: .venv/packages
	$(BIN)/python -m benchmarks.demo_certs

test: lint unit fuzz

lint: .venv/installed
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features eir-node/python -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy eir sms benchmarks tests

format: .venv/installed
	cargo fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit: build
	cargo test --locked --workspace --quiet
	$(BIN)/pytest

fuzz: .venv/installed
	$(BIN)/python tests/fuzz/run.py
	$(BIN)/python tests/fuzz/control_plane.py

faults: build
	$(BIN)/pytest tests/faults --rounds 200

bench: build
	$(BIN)/python -m benchmarks

# What takes long: a hundred million rows, a billion IMEIs.
bench-long: build
	$(BIN)/python -m benchmarks long

build: .venv/installed .venv/native

# The wheel itself is installed, as an operator would: what the tests see is what is shipped.
.venv/installed: .venv/packages $(RUST_SOURCES) $(PYTHON_SOURCES) README.md
	rm -rf build/wheels
	$(BIN)/maturin build --release --locked --quiet --interpreter $(BIN)/python --out build/wheels
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/wheels/*.whl
	touch $@

.venv/packages: requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# The benchmarks' programs.
.venv/native: .venv/packages $(RUST_SOURCES)
	cargo build --locked --release --quiet --package eir-bench
	touch $@

clean:
	rm -rf .venv build target
