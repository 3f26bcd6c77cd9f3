"""The verbs of interfaces and of filtering."""

from abc import abstractmethod

from virtrpc.v1 import firewall_pb2, interface_pb2

from backends.contract.backend import Facet
from backends.work import Work


class Interfaces(Facet):
    """Interfaces of instances, and their side on the host."""

    @abstractmethod
    def attach_interface(
        self, request: interface_pb2.AttachInterfaceRequest, work: Work
    ) -> interface_pb2.AttachInterfaceResponse:
        """See InterfaceService.AttachInterface."""

    @abstractmethod
    def detach_interface(
        self, request: interface_pb2.DetachInterfaceRequest, work: Work
    ) -> interface_pb2.DetachInterfaceResponse:
        """See InterfaceService.DetachInterface."""

    @abstractmethod
    def plug_interfaces(
        self, request: interface_pb2.PlugInterfacesRequest, work: Work
    ) -> interface_pb2.PlugInterfacesResponse:
        """See InterfaceService.PlugInterfaces."""

    @abstractmethod
    def unplug_interfaces(
        self, request: interface_pb2.UnplugInterfacesRequest, work: Work
    ) -> interface_pb2.UnplugInterfacesResponse:
        """See InterfaceService.UnplugInterfaces."""

    @abstractmethod
    def prepare_networks(
        self, request: interface_pb2.PrepareNetworksRequest, work: Work
    ) -> interface_pb2.PrepareNetworksResponse:
        """See InterfaceService.PrepareNetworks."""

    @abstractmethod
    def clean_networks_preparation(
        self, request: interface_pb2.CleanNetworksPreparationRequest, work: Work
    ) -> interface_pb2.CleanNetworksPreparationResponse:
        """See InterfaceService.CleanNetworksPreparation."""

    @abstractmethod
    def get_interface_policy(
        self, request: interface_pb2.GetInterfacePolicyRequest
    ) -> interface_pb2.GetInterfacePolicyResponse:
        """See InterfaceService.GetInterfacePolicy."""


class Firewall(Facet):
    """Which packets of instances pass."""

    @abstractmethod
    def refresh_security_group(
        self, request: firewall_pb2.RefreshSecurityGroupRequest, work: Work
    ) -> firewall_pb2.RefreshSecurityGroupResponse:
        """See FirewallService.RefreshSecurityGroup."""

    @abstractmethod
    def refresh_instance_security_rules(
        self, request: firewall_pb2.RefreshInstanceSecurityRulesRequest, work: Work
    ) -> firewall_pb2.RefreshInstanceSecurityRulesResponse:
        """See FirewallService.RefreshInstanceSecurityRules."""

    @abstractmethod
    def ensure_filtering_rules(
        self, request: firewall_pb2.EnsureFilteringRulesRequest, work: Work
    ) -> firewall_pb2.EnsureFilteringRulesResponse:
        """See FirewallService.EnsureFilteringRules."""

    @abstractmethod
    def unfilter_instance(
        self, request: firewall_pb2.UnfilterInstanceRequest, work: Work
    ) -> firewall_pb2.UnfilterInstanceResponse:
        """See FirewallService.UnfilterInstance."""

    @abstractmethod
    def defer_filtering(
        self, request: firewall_pb2.DeferFilteringRequest, work: Work
    ) -> firewall_pb2.DeferFilteringResponse:
        """See FirewallService.DeferFiltering."""

    @abstractmethod
    def apply_filtering(
        self, request: firewall_pb2.ApplyFilteringRequest, work: Work
    ) -> firewall_pb2.ApplyFilteringResponse:
        """See FirewallService.ApplyFiltering."""
