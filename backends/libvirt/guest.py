"""What is done inside the guest, on libvirt."""

import base64
import posixpath
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt
from virtrpc.v1 import instance_pb2 as pb
from virtrpc.v1.types_pb2 import PowerState

from backends.contract import GuestAgent
from backends.errors import ContractError
from backends.guest_network import DATA_PATH, apply_script, network_data
from backends.libvirt.agent import Agent, AgentNotConnectedError
from backends.libvirt.domains import Domains
from backends.power_states import power_blockers
from backends.work import Undo, Work

_RUNNING = PowerState.POWER_STATE_RUNNING
_RUN_TIMEOUT_S = 30.0
_FREEZE_TIMEOUT_S = 30
_DEFAULT_THAW_AFTER_S = 60.0


class LibvirtGuestAgent(GuestAgent):
    """Verbs of the guest agent."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains
        self._thaws: dict[str, threading.Timer] = {}
        self._lock = threading.Lock()
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
            {"username": request.username or "root", "password": password, "crypted": False},
        )
        return pb.SetAdminPasswordResponse()

    def inject_file(self, request: pb.InjectFileRequest, work: Work) -> pb.InjectFileResponse:
        """See GuestAgent."""
        agent, _ = self._agent(request.instance_id, work)
        work.step("write")
        self._write(agent, request.path, request.content, work)
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
        self._write(agent, DATA_PATH, network_data(instance), work)
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
        if agent.call("guest-fsfreeze-status") == "frozen":
            return pb.QuiesceInstanceResponse()
        thaw_after_s = _DEFAULT_THAW_AFTER_S
        if request.HasField("timeout"):
            thaw_after_s = request.timeout.ToNanoseconds() / 1e9
        work.step("freeze", Undo("thaw", {"instance_id": request.instance_id}))
        frozen = self._freeze(request.instance_id, agent, thaw_after_s)
        return pb.QuiesceInstanceResponse(filesystems=frozen)

    def unquiesce_instance(
        self, request: pb.UnquiesceInstanceRequest, work: Work
    ) -> pb.UnquiesceInstanceResponse:
        """See GuestAgent."""
        agent, _ = self._agent(request.instance_id, work)
        work.step("thaw")
        self._forget_thaw(request.instance_id)
        thawed = agent.call("guest-fsfreeze-thaw", timeout_s=_FREEZE_TIMEOUT_S)
        return pb.UnquiesceInstanceResponse(filesystems=thawed)

    @contextmanager
    def frozen(self, domain: libvirt.virDomain, work: Work) -> Iterator[None]:
        """The guest's filesystems are frozen inside; if they were before, they are after it too."""
        instance_id, agent = domain.UUIDString(), Agent(self._domains, domain)
        if agent.call("guest-fsfreeze-status") == "frozen":
            yield
            return
        work.step("freeze", Undo("thaw", {"instance_id": instance_id}))
        self._thaw_after(instance_id, _DEFAULT_THAW_AFTER_S)
        agent.call("guest-fsfreeze-freeze", timeout_s=_FREEZE_TIMEOUT_S)
        try:
            yield
        finally:
            self.thaw(instance_id)

    def agent_blockers(self, domain: libvirt.virDomain) -> list[ContractError]:
        """That an agent answers in a running guest."""
        return Agent(self._domains, domain).blockers()

    def thaw(self, instance_id: str) -> None:
        """Thaws what may be frozen; nothing where no agent answers (any more)."""
        self._forget_thaw(instance_id)
        domain = self._domains.find(instance_id)
        if domain is not None and domain.isActive():
            try:
                Agent(self._domains, domain).call(
                    "guest-fsfreeze-thaw", timeout_s=_FREEZE_TIMEOUT_S
                )
            except AgentNotConnectedError:
                return

    def _freeze(self, instance_id: str, agent: Agent, thaw_after_s: float) -> int:
        self._thaw_after(instance_id, thaw_after_s)
        frozen: int = agent.call("guest-fsfreeze-freeze", timeout_s=_FREEZE_TIMEOUT_S)
        return frozen

    def _agent(self, instance_id: str, work: Work) -> tuple[Agent, pb.Instance]:
        """The agent of a running guest, after all checks."""
        domain, instance = self._domains.managed(instance_id)
        agent = Agent(self._domains, domain)
        blockers: list[ContractError] = power_blockers(instance, _RUNNING)
        work.ready(blockers or agent.blockers())
        return agent, instance

    def _write(self, agent: Agent, path: str, content: bytes, work: Work) -> None:
        """The agent cannot rename: `mv` puts the file into its place at once."""
        agent.write_file(path, content)
        agent.run(
            "/bin/mv", "-f", "--", f"{path}.virtrpc-new", path, timeout_s=_RUN_TIMEOUT_S, work=work
        )

    def _thaw_after(self, instance_id: str, seconds: float) -> None:
        timer = threading.Timer(seconds, self.thaw, (instance_id,))
        timer.daemon = True
        with self._lock:
            self._thaws[instance_id] = timer
        timer.start()

    def _forget_thaw(self, instance_id: str) -> None:
        with self._lock:
            timer = self._thaws.pop(instance_id, None)
        if timer is not None:
            timer.cancel()
