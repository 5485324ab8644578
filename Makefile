# Every target sets up what it needs by itself; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo chat test check train learn-demo bench pictures clean

demo: $(READY)  ## a conversation with the bot, then yours
	@$(BIN)/python -m bot chat --play bot/demo.txt

chat: $(READY)  ## the bot in this terminal
	@$(BIN)/python -m bot chat

test: $(READY)  ## everything that the README promises
	$(BIN)/python -m pytest

check: $(READY)  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy alembic
	$(BIN)/lint-imports

train: $(READY)  ## the bundled reader, trained further on the sample: a new checkpoint in a minute or two
	$(BIN)/python -m trainer

learn-demo: $(READY)  ## 30 corrections in chat become a checkpoint that answers them: figures before and after
	$(BIN)/python benchmarks/learning.py

bench: $(READY)  ## speed beside other readers, beside the machine's limit, and on long documents: make bench DATA=FILE
	$(BIN)/python -m benchmarks.serving $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.limit $(if $(DATA),--data $(DATA))
	$(BIN)/python -m benchmarks.long_documents $(if $(DATA),--data $(DATA))

pictures: $(READY)  ## conversations with the real bot, played and drawn into docs/pictures (needs Chromium)
	$(BIN)/python -m docs.pictures.record $(NAME)
	$(BIN)/python -m docs.pictures.render $(NAME)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,postgres]'
	@touch $@

clean:  ## the environment and all caches; data in var/ and checkpoints/ stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
