# make run   sets up .venv and trains the first model on the embedded digits
# make test  sets up what the tests need and runs them
# make replay BASE=main   the same short runs on that commit and on the files here, compared bit for bit (ONLY='lif|sdt')
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint replay clean

run: .venv/ready
	$(BIN)/python main.py --model spikformer --attention statten

test: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

replay: .venv/ready
	$(BIN)/python -m benchmarks.replay $(BASE) --only '$(ONLY)'

.venv/ready: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . -c constraints.txt
	touch $@

.venv/ready-test: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
