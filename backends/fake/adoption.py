"""Instances that the service did not make: on the fake those with the label `fake/foreign`."""

from virtrpc.v1 import host_pb2 as pb
from virtrpc.v1.instance_pb2 import Instance
from virtrpc.v1.spec_pb2 import InstanceSpec

from backends.adoption import already_managed, contradictions
from backends.contract import Adoption
from backends.errors import InstanceNotFoundError
from backends.fake.host import FakeHost
from backends.redaction import redacted
from backends.work import Undo, Validated, Work

_MARK = "the service's mark"


class FakeAdoption(Adoption):
    """Takes them over."""

    def __init__(self, host: FakeHost) -> None:
        self._host = host
        self.undo = {"disown": host.disown}

    def import_instance(
        self, request: pb.ImportInstanceRequest, work: Work
    ) -> pb.ImportInstanceResponse:
        """See Adoption."""
        instance = self._host.find(request.instance_id)
        faulty = self._host.faulty(work, "import_instance", instance)
        if instance is None:
            raise InstanceNotFoundError(request.instance_id)
        if instance.managed:
            reply = already_managed(instance, request)
            faulty.ready()
            return reply
        found, unsaid = _read(self._host.machine_spec(request.instance_id))
        spec = redacted(request.spec if request.HasField("spec") else found)
        reply = pb.ImportInstanceResponse(
            instance=_as_managed(instance, spec),
            differences=[
                *unsaid,
                _difference(pb.IMPORT_DIFFERENCE_KIND_ADDED, "metadata", becomes=_MARK),
            ],
        )
        try:
            given = request.HasField("spec")
            faulty.ready(contradictions(request.spec, found) if given else [])
        except Validated:
            raise Validated(reply) from None
        faulty.step("adopt", Undo("disown", {"instance_id": request.instance_id}))
        self._host.adopt(request.instance_id, spec)
        faulty.commit()
        reply.instance.CopyFrom(self._host.get(request.instance_id))
        return reply


def _read(machine: InstanceSpec) -> tuple[InstanceSpec, list[pb.ImportDifference]]:
    """What can be said of a machine, and what of it cannot: where its bytes once came from."""
    found = redacted(machine)
    unsaid = [
        _difference(pb.IMPORT_DIFFERENCE_KIND_NOT_EXPRESSIBLE, f"os/{name}", found=image_id)
        for name, image_id in (
            ("kernel", machine.image.kernel_image_id),
            ("disk", machine.image.image_id),
        )
        if image_id
    ]
    for field in ("image", "guest"):
        found.ClearField(field)
    found.labels.clear()
    found.metadata.clear()
    return found, unsaid


def _as_managed(instance: Instance, spec: InstanceSpec) -> Instance:
    adopted = Instance()
    adopted.CopyFrom(instance)
    adopted.managed = True
    adopted.spec.CopyFrom(spec)
    adopted.labels.update(spec.labels)
    adopted.metadata.update(spec.metadata)
    return adopted


def _difference(
    kind: "pb.ImportDifferenceKind.ValueType", path: str, *, found: str = "", becomes: str = ""
) -> pb.ImportDifference:
    return pb.ImportDifference(kind=kind, path=path, found=found, becomes=becomes)
