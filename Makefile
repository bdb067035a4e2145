# The commands of this project; each one installs what it needs first (see tools/setup).

.DEFAULT_GOAL := help
.PHONY: help demo disk check extended vm torture lint format man bench survey picture pictures deb testbed setup install

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: setup ## show the product at work on a booted machine (root)
	@tools/demo

disk: setup ## compose a disk image into dist/ (root); ARGS="--user=me --ssh-key=me.pub" to log in
	@tools/disk $(ARGS)

check: ## run all linters and tests (root); ARGS="tests/unit -k name" for some
	@tools/check $(ARGS)

extended: ## run the tests that check leaves out: longer ones, and more cases of each kind (root, an hour)
	@tools/check -m extended tests/integration tests/system $(ARGS)

vm: setup ## run the tests in virtual machines: real boots and reboots (root, minutes)
	@/usr/bin/python3 -m pytest -v --tb=short --timeout=3600 -m vm tests/system $(ARGS)

torture: setup ## break changes and boots at every failpoint, and make 300 changes in one boot (root); SEED=N COUNT=N of each verb
	@APT_OSTREE_TORTURE=1 APT_OSTREE_TORTURE_SEED=$(or $(SEED),20261123) \
	  APT_OSTREE_TORTURE_COUNT=$(or $(COUNT),0) \
	  /usr/bin/python3 -m pytest -s --tb=short --timeout=14400 \
	  tests/system/test_faults.py tests/system/test_endurance.py tests/system/test_state.py $(ARGS)

lint: setup ## run ruff and mypy
	@tools/lint

format: setup ## let ruff order and format the Python code
	@.venv/bin/ruff check --quiet --fix . ; .venv/bin/ruff format .

man: ## bring the generated part of the manual page up to date
	@/usr/bin/python3 tools/man_commands.py

bench: setup ## measure what the documentation promises (root)
	@/usr/bin/python3 bench/run.py $(ARGS)

survey: setup ## install real packages on booted machines, into docs/debian-packages.md (root, hours)
	@tools/survey $(ARGS)

picture: setup ## run a short story on a booted machine, for the picture in the README (root)
	@tools/picture run

pictures: ## draw the documentation's diagrams from docs/*.dot (graphviz)
	@tools/picture drawings

deb: setup ## build the Debian packages into dist/
	@tools/build-deb dist

testbed: setup ## build the images that the system tests boot (root)
	@tools/testbed build

setup: ## install what building and testing needs (root, once)
	@tools/setup

install: ## copy the product's files to DESTDIR; `make deb` is the better way
	@tools/install-files $(or $(DESTDIR),/)
