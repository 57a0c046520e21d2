# make run   sets up .venv and trains the first model on the embedded digits
# make test  sets up what the tests need and runs them
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint clean

run: .venv/ready
	$(BIN)/python main.py --model spikformer --attention statten

test: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.venv/ready: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . -c constraints.txt
	touch $@

.venv/ready-test: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
