"""deploy and rebase."""

from __future__ import annotations

from typing import Any

import click

from apt_ostree.cli import options
from apt_ostree.cli.commands.packages import asks
from apt_ostree.model.requests.deployments import Deploy, Rebase

_disallow_downgrade = click.option(
    "--disallow-downgrade", is_flag=True, help="Refuse a commit that is older than the present one."
)


@click.command(
    epilog="Examples: apt-ostree deploy version=13.2; apt-ostree deploy 0123...; apt-ostree deploy 13.2 -A"
)
@click.argument("revision", required=False, default="")
@options.deploy
@options.also_install
@options.also_uninstall
@options.bypass_driver
@click.option(
    "--register-driver",
    metavar="NAME",
    default="",
    help="Have the service that runs this command decide about updates; an empty REVISION deploys nothing.",
)
@click.option("--preview", is_flag=True, help="Only show what would change, as --dry-run.")
@click.option("--skip-branch-check", is_flag=True, help="Accept a commit that the branch does not have.")
@_disallow_downgrade
def deploy(revision: str, preview: bool, **given: Any) -> int:
    """Deploy a commit of the branch, or an image of the repository, that the system follows.

    A REVISION is the checksum of a commit, or a version; 'version=' and 'revision=' before it say which. Of
    an image, it is the digest, sha256:... An older one is a downgrade of the base. Layered packages keep
    their versions. The next upgrade goes on with the newest one.

    Until the next boot, only a registered driver upgrades, deploys and rebases, as long as its service is
    active, and those who give --bypass-driver.
    """
    if not (revision or given["register_driver"]):
        raise click.UsageError("name a commit or a version")
    if not revision and (given["install"] or given["uninstall"]):
        raise click.UsageError("--install and --uninstall need a commit or a version")
    given["dry_run"] = given["dry_run"] or preview
    with options.open_also(given) as packages:
        request = Deploy(
            revision=revision,
            **packages,
            skip_branch_check=given["skip_branch_check"],
            disallow_downgrade=given["disallow_downgrade"],
            register_driver=given["register_driver"],
            bypass_driver=given["bypass_driver"],
            deploy=options.deploy_options(given, allow_replacement=True),
        )
        return options.run_verb(request, given, ask=asks(given))


@click.command(
    epilog="Examples: apt-ostree rebase debian/14/amd64/server; apt-ostree rebase -m mirror; "
    "apt-ostree rebase vendor:debian/13/amd64/server; apt-ostree rebase :local/branch; "
    "apt-ostree rebase ostree-image-signed:docker://registry.example.org/server:13"
)
@click.argument("refspec", required=False, metavar="[[REMOTE]:]BRANCH|IMAGE")
@click.argument("revision", required=False)
@options.deploy
@options.also_install
@options.also_uninstall
@options.bypass_driver
@click.option("-b", "--branch", metavar="BRANCH", help="Follow this branch of the present remote, or of -m.")
@click.option(
    "-m", "--remote", metavar="REMOTE", help="Follow the present branch, or that of -b, of a remote."
)
@click.option("--skip-purge", is_flag=True, help="Keep what was pulled of the branch that is left.")
@_disallow_downgrade
def rebase(refspec: str | None, revision: str | None, **given: Any) -> int:
    """Follow another branch, or a container image, from now on.

    A BRANCH alone is one of the present remote, REMOTE: takes the present branch of another remote, and
    :BRANCH is a local one. A commit instead of it is kept until the next rebase. A REVISION is a commit or a
    version of the branch, as for 'apt-ostree deploy'.

    An IMAGE is docker://HOST/REPOSITORY[:TAG], oci:DIRECTORY or oci-archive:FILE. Before it stands what is
    verified: 'ostree-image-signed:' takes what the policy of containers verifies (containers-policy.json(5)),
    'ostree-remote-image:REMOTE:' what the keys of a remote have signed, and 'ostree-unverified-image:' needs
    neither. skopeo fetches it.

    Layered packages stay, with the versions that the archives have for the new base.
    """
    branch, remote = given["branch"], given["remote"]
    if bool(refspec) == bool(branch or remote):
        raise click.UsageError("name a branch, or give --branch or --remote")
    with options.open_also(given) as packages:
        request = Rebase(
            refspec=refspec or (f"{remote}:{branch or ''}" if remote else branch),
            revision=revision,
            **packages,
            skip_purge=given["skip_purge"],
            disallow_downgrade=given["disallow_downgrade"],
            bypass_driver=given["bypass_driver"],
            deploy=options.deploy_options(given, allow_replacement=True),
        )
        return options.run_verb(request, given, ask=asks(given))
