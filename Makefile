# make train    install everything and train CartPole       ARGS="--seed 1" adds options
# make play     install everything and play inside an agent's dream, in the browser    ARGS="--example cartpole_pixels"
# make test     install everything, lint, check the types, run the tests
# make quick    the tests of math, nets and agent, and one training: about 90 seconds, the first time three minutes
# make quick-newest    the same on Python 3.12 and 3.13, with the newest versions of all packages
# make learn    install the wheel elsewhere, train CartPole, fail unless it is solved (CI runs this after the tests)
# make test-envs    for every suite of environments: install its package, run its tests and a short training
# make notebooks    run the notebooks and store their outputs; then: .venv/bin/jupyter lab notebooks
# make lint     only ruff and pyright           make format   format the code with ruff
# make setup    only install                    make clean    remove the virtual environments and all caches
# make lock     update constraints.txt after a change of the dependencies
#
# A GPU or TPU: make train BACKEND=cuda (or rocm, tpu). Another Python: make train PYTHON=python3.12

PYTHON  ?= python3
VENV    ?= .venv
BACKEND ?= auto
ARGS    ?=

python := $(VENV)/bin/python
install = $(python) -m pip install --disable-pip-version-check --quiet
plugin := $(filter cuda rocm tpu,$(BACKEND))
options = $(if $(filter-out auto,$(BACKEND)),--backend $(BACKEND)) $(ARGS)
# One stamp for each extra of pyproject.toml: it is newer than the files it was installed from.
runtime := $(VENV)/.installed$(addprefix -,$(plugin))
dev     := $(VENV)/.installed-dev

suites := atari box2d brax bsuite craftax crafter dmc gymnax memory-maze minigrid mujoco popgym

quick  := tests/math tests/nets tests/agent tests/training/test_loop.py::test_the_same_seed_gives_the_same_run
newest := 3.12 3.13

.PHONY: train play test quick quick-newest test-envs learn notebooks lint format setup lock clean
.DEFAULT_GOAL := train

train: $(runtime)
	$(python) run.py --env cartpole $(options)

play: $(runtime)
	$(python) run.py play $(or $(ARGS),--example cartpole)

test: lint
	$(python) -m pytest -n 2 --dist worksteal

quick: $(dev)
	$(python) -m pytest -n 2 --dist worksteal $(quick)

# With the newest versions of all packages instead of the lock. A Python that is not installed is skipped.
quick-newest: $(addprefix quick-newest-,$(newest))

quick-newest-%:
	@for each in python$* $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$*.*/bin/python$*; do \
	if "$$each" -c "" 2>/dev/null; then found="$$each"; break; fi; done; \
	if [ -z "$$found" ]; then echo "Python $* is not installed: skipped."; exit 0; fi; set -ex; \
	"$$found" -m venv --clear .venv-newest-$*; \
	.venv-newest-$*/bin/pip install --disable-pip-version-check --quiet -e ".[test]" rlax; \
	.venv-newest-$*/bin/python run.py --version; \
	.venv-newest-$*/bin/python -m pytest -n 2 --dist worksteal $(quick)

# In a separate virtual environment and outside this folder, as for a user who installs the wheel.
learn: $(python)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; set -ex; \
	$(python) -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir "$$folder" .; \
	$(python) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/pip" install --disable-pip-version-check --quiet -c constraints.txt "$$folder"/dreamerjax-*.whl; \
	cd "$$folder"; venv/bin/dreamerjax --version; \
	venv/bin/dreamerjax --env cartpole --run-dir run $(options); \
	venv/bin/python -c "import json, sys; solved = json.load(open('run/summary.json'))['solved']; \
	sys.exit(0 if solved is True else 'CartPole was not solved')"

# Only one suite: make test-env-dmc
test-envs: $(addprefix test-env-,$(suites))

test-env-%: .venv-envs/%/.installed
	.venv-envs/$*/bin/python -m pytest tests/envs -k "$* or $(subst -,_,$*)"
	.venv-envs/$*/bin/python experiments/smoke_suites.py $*

.PRECIOUS: .venv-envs/%/.installed
.venv-envs/%/.installed: pyproject.toml constraints.txt | $(python)
	$(python) -m venv --clear .venv-envs/$*
	.venv-envs/$*/bin/python -m pip install --disable-pip-version-check --quiet \
	-c constraints.txt -e ".[$*,test]"
	@touch $@

notebooks: $(VENV)/.installed-notebooks
	$(python) notebooks/execute.py $(ARGS)

lint: $(dev)
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m pyright --pythonpath $(python)

format: $(dev)
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

setup: $(runtime)

# Debian's python3 needs python3-venv to install pip into a virtual environment; without it, use the system's pip.
$(python):
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))" || { \
	echo "dreamerjax needs Python 3.11 to 3.14, and $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	echo "Name another one:  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { \
	$(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(python) install pip; }

$(VENV)/.installed: pyproject.toml requirements.txt constraints.txt | $(python)
	$(install) -r requirements.txt
	@touch $@

$(VENV)/.installed-%: pyproject.toml requirements.txt constraints.txt | $(python)
	$(install) -c constraints.txt -e ".[$*]"
	@touch $@ $(VENV)/.installed

# Locked versions do not change; to update all of them, empty constraints.txt first.
lock: | $(python)
	$(install) uv==0.13.9
	@sed -n '/^#/p' constraints.txt > constraints.new
	$(python) -m uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --all-extras \
	--constraint constraints.txt pyproject.toml >> constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) .venv-envs .venv-newest-* .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
