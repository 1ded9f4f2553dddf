# The tasks of this repository. `make help` lists them; cargo needs none of this.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SUFFIXES:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

CARGO := cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
AGRPO := $(TARGET)/debug/agrpo

# Only recipes that need libtorch ask for its folder; it is fetched once.
with_libtorch = infra/need.sh build; LIBTORCH="$$(python3 infra/fetch.py libtorch)"; export LIBTORCH
# Test programs of a library have no run path, so LD_LIBRARY_PATH names the folder of the real files.
with_libtorch_path = $(with_libtorch); \
	libtorch_lib="$$(dirname "$$(realpath "$$LIBTORCH/lib/libtorch_cpu.so")")"; \
	export LD_LIBRARY_PATH="$$libtorch_lib$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}"
with_run_file = infra/run_file.sh "$${RUN:-}"

#> Train
#>   make run RUN=countdown      on this machine, without any service; the same command resumes
#>   make enqueue RUN=countdown  queue the run for workers, through Redis and an S3 bucket
#>   make worker                 compute what is queued, until stopped, on all cores
#>   make up, make down          Redis and SeaweedFS on this machine; stopping them keeps their data
.PHONY: run enqueue worker up down
run:
	@file="$$($(with_run_file))"
	$(MAKE) build
	exec $(AGRPO) run "$$file" $(ARGS)

enqueue:
	@file="$$($(with_run_file))"
	$(MAKE) build
	exec infra/services.py exec $(AGRPO) enqueue "$$file" $(ARGS)

worker: build
	@exec infra/services.py exec $(AGRPO) worker $(ARGS)

up down:
	@exec infra/services.py $@

#> Measure
#>   make compare                estimators on Countdown and Sudoku, three seeds, into docs/comparison; about an hour and
#>                               30 GB in the store (AGRPO_STORE=DIR, else .agrpo); ARGS applies to agrpo compare only
#>   make bench                  throughput on one thread and on all cores, beside the rate of this machine's products
#>   make memory                 peak memory of stages of a 100M model, beside the formula; two minutes
#>   make simulate               what scheduling costs: up to 200,000 stages and 1,000 workers, through Redis and S3
#>   make gpu                    a GPU's determinism, parity, replay and speed beside PyTorch's, under 6 minutes, into
#>                               GPU_JSON=FILE.json and a page beside it; needs a CUDA build of libtorch 2.11.0
#>                               (AGRPO_LIBTORCH=DIR, else python3's torch); GPU_BENCH=PROGRAM skips the build; docs/gpu.md
#>   make gpu-program            target/gpu/agrpo.xz, the program for a machine that builds nothing: GPU_BENCH=target/gpu/agrpo.xz
.PHONY: compare bench memory simulate gpu gpu-program
compare: build
	@if [[ " $(ARGS)" == *" --store"* ]]; then
	    echo "error: ARGS=--store reaches agrpo compare alone; name the store for all of it: make compare AGRPO_STORE=DIR" >&2
	    exit 2
	fi
	for task in countdown sudoku; do
	    $(AGRPO) compare "jobs/runs/compare/$$task.toml" --output docs/comparison $(ARGS)
	    base="$$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["variants"][0]["runs"][0]["run"])' "docs/comparison/$$task.json")"
	    $(AGRPO) tune "$$base" --iteration base --k 1,2,4,8,24 --repeats 32 --plot "docs/comparison/variance-$$task.svg" > "docs/comparison/variance-$$task.txt"
	    run="$$($(AGRPO) run "jobs/runs/$$task.toml" | awk '$$1 == "run" { print $$2 }')"
	    $(AGRPO) evaluate "$$run" --plot "docs/comparison/steps-$$task.svg" > "docs/comparison/steps-$$task.txt"
	done

bench:
	@$(with_libtorch_path)
	$(CARGO) bench --profile dev --locked --package agrpo-compute --bench throughput -- $(ARGS)
	$(CARGO) bench --profile dev --locked --package agrpo-compute --bench choice

DEVICE := cuda:0
gpu:
	@if [[ -z "$${GPU_BENCH:-}" ]]; then $(MAKE) build; fi
	DEVICE="$(DEVICE)" infra/gpu.sh "$${GPU_BENCH:-$(abspath $(AGRPO))}" $(ARGS)

# In the checkout wherever the target folder is, so that one path is right on both machines.
GPU_PROGRAM := target/gpu/agrpo
gpu-program: release
	@mkdir -p "$(dir $(GPU_PROGRAM))"
	cp "$(TARGET)/release/agrpo" $(GPU_PROGRAM)
	strip $(GPU_PROGRAM)
	infra/gpu.sh --pack $(GPU_PROGRAM)

memory:
	@$(with_libtorch_path)
	$(CARGO) bench --profile dev --locked --package agrpo-compute --bench memory -- $(ARGS)

simulate:
	@infra/need.sh redis-server > /dev/null
	AGRPO_WEED="$$(infra/fetch.py seaweedfs)"; export AGRPO_WEED
	$(CARGO) bench --profile dev --locked --package agrpo-fleet --bench scheduler -- $(ARGS)

#> Build
#>   make build                  target/debug/agrpo, which the other targets share; fetches libtorch the first time
#>   make release                target/release/agrpo, to install elsewhere: whole-program optimisation, no debug information
#>   make setup                  fetch and install everything now, to work without a network later
.PHONY: build release setup
build:
	@$(with_libtorch)
	$(CARGO) build --locked

release:
	@$(with_libtorch)
	$(CARGO) build --release --locked

setup:
	@$(with_libtorch)
	infra/need.sh redis-server > /dev/null
	infra/need.sh chromedriver > /dev/null
	infra/fetch.py seaweedfs > /dev/null
	$(CARGO) fetch --locked

#> Verify
#>   make test                   all tests, against a real Redis, a real S3 server and a real browser
#>   make check                  format, lints, docs, licences, house rules, units; .ci/run runs it before the tests
#>   make fault                  workers, Redis and S3 killed, stalled, cut off and damaged, each way alone and in mixes;
#>                               SEED=N for other moments, FAULT=NAME for one of them; docs/faults.md
#>   make soak                   SCHEDULES=200 random mixes, PARALLEL=4 at a time, SEED=N; FIRST=17 SCHEDULES=1 repeats one
#>   make fuzz [N=1000000]       damaged bytes for every decoder, with limits on what it allocates; SEED=1; fuzz/README.md
#>   make golden [GOLDEN=DIR]    compare with the reference's tensors, ours or a folder of the same layout
#>   make advisories             known vulnerabilities of dependencies (needs cargo-deny and its database)
#>   make guide                  the documents as a book, target/guide/index.html (needs mdbook)
#>   make pictures               screenshots of the browser tests, into docs/images
.PHONY: test fault soak check fuzz format clippy docs guide licences laws units golden advisories pictures
test:
	@infra/need.sh redis-server > /dev/null
	infra/need.sh chromedriver > /dev/null
	AGRPO_WEED="$$(infra/fetch.py seaweedfs)"; export AGRPO_WEED
	$(with_libtorch_path)
	# Half of the tests wait for servers most of the time. A container may have fewer cores than it sees.
	export RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$$(($$(nproc) < 8 ? 2 * $$(nproc) : 16))}"
	$(CARGO) test --locked --workspace --no-fail-fast $(ARGS)

pictures:
	@$(MAKE) test ARGS="--test it browser"
	for picture in live live-360 viewer failure failure-360 report report-360; do
	    cp "$(TARGET)/tmp/pictures/$$picture.png" docs/images/
	done

N := 1000000
fuzz:
	@$(with_libtorch_path)
	$(CARGO) bench --profile dev --locked --package agrpo-decoders --bench decoders -- --count $(N) --seed $(or $(SEED),1) $(ARGS)

with_faults = infra/need.sh redis-server > /dev/null; AGRPO_WEED="$$(infra/fetch.py seaweedfs)"; export AGRPO_WEED; \
	$(with_libtorch_path); export SEED="$${SEED:-}" SCHEDULES PARALLEL FIRST
FAULTS := $(TARGET)/fault
fault:
	@$(with_faults)
	export SEED="$${SEED:-1}"
	echo "make fault: seed $$SEED; repeat it with: make fault SEED=$$SEED FAULT=NAME"
	rm -f $(FAULTS)/last.log
	ended=0
	$(CARGO) test --locked --test it "fault::$(FAULT)" -- --ignored --skip fault::soak --test-threads "$${PARALLEL:-6}" $(ARGS) || ended=$$?
	[[ ! -e $(FAULTS)/last.log ]] || grep -v '^begin ' $(FAULTS)/last.log
	exit $$ended

soak:
	@$(with_faults)
	export SEED="$${SEED:-$$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}"
	rm -f $(FAULTS)/last.log
	ended=0
	$(CARGO) test --locked --test it fault::soak -- --ignored --nocapture || ended=$$?
	mkdir -p $(TARGET)/soak; mv $(FAULTS)/last.log "$(TARGET)/soak/$$SEED.log"; echo "$(TARGET)/soak/$$SEED.log"
	exit $$ended

guide:
	@if ! mdbook --version > /dev/null 2>&1; then
	    echo "error: mdbook is not installed; get it with: cargo install --locked mdbook (about two minutes)" >&2
	    exit 1
	fi
	mdbook build docs --dest-dir "$(abspath $(TARGET))/guide"
	echo $(TARGET)/guide/index.html

check: format licences laws units clippy docs

format:
	@$(CARGO) fmt --all --check

clippy:
	@$(with_libtorch)
	$(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

docs:
	@$(with_libtorch)
	RUSTDOCFLAGS="--deny warnings" $(CARGO) doc --locked --workspace --no-deps

licences:
	@python3 infra/licences.py
	if $(CARGO) deny --version > /dev/null 2>&1; then $(CARGO) deny --locked --log-level error check bans licenses sources; fi

laws:
	@python3 infra/laws.py
	python3 infra/imports.py --self-test
	python3 infra/imports.py
	python3 infra/house.py --check

units:
	@infra/units.sh

golden:
	@if [[ -n "$${GOLDEN:-}" ]]; then
	    [[ -d "$$GOLDEN" ]] || { echo "error: GOLDEN=$$GOLDEN is no folder" >&2; exit 2; }
	    AGRPO_GOLDEN="$$(realpath "$$GOLDEN")"; export AGRPO_GOLDEN
	fi
	$(with_libtorch_path)
	log="$$(mktemp)"; trap 'rm -f "$$log"' EXIT
	$(CARGO) test --locked --test it golden -- $(ARGS) | tee "$$log"
	grep -qE '^test result: ok\. [1-9]' "$$log" || { echo "error: no golden test ran" >&2; exit 1; }

advisories:
	@if ! $(CARGO) deny --version > /dev/null 2>&1; then
	    echo "error: cargo-deny is not installed; get it with: cargo install --locked cargo-deny (about four minutes)" >&2
	    exit 1
	fi
	$(CARGO) deny --locked check advisories

#> Run files (RUN=x means jobs/runs/x.toml)
.PHONY: help
help:
	@echo "agrpo: reinforcement learning for diffusion language models, replayable to the bit"
	echo
	sed -n 's/^#> \?//p' $(firstword $(MAKEFILE_LIST))
	infra/run_file.sh --list
	echo
	echo "ARGS=... is passed on, as in: make run RUN=smoke ARGS='--workers 1'"
