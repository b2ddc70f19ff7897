# Thin wrappers: the same lines stand in README.md for those without make.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
RECORD ?= proof.json

.PHONY: install demo test test-fast test-long check power-loss sanitize sanitize-shapes load machines proof proof-record messages fuzz docs clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements-dev.txt
	-$(RUN) -m utils.compiled
	touch $@

demo: install
	$(RUN) compare.py --cfg yolov5n.yaml yolov5n-AKConv.yaml yolov5n-AKConv-modulated4.yaml --data shapes.yaml --hyp hyp.demo.yaml --optimizer AdamW --imgsz 192 --batch-size 8 --epochs 16 --seeds 0 1 --name demo

test: install
	$(RUN) -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder

# The inner loop: under 90 seconds on two cores.
test-fast: install
	$(RUN) -m pytest -m "not long and not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-long: install
	AKCONV_CASES=2000 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(MAKE) test

# Runs lose power, and go on from every disk state that may be left. It may be stopped: called again it goes on where it
# was, with what it keeps in memory for the present code.
power-loss: install
	$(RUN) -m tests.fault_injection.power_loss

# The kernels in C under gcc's address and undefined-behaviour sanitizers. Python itself is not instrumented, so the
# libraries are preloaded; leaks are not searched for, because the interpreter frees nothing at its end. Output is
# captured in Python only (--capture=sys): a report goes straight to file descriptor 2, and the process then ends.
sanitize: export AKCONV_CFLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1
sanitize: export ASAN_OPTIONS = detect_leaks=0
sanitize: export OMP_NUM_THREADS = 2
sanitize: install
	preload="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"; \
	CC=gcc LD_PRELOAD="$$preload" $(RUN) -m utils.compiled && \
	LD_PRELOAD="$$preload" $(RUN) -m pytest -m "kernels and not long" --capture=sys

# The same kernels called from C with random, small and huge shapes, also under the thread sanitizer: about ten minutes.
SEED ?= 0
COUNT ?= 20000
sanitize-shapes: install
	$(RUN) -m tests.sanitizers --seed $(SEED) --count $(COUNT)

# Two machines as network namespaces, with a link that delays, loses and is cut; needs root.
machines: install
	$(RUN) -m pytest tests/fault_injection/test_machines.py

# Threads, clients, streams and many images, in about 40 minutes; tests/studies/load.py. `page` needs requirements-app.txt.
load: install
	$(RUN) -m tests.studies.load

# Mutated inputs of every kind, see tests/fuzz. FUZZ_SEED=1 makes others; an interrupted run continues. Results: runs/fuzz.
fuzz: install
	$(RUN) -m tests.fuzz

# Before a refactor `make proof-record`, after each step `make proof`: the same bits. See tests/studies/refactor_proof.py.
proof-record: install
	$(RUN) -m tests.studies.refactor_proof record $(RECORD)

proof: install
	$(RUN) -m tests.studies.refactor_proof check $(RECORD)

# After a message has changed: tests/messages.txt lists the wording of all of them.
messages: install
	$(RUN) -m tests.helpers.messages

.PHONY: audit guards gates
# The licences of the installed packages, then their known vulnerabilities. Without access to the vulnerability service,
# or for packages that it does not know, this fails: what was not looked up must not count as safe.
audit: install $(VENV)-audit/.installed
	$(VENV)-audit/bin/pip-licenses --python $(RUN) --order license
	$(VENV)-audit/bin/pip-audit --strict --progress-spinner off --timeout 10 \
		--path "$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		|| { echo "audit: packages are vulnerable, or could not be looked up (see above)" >&2; exit 1; }

$(VENV)-audit/.installed:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit pip-licenses
	touch $@

# Removes the guards of the program one at a time, in a copy; each must turn a test red. See tests/studies/guards.txt.
guards: install
	$(RUN) -m tests.studies.guards

# Mistakes of users, hostile files without a network, and data sets that no command may change.
gates: install
	$(RUN) -m pytest --no-loadscope-reorder tests/fault_injection/test_user_mistakes.py tests/fault_injection/test_hostile_files.py tests/fault_injection/test_untouched_data.py

# The pages of docs/ as a site in site/. mkdocs gets an environment of its own.
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build

$(VENV)-docs/.installed: requirements-docs.txt
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --requirement requirements-docs.txt
	touch $@

clean:
	rm -rf runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis
