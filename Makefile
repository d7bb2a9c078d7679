# make train: train the default recipe and show what it gained. make test, make test-long, make lint: what changes must
# pass. make test-fast: the part of the tests that takes a few minutes.

RECIPE ?= quickstart
RUN ?= runs/$(RECIPE)

.PHONY: env train test test-long test-fast test-aarch64 miri lint lint-aarch64 docs bench conformance wheel clean tools
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# The environment is made again only when what it is made from has changed, whatever the files' times say.
hash = $(shell cat $(1) | cksum | cut -d' ' -f1)
PACKAGES := .venv/packages-$(call hash,constraints.txt)
RUST := Cargo.toml Cargo.lock $(sort $(shell find rust -name '*.rs' -o -name Cargo.toml))
PROJECT := .venv/project-$(call hash,constraints.txt pyproject.toml cli/pyproject.toml cli/setup.py $(RUST))

train: env
	$(BIN)/langptune train --config $(RECIPE) --output $(RUN) --resume

AARCH64 := aarch64-unknown-linux-gnu

# Two tests at a time and more where there are cores for them; each worker runs tests that stand together. What has to run
# alone is in tests/core, where no test imports a model's library.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal --durations 40 --durations-min 5

test: env
	cargo test --quiet --locked
	$(BIN)/python -m pytest $(PARALLEL) -m "not alone and not long"
	$(BIN)/python -m pytest -m alone tests/core

# Runs that are killed again and again, every launcher, and the scripts that measure steps: a few more minutes.
test-long: env
	$(BIN)/python -m pytest $(PARALLEL) -m long tests/invariance tests/benches

# What daily work needs: no test that trains models or starts launchers, and no Rust but what the extension holds.
test-fast: env
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not alone"

lint: env lint-aarch64
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --quiet --locked --workspace --all-targets -- --deny warnings
	$(SITE)

# The site, into target/site. A broken link and a public name without a docstring are errors, but not with --quiet.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
docs: env
	$(SITE)

# The NEON kernel, which needs the target's standard library. Where rustup cannot add it, only CI takes that as a failure.
lint-aarch64:
	@rustup target add $(AARCH64) >/dev/null 2>&1; test -d "$$(rustc --print target-libdir --target $(AARCH64))" || \
		{ echo 'Not linted for $(AARCH64), which rustup cannot add here'; test -z "$$CI"; exit; }; \
		cargo clippy --quiet --locked --target $(AARCH64) -- --deny warnings

# The core's tests with the NEON kernel, by emulation.
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := aarch64-linux-gnu-gcc
test-aarch64: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER := qemu-aarch64 -L /usr/aarch64-linux-gnu
test-aarch64:
	@$(if $(shell command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64),,\
		$(error Install gcc-aarch64-linux-gnu and qemu-user, then run make $@ again))
	rustup target add $(AARCH64)
	cargo test --quiet --locked --target $(AARCH64)

# The core's tests with the portable kernel under Miri, which finds undefined behaviour. Miri comes only
# with nightly Rust, so CI does not run this: run it where `unsafe` has changed. Valgrind would see less, since a vector that
# is read beyond its end within its capacity is no error to it.
miri: export MIRIFLAGS := -Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-deterministic-floats \
	-Zmiri-tree-borrows -Zmiri-permissive-provenance
miri: export PROPTEST_CASES := 2
miri:
	@$(if $(shell cargo +nightly miri --version 2>/dev/null),,\
		$(error Install Miri (rustup toolchain install nightly --component miri,rust-src), then run make $@ again))
	cargo +nightly miri test --quiet --locked --lib --tests

bench: env
	$(BIN)/python -m pip install --quiet --no-deps --requirement benches/peers/requirements.txt
	$(BIN)/python benches/peers/results.py

# The methods beside the same models of other libraries, each in an environment of its own that shares this torch.
PEERS := cornac recbole rectools
CONFORMANCE := benches/conformance
environment_of = target/conformance/$(1)/packages-$(call hash,$(CONFORMANCE)/requirements-$(1).txt constraints.txt)
PEER_ENVIRONMENTS := $(foreach peer,$(PEERS),$(call environment_of,$(peer)))
conformance: env $(PEER_ENVIRONMENTS)
	nice $(BIN)/python $(CONFORMANCE)/results.py

$(PEER_ENVIRONMENTS): | env
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement $(CONFORMANCE)/requirements-$(notdir $(@D)).txt
	$(BIN)/python $(CONFORMANCE)/share_torch.py $(@D)
	@touch $@

# One wheel for every Python from 3.11 on.
wheel: env
	rm -rf dist
	$(BIN)/maturin build --release --locked --out dist
	ls dist/*-cp311-abi3-*.whl

env: $(PROJECT)

$(PROJECT): $(PACKAGES) | tools
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable . --editable cli
	@rm -f .venv/project-* && touch $@

$(PACKAGES): | tools
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^pip==' constraints.txt)
	$(BIN)/python -m pip install --no-deps --build-constraint constraints.txt --requirement constraints.txt
	@rm -f .venv/packages-* && touch $@

# Where a tool is missing, make ends with one line that says what to install.
missing = $(shell \
	test -n '$(PYTHON)' || { echo 'Python 3.11 or newer with its venv module'; exit; }; \
	printf '%s\n' $(RUST_VERSION) "$$(rustc --version 2>/dev/null | cut -d' ' -f2)" | sort -VC && \
		command -v cargo >/dev/null || { echo 'Rust $(RUST_VERSION) or newer (https://rustup.rs)'; exit; }; \
	command -v cc >/dev/null || echo 'a C compiler named cc (gcc or clang)')
tools:
	@$(if $(missing),$(error Install $(missing), then run make again))

clean:
	rm -rf .venv target dist cli/build python/langptune_rs/_core*.so .pytest_cache .ruff_cache .hypothesis
	find python cli tests -name __pycache__ -type d -prune -exec rm -rf {} +
