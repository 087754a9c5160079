# Thin: what these do is in scripts/ and CMakePresets.json.

DEMO_BUDGET ?= 80MB
DEMO_OUT = demo/SmolLM2-135M-Instruct-$(DEMO_BUDGET)
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
SLUICE = build/release/bin/sluice

.PHONY: demo build test sanitize standin mlx fuzz lint format clean

# From a fresh machine to a real model, fitted to a budget, proven, and answering.
demo: build
	@rm -rf $(DEMO_OUT) $(DEMO_OUT).partial $(DEMO_OUT).journal
	@model=$$(scripts/demo_model) && \
	  set -x && \
	  $(SLUICE) fit "$$model" --budget $(DEMO_BUDGET) -o $(DEMO_OUT) && \
	  $(SLUICE) verify "$$model" $(DEMO_OUT) && \
	  $(SLUICE) run $(DEMO_OUT) -p "What is the capital of France?" --temp 0 -n 60

# The program alone, in build/release/bin/sluice.
build:
	@scripts/setup build
	@mkdir -p build && cmake --preset release >build/release.log 2>&1 || { cat build/release.log; exit 1; }
	@cmake --build --preset release --parallel $(JOBS)

# Everything a change must pass before it is committed.
test:
	@scripts/setup test
	@scripts/demo_model >/dev/null
	@scripts/check tests format lint

sanitize:
	@scripts/setup test
	@scripts/check asan-ubsan tsan

# clang with libc++: what a Mac's compiler would say.
standin:
	@scripts/setup test
	@scripts/check mac-standin

# The GPU back-end, over MLX's library for processors.
mlx:
	@scripts/setup test
	@scripts/check mlx

fuzz:
	@scripts/setup test
	@scripts/check fuzz

lint:
	@scripts/lint --all

format:
	@scripts/format

clean:
	rm -rf build
