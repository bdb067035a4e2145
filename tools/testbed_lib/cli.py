"""The command line of the test bed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from testbed_lib.base import DEFAULT_TREEFILE
from testbed_lib.common import CACHE, TestbedError
from testbed_lib.guardian import guard
from testbed_lib.images import Wanted, image
from testbed_lib.machine import Machine, all_machines, sweep, throw_away_name


def main() -> int:
    """Run one command; return its exit code."""
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` runs
    if sys.argv[1:2] == ["_guard"]:
        name, options, status, lifeline = sys.argv[2:]
        return guard(name, json.loads(options), status_fd=int(status), lifeline_fd=int(lifeline))
    arguments = _parser().parse_args()
    try:
        if os.geteuid() != 0:
            raise TestbedError("needs root: it mounts and boots")
        CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep()
        result: int = arguments.function(arguments)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 125  # as podman and docker: the tool failed, not the command
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that Python's own flush at the end is quiet
        return 141  # as killed by SIGPIPE
    return result


def _build(arguments: argparse.Namespace) -> int:
    print(_image(arguments))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if arguments.in_machine:
        machine = Machine(arguments.in_machine)
        if not machine.is_running():
            _start_machine(machine, arguments)
        return _passed_through(machine, arguments)
    machine = Machine(throw_away_name())
    machine.create_disk(_image(arguments))
    try:
        machine.boot(vm=arguments.vm, shared_peer_group=arguments.shared_peer_group)
        return _passed_through(machine, arguments)
    finally:
        machine.remove()


def _start(arguments: argparse.Namespace) -> int:
    _start_machine(Machine(arguments.name), arguments)
    return 0


def _start_machine(machine: Machine, arguments: argparse.Namespace) -> None:
    if arguments.fresh:
        machine.remove()
    if machine.is_running():
        raise TestbedError(f"machine {machine.name} is already running")
    if not machine.has_disk():
        machine.create_disk(_image(arguments))
    machine.boot(vm=arguments.vm, shared_peer_group=arguments.shared_peer_group)


def _exec(arguments: argparse.Namespace) -> int:
    return _passed_through(_named(arguments), arguments)


def _shell(arguments: argparse.Namespace) -> int:
    # `script` gives the shell a terminal of the machine's own.
    argv = ("script", "--quiet", "--return", "--flush", "--command", "bash -l", "/dev/null")
    return _named(arguments).exec(*argv, stdin=None, stdout=None, stderr=None).returncode


def _reboot(arguments: argparse.Namespace) -> int:
    _named(arguments).reboot()
    return 0


def _kill(arguments: argparse.Namespace) -> int:
    _named(arguments).kill()
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    _named(arguments).stop()
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    _named(arguments).remove()
    return 0


def _list(_arguments: argparse.Namespace) -> int:
    for machine in all_machines():
        print(f"{machine.name}\t{'running' if machine.is_running() else 'off'}")
    return 0


def _named(arguments: argparse.Namespace) -> Machine:
    machine = Machine(arguments.name)
    if arguments.vm and machine.is_running() and not machine.is_vm():
        raise TestbedError(f"machine {machine.name} runs in nspawn; 'start --vm' boots it in QEMU")
    return machine


def _image(arguments: argparse.Namespace) -> Path:
    return image(
        Wanted(
            repo=Path(arguments.repo) if arguments.repo else None,
            ref=arguments.ref,
            treefile=arguments.treefile,
            suite=arguments.suite,
            force=arguments.force,
            stale=arguments.stale_base,
            fixtures=not arguments.no_fixture_repo,
            recommended=True,
            fast=arguments.fast,
        )
    )


def _passed_through(machine: Machine, arguments: argparse.Namespace) -> int:
    sys.stdout.flush()
    done = machine.exec(*arguments.command, stdin=None, stdout=None, stderr=None, timeout=arguments.timeout)
    return done.returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed", description="Boots throw-away apt-ostree machines.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    source = argparse.ArgumentParser(add_help=False)
    source.add_argument(
        "--treefile", type=Path, metavar="F", default=DEFAULT_TREEFILE, help="what to compose"
    )
    source.add_argument("--suite", metavar="S", help="compose from this suite, such as bookworm")
    source.add_argument("--force", action="store_true", help="compose anew, with what the archive has now")
    source.add_argument("--stale-base", action="store_true", help="do not compose again after a change")
    source.add_argument("--repo", help="boot a commit of this repository")
    source.add_argument("--ref", default="debian/13/amd64/minimal", help="what to boot from --repo")
    source.add_argument("--no-fixture-repo", action="store_true", help="without the fixture packages")
    source.add_argument(
        "--fast", action="store_true", help="copy the code, do not build and install its package"
    )
    boot = argparse.ArgumentParser(add_help=False, parents=[source])
    boot.add_argument("--vm", action="store_true", help="in QEMU: a true boot, and slow without KVM")
    boot.add_argument("--fresh", action="store_true", help="begin with a new disk")
    boot.add_argument("--shared-peer-group", action="store_true",
                      help="leave /usr in the peer group of /: MOVE_MOUNT_BENEATH is refused")  # fmt: skip
    command = argparse.ArgumentParser(add_help=False)
    command.add_argument("--timeout", type=float, metavar="SECONDS", help="then kill it and exit with 124")
    command.add_argument(
        "--no-tty", action="store_true", help="accepted for clarity; commands never get a terminal"
    )

    def add(
        verb: str, function: object, help: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(verb, help=help, description=help, parents=parents)
        sub.set_defaults(function=function)
        return sub

    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--vm", action="store_true", help="insist that it is a virtual machine")
    named.add_argument("name")

    add("build", _build, "make the disk image", source)
    sub = add("run", _run, "boot a throw-away machine and run a command in it", boot, command)
    sub.add_argument("--in", dest="in_machine", metavar="NAME", help="use this machine, and keep it")
    sub.add_argument("command", nargs="+", metavar="CMD")
    add("start", _start, "boot a machine that stays", boot).add_argument("name")
    sub = add("exec", _exec, "run a command in a machine", command, named)
    sub.add_argument("command", nargs="+", metavar="CMD")
    for verb, function, help in (
        ("reboot", _reboot, "reboot cleanly"),
        ("kill", _kill, "cut the power"),
        ("stop", _stop, "shut down cleanly"),
        ("shell", _shell, "open a shell in a machine"),
        ("remove", _remove, "cut the power and remove the machine's files"),
    ):
        add(verb, function, help, named)
    add("list", _list, "list machines")
    return parser
