# Thin wrappers: the same lines stand in README.md for those without make.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: install demo test test-long check clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements-dev.txt
	-$(RUN) -m utils.native
	touch $@

demo: install
	$(RUN) compare.py --cfg yolov5n.yaml yolov5n-AKConv.yaml --data shapes.yaml --hyp hyp.demo.yaml --optimizer AdamW --imgsz 192 --batch-size 8 --epochs 16 --name demo

test: install
	$(RUN) -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder

test-long: install
	AKCONV_CASES=2000 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(MAKE) test

clean:
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
