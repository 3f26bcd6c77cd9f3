"""The fake backend as a whole."""

import shutil
from collections.abc import Iterable, Sequence

from virtrpc.v1.instance_pb2 import Instance

from backends.console_log import ConsoleLog
from backends.contract import (
    Backend,
    Facet,
    HostSample,
    HypervisorFacts,
    Observer,
    Sample,
    undo_actions,
)
from backends.errors import InstanceNotFoundError
from backends.fake.consoles import FakeConsoles
from backends.fake.facets import all_facets
from backends.fake.parts import Parts
from backends.fake.resources import sample_host
from backends.loading import BackendOptions
from backends.work import Undo


class FakeBackend(Backend):
    """See backends.fake."""

    name = "fake"

    def __init__(self, options: BackendOptions) -> None:
        self._options = options
        self._parts = parts = Parts(options)
        self._host = parts.host
        self._facets = all_facets(parts)
        self._undo = undo_actions(self._facets)
        self.image_store = parts.image_store
        self.image_users = parts.image_users
        self.consoles = FakeConsoles(parts.host)
        self.migrations = parts.migrations.book
        self.receptions = parts.migrations.receptions

    def open(self, observer: Observer) -> HypervisorFacts:
        """See Backend."""
        self._host.reset()
        self._parts.migrations.open()
        self._parts.side.book.open()
        self._parts.firewall.restore()
        self._host.observer = observer
        observer.instances_listed(self._host.instances())
        observer.connected()
        return HypervisorFacts(
            hypervisor_type="fake",
            hypervisor_version="1.0.0",
            library="",
            library_version="",
            connection="fake",
            virt_type="fake",
            virt_type_reason="the fake backend runs no guests",
            missing=self._parts.missing,
            features=self._parts.features,
        )

    def close(self) -> None:
        """See Backend; the instances go with the daemon."""
        self._parts.firewall.close()
        shutil.rmtree(self._host.folder, ignore_errors=True)

    def facets(self) -> Sequence[Facet]:
        """See Backend."""
        return self._facets

    def undo(self, undo: Undo) -> None:
        """See Backend."""
        (subject,) = undo.arguments.values()
        self._undo[undo.action](subject)

    def settle(self) -> None:
        """See Backend."""
        self._parts.migrations.rollbacks.settle()

    def break_off(self, instance_id: str) -> None:
        """See Backend; what waits here notices every cancel."""

    def sample(self) -> Sequence[Sample]:
        """See Backend."""
        return self._host.samples()

    def sample_one(self, instance_id: str) -> Sample:
        """See Backend."""
        return self._host.sample_one(instance_id)

    def sample_host(self, instances: Iterable[Instance]) -> HostSample:
        """See Backend."""
        return sample_host(
            instances,
            pci_passthrough=self._options.pci_passthrough,
            dedicated_cpus=self._options.dedicated_cpus,
        )

    def console_log(self, instance_id: str) -> ConsoleLog:
        """See Backend."""
        log = ConsoleLog.found_in(self._host.instance_folder(instance_id))
        if log is None:
            raise InstanceNotFoundError(instance_id)
        return log
