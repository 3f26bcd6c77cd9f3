"""What is done inside the guest, on libvirt."""

import base64
import posixpath
import time
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import GuestAgent
from backends.durations import seconds
from backends.errors import ContractError
from backends.guest_network import DATA_PATH, apply_script, network_data
from backends.libvirt.agent import AGENT_FAILURES, Agent
from backends.libvirt.domains import Domains, is_active
from backends.libvirt.freezes import note_thaw_time
from backends.power_states import power_blockers
from backends.work import Undo, Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_RUN_TIMEOUT_S = 30.0
_FREEZE_TIMEOUT_S = 30
_DEFAULT_THAW_AFTER_S = 60.0
log = structlog.get_logger()


class LibvirtGuestAgent(GuestAgent):
    """Verbs of the guest agent."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self.undo = {"thaw": self.thaw}

    def set_admin_password(
        self, request: pb.SetAdminPasswordRequest, work: Work
    ) -> pb.SetAdminPasswordResponse:
        """See GuestAgent."""
        agent, _ = self._agent(request.instance_id, work)
        work.step("password")
        password = base64.b64encode(request.password.encode()).decode("ascii")
        agent.call(
            "guest-set-user-password",
            {
                "username": request.username or agent.administrator(),
                "password": password,
                "crypted": False,
            },
        )
        return pb.SetAdminPasswordResponse()

    def inject_file(self, request: pb.InjectFileRequest, work: Work) -> pb.InjectFileResponse:
        """See GuestAgent."""
        agent, _ = self._agent(request.instance_id, work)
        work.step("write")
        agent.write_file(request.path, request.content, work)
        return pb.InjectFileResponse()

    def inject_network_info(
        self, request: pb.InjectNetworkInfoRequest, work: Work
    ) -> pb.InjectNetworkInfoResponse:
        """See GuestAgent."""
        agent, instance = self._agent(request.instance_id, work)
        work.step("write")
        agent.run(
            "/bin/mkdir", "-p", posixpath.dirname(DATA_PATH), timeout_s=_RUN_TIMEOUT_S, work=work
        )
        agent.write_file(DATA_PATH, network_data(instance), work)
        return pb.InjectNetworkInfoResponse()

    def reset_instance_network(
        self, request: pb.ResetInstanceNetworkRequest, work: Work
    ) -> pb.ResetInstanceNetworkResponse:
        """See GuestAgent."""
        agent, instance = self._agent(request.instance_id, work)
        work.step("apply")
        script = apply_script(instance).encode()
        agent.run("/bin/sh", "-s", stdin=script, timeout_s=_RUN_TIMEOUT_S, work=work)
        return pb.ResetInstanceNetworkResponse()

    def quiesce_instance(
        self, request: pb.QuiesceInstanceRequest, work: Work
    ) -> pb.QuiesceInstanceResponse:
        """See GuestAgent."""
        agent, _ = self._agent(request.instance_id, work)
        thaw_after_s = seconds(request, "timeout", _DEFAULT_THAW_AFTER_S)
        if agent.is_frozen():
            work.step("time")
            self._note(agent.domain, thaw_after_s)
            return pb.QuiesceInstanceResponse()
        frozen = self._freeze(agent, thaw_after_s, work)
        return pb.QuiesceInstanceResponse(filesystems=frozen)

    def unquiesce_instance(
        self, request: pb.UnquiesceInstanceRequest, work: Work
    ) -> pb.UnquiesceInstanceResponse:
        """See GuestAgent."""
        agent, _ = self._agent(request.instance_id, work)
        work.step("thaw")
        thawed = agent.count("guest-fsfreeze-thaw", timeout_s=_FREEZE_TIMEOUT_S)
        self._note(agent.domain, None)
        return pb.UnquiesceInstanceResponse(filesystems=thawed)

    @contextmanager
    def frozen(self, domain: libvirt.virDomain, work: Work) -> Iterator[None]:
        """The guest's filesystems are frozen inside; if they were before, they are after it too."""
        agent = Agent(self._domains, domain)
        if agent.is_frozen():
            yield
            return
        self._freeze(agent, _DEFAULT_THAW_AFTER_S, work)
        try:
            yield
        finally:
            self.thaw(domain.UUIDString())

    def agent_blockers(self, domain: libvirt.virDomain) -> list[ContractError]:
        """That an agent answers in a running guest."""
        return Agent(self._domains, domain).blockers()

    def thaw(self, instance_id: str) -> None:
        """Thaws what may be frozen; where no agent does so now, the daemon asks it again later."""
        domain = self._domains.find(instance_id)
        if domain is None or not is_active(domain):
            return
        try:
            Agent(self._domains, domain).count("guest-fsfreeze-thaw", timeout_s=_FREEZE_TIMEOUT_S)
        except AGENT_FAILURES as error:
            log.warning("the guest is not thawed yet", instance_id=instance_id, reason=str(error))
            self._note(domain, 0)
        else:
            self._note(domain, None)

    def _freeze(self, agent: Agent, thaw_after_s: float, work: Work) -> int:
        """Who dies meanwhile has noted before that there is something to thaw."""
        work.step("freeze", Undo("thaw", {"instance_id": agent.domain.UUIDString()}))
        self._note(agent.domain, thaw_after_s)
        return agent.count("guest-fsfreeze-freeze", timeout_s=_FREEZE_TIMEOUT_S)

    def _note(self, domain: libvirt.virDomain, thaw_after_s: float | None) -> None:
        """Tells the daemon when the guest is to be thawed; None: it is."""
        until = None
        if thaw_after_s is not None:
            until = Timestamp()
            until.FromNanoseconds(time.time_ns() + int(thaw_after_s * 1e9))
        try:
            note_thaw_time(domain, until)
        except libvirt.libvirtError as error:
            raise self._domains.failed(error, domain.UUIDString()) from error
        self._domains.tell(domain)

    def _agent(self, instance_id: str, work: Work) -> tuple[Agent, pb.Instance]:
        """The agent of a running guest, after all checks."""
        domain, instance = self._domains.managed(instance_id)
        agent = Agent(self._domains, domain)
        blockers: list[ContractError] = power_blockers(instance, _RUNNING)
        work.ready(blockers or agent.blockers())
        return agent, instance
