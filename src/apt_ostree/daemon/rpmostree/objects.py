"""The objects of rpm-ostree's service with properties, and the manager that tells which there are."""

# No `from __future__ import annotations`: dasbus makes the interface of the hints, which have to be types.
from collections.abc import Iterable
from typing import Any

from dasbus.server.interface import dbus_interface, dbus_signal, get_xml
from dasbus.server.property import PropertiesInterface
from dasbus.specification import DBusSpecification
from dasbus.typing import Dict, List, ObjPath, Str, Structure, get_variant

from apt_ostree.daemon.rpmostree.replies import Handler
from apt_ostree.model.rpmostree import names


class Object(PropertiesInterface):  # type: ignore[misc]  # dasbus has no types
    """An object with one interface."""

    @classmethod
    def types(cls) -> dict[str, str]:
        """Return the type of each property."""
        members = DBusSpecification.from_xml(get_xml(cls)).members
        return {m.name: m.type for m in members if isinstance(m, DBusSpecification.Property)}

    def values(self) -> dict[str, Any]:
        """Return all properties."""
        return {name: get_variant(kind, getattr(self, name)) for name, kind in self.types().items()}

    def announce(self, properties: Iterable[str] = ()) -> None:
        """Announce properties, which may have changed; all of them by default."""
        for name in properties or self.types():
            self.report_changed_property(name)
        self.flush_changes()


@dbus_interface(names.OBJECT_MANAGER)
class Manager:
    """The objects by their paths, each with the name of its interface."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._objects: dict[str, tuple[str, Object]] = {}
        bus.publish_object(names.PATH, self, server_factory=Handler)

    def GetManagedObjects(self) -> Dict[ObjPath, Dict[Str, Structure]]:  # noqa: N802  # its name on the bus
        """Return all objects with their interfaces and properties."""
        return {path: {name: one.values()} for path, (name, one) in self._objects.items()}

    @dbus_signal
    def InterfacesAdded(self, path: ObjPath, interfaces: Dict[Str, Structure]) -> None:  # noqa: N802
        """Tell that there is a new object."""

    @dbus_signal
    def InterfacesRemoved(self, path: ObjPath, interfaces: List[Str]) -> None:  # noqa: N802
        """Tell that an object is gone."""

    def add(self, path: str, interface: str, one: Object) -> None:
        """Publish an object."""
        self._bus.publish_object(path, one, server_factory=Handler)
        self._objects[path] = (interface, one)

    def tell_added(self, path: str) -> None:
        """Tell of an object that was added when clients may have looked already."""
        interface, one = self._objects[path]
        self.InterfacesAdded.emit(path, {interface: one.values()})

    def remove(self, path: str) -> None:
        """Take an object from the bus."""
        interface, _one = self._objects.pop(path)
        self._bus.unpublish_object(path)
        self.InterfacesRemoved.emit(path, [interface])
