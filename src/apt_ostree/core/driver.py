"""The update driver: registers it, and refuses changes of the base that are its to make."""

from __future__ import annotations

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.driver import Driver, checked_name, is_service
from apt_ostree.model.requests.deployments import Deploy
from apt_ostree.model.result import Result
from apt_ostree.system import systemd, update_driver
from apt_ostree.system.failpoints import failpoint


def register(tx: Transaction, request: Deploy) -> Result:
    """Register the caller as the update driver until the next boot; another one is replaced.

    Raises UsageError for a caller that runs in no service of the system, and for a text that is no name.
    """
    driver = Driver(checked_name(request.register_driver), tx.caller.unit)
    if not is_service(driver.unit):
        raise UsageError(
            f"{driver.name} cannot be registered as the update driver: it does not run in a service",
            hint="have its systemd service run the command",
        )
    if request.deploy.dry_run:
        return Result(changed=False)
    failpoint("driver.before-write")
    update_driver.write(driver)
    tx.message(f"{driver.name} ({driver.unit}) is the update driver.")
    return Result(changed=True)


def require_none_else(tx: Transaction, *, bypass: bool) -> None:
    """Refuse a change of the base if another program than the caller drives updates and still runs.

    bypass: the caller knows about it.
    """
    driver = None if bypass else update_driver.read()
    if driver is None or tx.caller.unit == driver.unit or not systemd.is_unit_active(driver.unit):
        return
    raise Refused(
        f"updates and deployments are driven by {driver.name} ({driver.unit})",
        hint=f"see 'systemctl status {driver.unit}'; --bypass-driver makes the change all the same",
    )
