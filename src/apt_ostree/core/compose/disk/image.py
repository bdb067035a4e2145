"""`compose disk`: a disk image that starts by itself, by UEFI and by a BIOS, from one commit.

All work is done in a directory beside the output, which gets its name when it is whole. The same commit and
the same options give the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apt_ostree.core.compose import tree
from apt_ostree.core.compose.disk import building, machine, planning, sources, verifying
from apt_ostree.core.compose.disk.planning import Job
from apt_ostree.core.transaction import Transaction
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat
from apt_ostree.model.result import Result
from apt_ostree.system import qemu_img, scratch
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.new_sysroot import Source

_WORK_PREFIX = ".apt-ostree-disk-"


def compose_disk(tx: Transaction, request: ComposeDisk) -> Result:
    """Compose a disk image.

    Returns `ref`, `commit`, `output`, `format`, the `size` of the disk, the `bytes` of the file, whether it
    starts with Secure Boot on (`secure-boot`), and its SHA-256 as `verified` (verify). Raises UsageError for
    an error in the request, Refused if a precondition is not met or if it is not reproducible (verify), and
    ExternalFailure if a step fails. Until all is done there is no file of the output's name, or still the one
    that was there.
    """
    output, form = planning.check_request(request)
    wanted = machine.read(request)
    with scratch.directory(output.parent, _WORK_PREFIX) as work:
        source = _source(tx, request, work)
        contents = planning.measure(source)
        job = planning.plan(source, contents, request, wanted, size=request.size, work=work)
        needed = job.needed + (job.used if form is ImageFormat.QCOW2 else 0)
        planning.check_space(needed, output.parent, "write the image to another file system")
        built = building.build(tx, job, request, wanted, work)
        image = built.file
        second = verifying.build_again(tx, request, job, work) if request.verify else None
        if second:
            verifying.require_same_disk(job, image, second)
        if form is ImageFormat.QCOW2:
            image = _convert(tx, image)
            second = _convert(tx, second) if second else None
        failpoint("disk.written")
        result = _result(job, output, form, image, signed=built.signed)
        if second:
            digest = verifying.require_same_file(tx, job, image, second)
            result = replace(result, details={**result.details, "verified": digest})
        image.replace(output)
    return result


def _source(tx: Transaction, request: ComposeDisk, work: Path) -> Source:
    """Return the commit; the tree of a treefile is composed first."""
    if not request.treefile:
        source = sources.of_request(tx, request, work)
        assert source, "the request was checked"
        return source
    repo = Path(request.repo).absolute() if request.repo else work / "repo"
    wanted = ComposeTree(treefile=request.treefile, repo=str(repo), ref=request.ref, verify=request.verify)
    return sources.of_ref(repo, str(tree.compose_tree(tx, wanted).details["ref"]))


def _convert(tx: Transaction, raw: Path) -> Path:
    image = raw.with_suffix(".qcow2")
    with tx.task("Writing the qcow2 image"):
        qemu_img.to_qcow2(raw, image)
    raw.unlink()
    return image


def _result(job: Job, output: Path, form: ImageFormat, image: Path, *, signed: bool) -> Result:
    details = {
        "ref": sources.name_of(job.source),
        "commit": job.source.commit,
        "output": str(output),
        "format": form,
        "size": job.disk.size,
        "secure-boot": signed,
        "bytes": image.stat().st_blocks * 512,  # without its holes
    }
    return Result(changed=True, details=details)
