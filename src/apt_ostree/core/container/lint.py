"""`container lint`: checks the content of an image. It only reads, from a directory or in a container.

What is read is below that directory, wherever links lead (system.inside): it may be somebody else's.

A rule is a function that takes the root directory and yields what breaks it. The first part of the table has
the rules of `bootc container lint` (1.16), by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.container import bootc_rules, own_rules
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.lint import Linted, Outcome, Rule, Severity, State
from apt_ostree.model.queries import ContainerLint, ContainerRules
from apt_ostree.system import inside


@dataclass(frozen=True, slots=True)
class Check:
    """A rule, and what yields a line for each thing that breaks it."""

    rule: Rule
    findings: Callable[[Path], Iterable[str]]


def _fatal(name: str, findings: Callable[[Path], Iterable[str]], description: str) -> Check:
    return Check(Rule(name, Severity.FATAL, description), findings)


def _warning(name: str, findings: Callable[[Path], Iterable[str]], description: str) -> Check:
    return Check(Rule(name, Severity.WARNING, description), findings)


CHECKS = (
    # bootc's
    _fatal(
        "api-base-directories",
        bootc_rules.api_directories,
        "/dev, /proc, /sys, /run, /tmp and /var are directories.",
    ),
    _fatal(
        "baseimage-root", bootc_rules.root, "/sysroot is a directory, and /ostree a link to sysroot/ostree."
    ),
    _fatal("bootc-kargs", bootc_rules.kernel_arguments, "Files in /usr/lib/bootc/kargs.d can be read."),
    _fatal("etc-usretc", bootc_rules.usr_etc, "There is no /usr/etc beside /etc."),
    _fatal("kernel", bootc_rules.kernels, "There is one kernel in /usr/lib/modules at most."),
    _fatal("utf8", bootc_rules.names, "Names of files and targets of links are UTF-8."),
    _fatal("var-run", bootc_rules.var_run, "/var/run is a link, if it is there."),
    _warning(
        "baseimage-composefs", bootc_rules.composefs, "/usr/lib/ostree/prepare-root.conf enables composefs."
    ),
    _warning(
        "buildah-injected",
        bootc_rules.injected_files,
        "There is no empty /etc/hostname or /etc/resolv.conf, which builders of containers leave.",
    ),
    _warning("nonempty-boot", bootc_rules.boot, "/boot is an empty directory."),
    _warning("nonempty-run-tmp", bootc_rules.run_and_tmp, "/run and /tmp are empty."),
    _warning("sysusers", bootc_rules.accounts_described, "Lines of sysusers.d make all accounts."),
    _warning("var-log", bootc_rules.logs, "There are no log files in /var/log."),
    _warning(
        "var-tmpfiles",
        bootc_rules.var,
        "Below /var there are only directories and links, and lines of tmpfiles.d make them.",
    ),
    # ours
    _fatal(
        "account-ids",
        own_rules.account_ids,
        "Accounts have the ids that they had in earlier trees, each its own.",
    ),
    _fatal(
        "dpkg-database",
        own_rules.package_state,
        "The state of packages is in /usr/lib/sysimage, and only links to it are below /var.",
    ),
    _fatal("file-owners", own_rules.file_owners, "All files belong to accounts of the image."),
    _fatal("initramfs", own_rules.initramfs, "The kernel has an initramfs beside it."),
    _fatal(
        "machine-state",
        own_rules.machine_state_of,
        "There is no key, id or state that each machine has to have of its own.",
    ),
    _fatal("packages", own_rules.packages, "All packages are configured."),
    _warning("seeds", own_rules.seeds_of_var, "Files below /var are in what machines are given (seeds)."),
    _warning("top-level", own_rules.top_level, "Nothing is in / that a tree does not have there."),
)


def rules(_query: ContainerRules) -> list[Rule]:
    """Return all rules."""
    return [check.rule for check in CHECKS]


def lint(query: ContainerLint) -> Linted:
    """Check the content of an image; what cannot be read breaks the rule that is about it.

    Raises UsageError for a directory that is no root filesystem, and for a rule to skip that is not there.
    Raises Refused for the form of a tree, which is not that of an image.
    """
    root = _root_of(query)
    _refuse_unknown_rules(query)
    return Linted([_outcome(check, root, skipped=check.rule.name in query.skip) for check in CHECKS])


def _root_of(query: ContainerLint) -> Path:
    root = Path(query.rootfs).resolve()
    if not root.is_dir():
        raise UsageError(f"there is no directory {query.rootfs}")
    if not inside.is_directory(root, "usr"):
        raise UsageError(f"{query.rootfs} is not a root filesystem: it has no directory usr")
    if inside.is_directory(root, "usr/etc") and inside.info(root, "etc") is None:
        raise Refused(
            f"{query.rootfs} has the form of a tree, with /usr/etc",
            hint="in an image this is /etc; 'compose image' makes one of the tree's commit",
        )
    return root


def _refuse_unknown_rules(query: ContainerLint) -> None:
    known = [check.rule.name for check in CHECKS]
    if unknown := [name for name in query.skip if name not in known]:
        raise UsageError(f"there is no rule {unknown[0]!r}", hint=f"there are: {', '.join(known)}")


def _outcome(check: Check, root: Path, *, skipped: bool) -> Outcome:
    if skipped:
        return Outcome(check.rule, State.SKIPPED)
    try:
        findings = tuple(sorted(check.findings(root)))
    except PermissionError as error:
        findings = (f"{error.filename} cannot be read: {error.strerror}; root can",)
    except OSError as error:
        findings = (f"{error.filename} cannot be read: {error.strerror}",)
    return Outcome(check.rule, State.FAILED if findings else State.PASSED, findings)
