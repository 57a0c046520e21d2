# make run   sets up .venv and trains the first model on the embedded digits
# make test  sets up what the tests need and runs them
# make sanitize   the CPU kernels' tests with AddressSanitizer and UndefinedBehaviorSanitizer (needs g++)
# make replay BASE=main   the same short runs on that commit and on the files here, compared bit for bit (ONLY='lif|sdt')
PYTHON ?= python3
BIN := .venv/bin
SANITIZED := tests/kernels/node/test_cpu.py tests/kernels/norm_node/test_cpu.py tests/kernels/norm_node/test_cpu_channels_last.py \
	tests/kernels/spike_bits tests/kernels/spike_conv/test_op.py tests/kernels/spike_conv/test_fire.py tests/plan

.PHONY: run test lint sanitize replay clean

run: .venv/ready
	$(BIN)/python main.py --model spikformer --attention statten

test: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The sanitizers' libraries must come before all others; Python itself never frees all that it has.
sanitize: .venv/ready-test
	CXX="g++ -fsanitize=address,undefined -fno-sanitize-recover=all" \
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	ASAN_OPTIONS=detect_leaks=0 XDG_CACHE_HOME=$$(mktemp -d) OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -n 2 $(SANITIZED)

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
