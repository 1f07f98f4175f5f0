# The only commands to know; `make help` lists them. Shell scripts in tests/ do the work.

# The server to build for, run and install into. The default is also cargo's: .cargo/config.toml.
PG_CONFIG ?= $(or $(shell command -v pg_config),/usr/bin/pg_config)
export PG_CONFIG
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG)
# Variables of the demo, when given on make's command line.
export QUERIES KEEP

# Evaluated in recipes, after set-up has installed the server.
PG_MAJOR = $(shell $(PG_CONFIG) --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
FEATURES = $(if $(filter-out 15,$(PG_MAJOR)),--no-default-features --features pg$(PG_MAJOR))
PG_REGRESS = $(dir $(shell $(PG_CONFIG) --pgxs))../test/regress/pg_regress
# Benches, packages and installations have `release`; tests have `checked`, see Cargo.toml.
PROFILE = release
test test-long test-pgvector test-export fuzz gallery-test: PROFILE = checked
CARGO_OUTPUT = $(or $(CARGO_TARGET_DIR),$(CARGO_BUILD_TARGET_DIR),target)
export IMGVEC_PROFILE = $(PROFILE)
REGRESS_TESTS = $(basename $(notdir $(sort $(wildcard tests/pg_regress/sql/*.sql))))

.PHONY: help
help:
	@echo 'make demo [PHOTOS=dir]  embed pictures in a private server, search them, write target/demo/index.html'
	@echo '                        QUERIES="a, b" searches for other words, KEEP=1 leaves the server running'
	@echo 'make gallery [PHOTOS=dir]  search and sort pictures in the browser; PORT=n, DATABASE_URL=... for a server of your own'
	@echo 'make gallery-test       the gallery in a real browser; writes its screenshots to target/gallery'
	@echo 'make test               everything: crates, SQL, throw-away clusters, with debug assertions and overflow checks'
	@echo 'make test T=name        only tests whose names contain this; PROFILE=release tests what is shipped'
	@echo 'make test-long          200 crashes, millions of scans and inserts: about an hour'
	@echo 'make test-pgvector      the tests of pgvector, ported to imgvec and ann'
	@echo 'make test-export        models/export.py against torch, which it fetches'
	@echo 'make test-matrix        everything on PostgreSQL 15, 17 and 18, in chroots where needed, and pg_upgrade between two'
	@echo '                        of them with live indexes; VERSIONS="17 upgrade" is a part'
	@echo 'make check-versions     compile for 14, 16, 17 and 18'
	@echo 'make build              compile the extension'
	@echo 'make install            copy it into the server of PG_CONFIG; DESTDIR as usual'
	@echo 'make deb                a Debian package for the server of PG_CONFIG, in target/deb; DEB_MAINTAINER="Name <address>"'
	@echo 'make deb-check          installs it in a clean chroot and runs the SQL tests there'
	@echo 'make installcheck       SQL tests against the running server that PGHOST, PGPORT, PGUSER name'
	@echo 'make bench              speed and memory of the encoder, recall and speed of the index, scores of the starter model'
	@echo 'make bench-index        the index alone, beside pgvector where the server has it (tests/chroot.sh)'
	@echo 'make bench-crossover    from how many rows on the index is cheaper than the table, and where the planner takes it'
	@echo 'make fuzz [CASES=n]     property tests with many random cases; pages, packages and pictures with damage'
	@echo 'make lint               format, clippy, licences'
	@echo 'make setup              install what is missing (the others do that by themselves)'
	@echo 'make clean              remove everything built'
	@echo 'PG_CONFIG=path/to/pg_config selects a server, 14 to 18; now $(PG_CONFIG)'

.PHONY: setup
setup:
	@tests/setup.sh

.PHONY: all
all: build

.PHONY: build
build: setup
	cargo build --profile $(PROFILE) $(FEATURES)

.PHONY: stage
stage: build
	@tests/stage.sh

.PHONY: demo
demo:
	@tests/setup.sh demo
	cargo build --profile $(PROFILE) $(FEATURES) --lib
	cargo build --profile $(PROFILE) -p imgvec-demo
	@set -e; stage=$$(tests/stage.sh); \
	IMGVEC_STAGE=$$stage $(CARGO_OUTPUT)/$(PROFILE)/demo $(if $(PHOTOS),"$(PHOTOS)")

# The demo and the gallery are packages of their own, so the library is compiled once for both. The gallery reads DATABASE_URL, MODELS, MODEL_PATH and PORT.
.PHONY: gallery
gallery:
	@tests/setup.sh gallery
	cargo build --profile $(PROFILE) $(FEATURES) --lib
	cargo build --profile $(PROFILE) -p imgvec-gallery
	@set -e; stage=$$(tests/stage.sh); \
	IMGVEC_STAGE=$$stage $(CARGO_OUTPUT)/$(PROFILE)/gallery $(if $(PHOTOS),"$(PHOTOS)")

# The gallery in Chromium, on its sample pictures, with screenshots.
.PHONY: gallery-test
gallery-test:
	@tests/setup.sh browser
	cargo build --profile $(PROFILE) $(FEATURES) --lib
	cargo test --profile $(PROFILE) -p imgvec-gallery --no-run
	@set -e; stage=$$(tests/stage.sh); \
	IMGVEC_STAGE=$$stage IMGVEC_SCREENSHOTS=$(CURDIR)/target/gallery IMGVEC_REQUIRE_BROWSER=1 \
		cargo test --profile $(PROFILE) -p imgvec-gallery -- --nocapture

# Tests find the extension in a private copy of the server, see tests/stage.sh.
.PHONY: test
test: build
	@tests/setup.sh test
	cargo test --profile $(PROFILE) --workspace --no-run $(FEATURES)
	@set -e; stage=$$(tests/stage.sh); export IMGVEC_STAGE=$$stage IMGVEC_REQUIRE_PGBOUNCER=1 $(if $(filter checked,$(PROFILE)),IMGVEC_REQUIRE_FAULTS=1); \
	export IMGVEC_ONNXRUNTIME=$(CURDIR)/target/onnxruntime/libonnxruntime.so; \
	tests/run-tests.sh "$(T)" cargo test --profile $(PROFILE) --workspace --no-fail-fast $(FEATURES)

# The tests that gain from time: 200 kills at random moments, a million scans and a million inserts in one statement.
.PHONY: test-long
test-long: build
	cargo test --profile $(PROFILE) --test server --no-run $(FEATURES)
	@set -e; stage=$$(tests/stage.sh); \
	IMGVEC_FAULTS=all IMGVEC_CRASH_CYCLES=200 IMGVEC_RESCANS=1000000 IMGVEC_COPY_ROWS=1000000 IMGVEC_CONCURRENCY_SECONDS=300 \
	IMGVEC_PIPELINE_TABLES=1000 IMGVEC_MIGRATION_ROWS=20000 \
	IMGVEC_STAGE=$$stage IMGVEC_ONNXRUNTIME=$(CURDIR)/target/onnxruntime/libonnxruntime.so \
		cargo test --profile $(PROFILE) --test server $(FEATURES) -- ann::crash ann::faults ann::memory ann::concurrency pipeline::crash pipeline::migrate pipeline::limits

# pgvector's own tests, ported; their files are fetched from Debian's sources. Wants Perl's IPC::Run for half of them.
.PHONY: test-pgvector
test-pgvector: build
	@[ -d target/pgvector/test ] || tests/debian-source.sh pgvector target/pgvector testing trixie
	@perl -MIPC::Run -e 1 2>/dev/null || tests/setup.sh pgvector
	cargo test --profile $(PROFILE) --test server --no-run $(FEATURES)
	@set -e; stage=$$(tests/stage.sh); mkdir -p $$stage/pgvector; cp -r target/pgvector/test $$stage/pgvector; \
	IMGVEC_STAGE=$$stage IMGVEC_PGVECTOR_SOURCE=$$stage/pgvector IMGVEC_REQUIRE_PGVECTOR_SOURCE=1 \
		cargo test --profile $(PROFILE) --test server $(FEATURES) -- --nocapture ported

# models/export.py: packages that it makes of small models give what torch gives. Fetches torch and transformers: gigabytes.
.PHONY: test-export
test-export: setup target/export/complete
	IMGVEC_EXPORT_PYTHON=$(CURDIR)/target/export/bin/python IMGVEC_REQUIRE_EXPORT=1 \
	IMGVEC_ONNXRUNTIME=$(CURDIR)/target/onnxruntime/libonnxruntime.so \
		cargo test --profile $(PROFILE) -p imgvec-encoder --test model_export -- --nocapture

target/export/complete: Makefile
	@tests/setup.sh bench
	python3 -m venv target/export
	target/export/bin/pip install --quiet torch transformers onnx onnxruntime==1.32.0
	touch $@

# The same on other servers: this machine's, and those of other Debian releases in chroots; then pg_upgrade from this
# machine's to a newer one. Needs root.
VERSIONS ?= 15 17 18 14 16 upgrade
.PHONY: test-matrix
test-matrix:
	@tests/matrix.sh $(VERSIONS)

# Compiles for versions that are not here: 16 against the headers of a Python wheel, the others against the bindings that pgrx ships.
COMPILED ?= 14 16 17 18
.PHONY: check-versions
check-versions: setup
	@tests/check-versions.sh $(COMPILED)

# Root may have no cargo: then what `make build` left is installed.
.PHONY: install
install:
	@if command -v cargo >/dev/null; then $(MAKE) --no-print-directory build; fi
	tests/install.sh "$(DESTDIR)"

.PHONY: deb
deb: build
	@tests/setup.sh deb
	tests/deb.sh

# Installs that package in a clean chroot of this Debian, runs the SQL tests there, uses and removes it; root.
.PHONY: deb-check
deb-check: deb
	tests/deb-check.sh

.PHONY: installcheck
installcheck:
	$(PG_REGRESS) --bindir='$(shell $(PG_CONFIG) --bindir)' --inputdir=tests/pg_regress \
		--outputdir=target/installcheck --dbname=contrib_regression --load-extension=imgvec $(REGRESS_TESTS)

# A CLIP-sized model for the server's part is made once, beside the stage, where the server may read it.
.PHONY: bench
bench: build target/bench/venv/complete
	cargo bench --workspace --no-run $(FEATURES)
	@set -e; stage=$$(tests/stage.sh); model=$$stage/bench/clip-b32; \
	[ -e "$$model/tokenizer.json" ] || target/bench/venv/bin/python benches/clip_b32.py "$$model"; \
	IMGVEC_STAGE=$$stage IMGVEC_CLIP_B32=$$model IMGVEC_ONNXRUNTIME=$(CURDIR)/target/onnxruntime/libonnxruntime.so \
		cargo bench --workspace $(FEATURES)
	@if [ -e ../shared/data/starter-corpus/test.parquet ]; then \
		target/bench/venv/bin/python models/starter/training/evaluate.py --cache target/bench/starter; \
	else echo 'make bench: SKIPPED the starter model: its held-out pictures, ../shared/data/starter-corpus, are not here' >&2; fi

# The index alone. Options: benches/README.md.
export ROWS SETS COUNT VECTORS PHOTOS HALFVEC HNSW_ROWS
.PHONY: bench-index
bench-index: build
	cargo bench --bench index --no-run $(FEATURES)
	@set -e; stage=$$(tests/stage.sh); IMGVEC_STAGE=$$stage cargo bench --bench index $(FEATURES)

# From how many rows on a search by the index is cheaper than one by the table, and where the planner's crossover is.
.PHONY: bench-crossover
bench-crossover: build
	cargo bench --bench crossover --no-run $(FEATURES)
	@set -e; stage=$$(tests/stage.sh); IMGVEC_STAGE=$$stage cargo bench --bench crossover $(FEATURES)

target/bench/venv/complete: Makefile
	@tests/setup.sh bench
	python3 -m venv target/bench/venv
	target/bench/venv/bin/pip install --quiet numpy onnx onnxruntime==1.32.0 pillow pyarrow tokenizers
	touch $@

CASES ?= 100000
SEED ?= $(shell date +%s)
.PHONY: fuzz
fuzz:
	PROPTEST_CASES=$(CASES) IMGVEC_FUZZ_CASES=$(CASES) IMGVEC_FUZZ_SECONDS=600 IMGVEC_FUZZ_SEED=$(SEED) \
		cargo test --profile $(PROFILE) -p imgvec-vector -p imgvec-ann -p imgvec-encoder -p imgvec-library --lib \
		--test damaged --test image_hostile --test image_mutated --test package_hostile --test sequences --test bounds --test search_order

.PHONY: lint
lint: setup
	cargo fmt --all --check
	cargo clippy --profile checked --workspace --all-targets $(FEATURES) -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --workspace check bans licenses sources; \
	else echo 'lint: cargo-deny is not installed; skipped: cargo deny check (cargo install cargo-deny)'; fi
	@if command -v hadolint >/dev/null; then hadolint --failure-threshold warning Dockerfile; \
	else echo 'lint: hadolint is not installed; skipped: Dockerfile'; fi

.PHONY: clean
clean:
	tests/stage.sh --remove
	cargo clean
