"""The groups of verbs. Meanings, errors and idempotency stand in the .proto files."""

from abc import abstractmethod

from virtrpc.v1 import diagnostics_pb2, instance_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Lifecycle(Facet):
    """Beginning and end of an instance; an instance that is asked for itself."""

    @abstractmethod
    def spawn_instance(
        self, request: instance_pb2.SpawnInstanceRequest, work: Work
    ) -> instance_pb2.Instance:
        """See InstanceService.SpawnInstance."""

    @abstractmethod
    def get_instance(
        self, request: instance_pb2.GetInstanceRequest
    ) -> instance_pb2.GetInstanceResponse:
        """Asked of the hypervisor itself; the daemon calls it for `fresh` only."""

    @abstractmethod
    def destroy_instance(
        self, request: instance_pb2.DestroyInstanceRequest, work: Work
    ) -> instance_pb2.DestroyInstanceResponse:
        """See InstanceService.DestroyInstance."""


class InstanceFiles(Facet):
    """What an instance leaves on the host."""

    @abstractmethod
    def cleanup_instance(
        self, request: instance_pb2.CleanupInstanceRequest, work: Work
    ) -> instance_pb2.CleanupInstanceResponse:
        """See InstanceService.CleanupInstance."""

    @abstractmethod
    def delete_instance_files(
        self, request: instance_pb2.DeleteInstanceFilesRequest, work: Work
    ) -> instance_pb2.DeleteInstanceFilesResponse:
        """See InstanceService.DeleteInstanceFiles."""

    @abstractmethod
    def check_instance_on_disk(
        self, request: instance_pb2.CheckInstanceOnDiskRequest
    ) -> instance_pb2.CheckInstanceOnDiskResponse:
        """See InstanceService.CheckInstanceOnDisk."""


class Power(Facet):
    """Running, paused, off."""

    @abstractmethod
    def power_on_instance(
        self, request: instance_pb2.PowerOnInstanceRequest, work: Work
    ) -> instance_pb2.PowerOnInstanceResponse:
        """See InstanceService.PowerOnInstance."""

    @abstractmethod
    def power_off_instance(
        self, request: instance_pb2.PowerOffInstanceRequest, work: Work
    ) -> instance_pb2.PowerOffInstanceResponse:
        """See InstanceService.PowerOffInstance."""

    @abstractmethod
    def reboot_instance(
        self, request: instance_pb2.RebootInstanceRequest, work: Work
    ) -> instance_pb2.RebootInstanceResponse:
        """See InstanceService.RebootInstance."""

    @abstractmethod
    def poll_rebooting_instances(
        self, request: instance_pb2.PollRebootingInstancesRequest, work: Work
    ) -> instance_pb2.PollRebootingInstancesResponse:
        """See InstanceService.PollRebootingInstances."""

    @abstractmethod
    def trigger_crash_dump(
        self, request: instance_pb2.TriggerCrashDumpRequest, work: Work
    ) -> instance_pb2.TriggerCrashDumpResponse:
        """See InstanceService.TriggerCrashDump."""

    @abstractmethod
    def pause_instance(
        self, request: instance_pb2.PauseInstanceRequest, work: Work
    ) -> instance_pb2.PauseInstanceResponse:
        """See InstanceService.PauseInstance."""

    @abstractmethod
    def unpause_instance(
        self, request: instance_pb2.UnpauseInstanceRequest, work: Work
    ) -> instance_pb2.UnpauseInstanceResponse:
        """See InstanceService.UnpauseInstance."""


class Suspension(Facet):
    """Memory to disk and back."""

    @abstractmethod
    def suspend_instance(
        self, request: instance_pb2.SuspendInstanceRequest, work: Work
    ) -> instance_pb2.Instance:
        """See InstanceService.SuspendInstance."""

    @abstractmethod
    def resume_instance(
        self, request: instance_pb2.ResumeInstanceRequest, work: Work
    ) -> instance_pb2.Instance:
        """See InstanceService.ResumeInstance."""


class Intent(Facet):
    """What is wanted of an instance, kept with it."""

    @abstractmethod
    def set_instance_bootable(
        self, request: instance_pb2.SetInstanceBootableRequest, work: Work
    ) -> instance_pb2.SetInstanceBootableResponse:
        """See InstanceService.SetInstanceBootable."""

    @abstractmethod
    def update_instance_metadata(
        self, request: instance_pb2.UpdateInstanceMetadataRequest, work: Work
    ) -> instance_pb2.UpdateInstanceMetadataResponse:
        """See InstanceService.UpdateInstanceMetadata."""

    @abstractmethod
    def soft_delete_instance(
        self, request: instance_pb2.SoftDeleteInstanceRequest, work: Work
    ) -> instance_pb2.SoftDeleteInstanceResponse:
        """See InstanceService.SoftDeleteInstance."""

    @abstractmethod
    def restore_instance(
        self, request: instance_pb2.RestoreInstanceRequest, work: Work
    ) -> instance_pb2.RestoreInstanceResponse:
        """See InstanceService.RestoreInstance."""

    @abstractmethod
    def resume_instance_on_host_boot(
        self, request: instance_pb2.ResumeInstanceOnHostBootRequest, work: Work
    ) -> instance_pb2.ResumeInstanceOnHostBootResponse:
        """See InstanceService.ResumeInstanceOnHostBoot."""


class Diagnostics(Facet):
    """What an instance's disks take on the host; counters come by Backend.sample."""

    @abstractmethod
    def get_instance_disk_info(
        self, request: diagnostics_pb2.GetInstanceDiskInfoRequest
    ) -> diagnostics_pb2.GetInstanceDiskInfoResponse:
        """See DiagnosticsService.GetInstanceDiskInfo."""


class GuestAgent(Facet):
    """What is done inside the guest, with the help of an agent there."""

    @abstractmethod
    def set_admin_password(
        self, request: instance_pb2.SetAdminPasswordRequest, work: Work
    ) -> instance_pb2.SetAdminPasswordResponse:
        """See InstanceService.SetAdminPassword."""

    @abstractmethod
    def inject_file(
        self, request: instance_pb2.InjectFileRequest, work: Work
    ) -> instance_pb2.InjectFileResponse:
        """See InstanceService.InjectFile."""

    @abstractmethod
    def inject_network_info(
        self, request: instance_pb2.InjectNetworkInfoRequest, work: Work
    ) -> instance_pb2.InjectNetworkInfoResponse:
        """See InstanceService.InjectNetworkInfo."""

    @abstractmethod
    def reset_instance_network(
        self, request: instance_pb2.ResetInstanceNetworkRequest, work: Work
    ) -> instance_pb2.ResetInstanceNetworkResponse:
        """See InstanceService.ResetInstanceNetwork."""

    @abstractmethod
    def quiesce_instance(
        self, request: instance_pb2.QuiesceInstanceRequest, work: Work
    ) -> instance_pb2.QuiesceInstanceResponse:
        """See InstanceService.QuiesceInstance."""

    @abstractmethod
    def unquiesce_instance(
        self, request: instance_pb2.UnquiesceInstanceRequest, work: Work
    ) -> instance_pb2.UnquiesceInstanceResponse:
        """See InstanceService.UnquiesceInstance."""
