"""Which methods of the hypervisor driver contract each RPC mirrors.

Facts taken from that contract, not from the descriptors: the descriptors are
held against them. Each entry is the RPC's kind and its driver methods:
R read, M mutation, L long-running, S stream, C control of operations.
"""

from collections.abc import Mapping

from virtrpc.v1 import options_pb2

KINDS: Mapping[str, int] = {
    "R": options_pb2.VERB_KIND_READ,
    "M": options_pb2.VERB_KIND_MUTATION,
    "L": options_pb2.VERB_KIND_LONG_RUNNING,
    "S": options_pb2.VERB_KIND_STREAM,
    "C": options_pb2.VERB_KIND_CONTROL,
}

DRIVER_METHODS: Mapping[str, Mapping[str, str]] = {
    "ConsoleService": {
        "GetConsoleOutput": "R get_console_output",
        "StreamConsoleOutput": "S",
        "AttachConsole": "S get_serial_console",
        "GetConsole": (
            "M get_vnc_console get_spice_console get_rdp_console get_serial_console "
            "get_mks_console get_ajax_console get_console_pool_info"
        ),
        "TunnelConsole": "S",
    },
    "DiagnosticsService": {
        "GetInstanceDiagnostics": "R get_diagnostics get_instance_diagnostics",
        "GetInstanceDiskInfo": "R get_instance_disk_info",
        "GetBlockStats": "R block_stats",
        "ListBandwidthCounters": "R get_all_bw_counters",
        "ListVolumeUsage": "R get_all_volume_usage",
        "ListInstanceUsage": "R get_per_instance_usage",
        "ExplainInstance": "R",
    },
    "EventService": {
        "WatchEvents": "S register_event_listener emit_event",
    },
    "FirewallService": {
        "RefreshSecurityGroup": "M refresh_security_group_rules refresh_security_group_members",
        "RefreshInstanceSecurityRules": "M refresh_instance_security_rules",
        "EnsureFilteringRules": "M ensure_filtering_rules_for_instance",
        "UnfilterInstance": "M unfilter_instance",
        "DeferFiltering": "M filter_defer_apply_on",
        "ApplyFiltering": "M filter_defer_apply_off",
    },
    "HostService": {
        "GetHost": "R get_host_uptime get_host_ip_addr get_host_cpu_stats init_host cleanup_host",
        "GetCapabilities": (
            "R capabilities capabilities_as_traits requires_allocation_refresh "
            "rebalances_nodes need_legacy_block_device_info"
        ),
        "GetAvailableResource": "R get_available_resource update_available_resource",
        "GetInventory": "R get_inventory get_traits update_provider_tree",
        "EstimateInstanceOverhead": "R estimate_instance_overhead",
        "ListNodes": (
            "R get_available_nodes get_nodenames_by_uuid node_is_available is_node_deleted"
        ),
        "SetHostEnabled": "M set_host_enabled",
        "SetMaintenanceMode": "L host_maintenance_mode",
        "HostPowerAction": "M host_power_action",
        "AddToAggregate": "M add_to_aggregate",
        "RemoveFromAggregate": "M remove_from_aggregate",
        "UndoAggregateOperation": "M undo_aggregate_operation",
        "ImportInstance": "M",
    },
    "ImageService": {
        "ListImages": "R",
        "PullImage": "L cache_image",
        "UploadImage": "S",
        "DownloadImage": "S",
        "DeleteImage": "M",
        "ManageImageCache": "M manage_image_cache",
    },
    "InstanceService": {
        "SpawnInstance": "L spawn prepare_for_spawn failed_spawn_cleanup",
        "GetInstance": "R get_info instance_exists",
        "ListInstances": (
            "R list_instances list_instance_uuids list_instances_detail get_num_instances"
        ),
        "DestroyInstance": "M destroy",
        "CleanupInstance": "M cleanup cleanup_lingering_instance_resources",
        "DeleteInstanceFiles": "M delete_instance_files instance_on_disk",
        "CheckInstanceOnDisk": "R instance_on_disk",
        "RebuildInstance": "L rebuild",
        "RebootInstance": "M reboot",
        "PollRebootingInstances": "M poll_rebooting_instances",
        "PauseInstance": "M pause",
        "UnpauseInstance": "M unpause",
        "SuspendInstance": "L suspend",
        "ResumeInstance": "L resume",
        "ResumeInstanceOnHostBoot": "M resume_state_on_host_boot process_instances_at_startup",
        "PowerOffInstance": "M power_off",
        "PowerOnInstance": "M power_on power_update_event",
        "SetInstanceBootable": "M set_bootable",
        "RescueInstance": "M rescue",
        "UnrescueInstance": "M unrescue",
        "PollRescuedInstances": "M poll_rescued_instances",
        "SoftDeleteInstance": "M soft_delete",
        "RestoreInstance": "M restore",
        "TriggerCrashDump": "M trigger_crash_dump",
        "SetAdminPassword": "M set_admin_password",
        "InjectFile": "M inject_file",
        "InjectNetworkInfo": "M inject_network_info",
        "ResetInstanceNetwork": "M reset_network",
        "UpdateInstanceMetadata": "M change_instance_metadata get_instance_driver_metadata",
        "QuiesceInstance": "M quiesce",
        "UnquiesceInstance": "M unquiesce",
        "SnapshotInstance": "L snapshot snapshot_instance post_interrupted_snapshot_cleanup",
        "MountShare": "M mount_share",
        "UmountShare": "M umount_share",
    },
    "InterfaceService": {
        "AttachInterface": "M attach_interface",
        "DetachInterface": "M detach_interface",
        "PlugInterfaces": "M plug_vifs",
        "UnplugInterfaces": "M unplug_vifs",
        "PrepareNetworks": "M prepare_networks_before_block_device_mapping",
        "CleanNetworksPreparation": "M clean_networks_preparation",
        "GetInterfacePolicy": (
            "R macs_for_instance network_binding_host_id manages_network_binding_host_id "
            "deallocate_networks_on_reschedule"
        ),
    },
    "MigrationService": {
        "LiveMigrateInstance": (
            "L live_migration post_live_migration post_live_migration_at_source "
            "rollback_live_migration_at_source"
        ),
        "WatchMigration": "S",
        "AbortLiveMigration": "M live_migration_abort",
        "ForceCompleteLiveMigration": "M live_migration_force_complete",
        "CheckDestination": "R check_can_live_migrate_destination",
        "CleanupDestinationCheck": "M cleanup_live_migration_destination_check",
        "CheckSource": "R check_can_live_migrate_source check_source_migrate_data_at_dest",
        "CheckSharedStorageLocal": "M check_instance_shared_storage_local",
        "CheckSharedStorageRemote": "R check_instance_shared_storage_remote",
        "CleanupSharedStorageCheck": "M check_instance_shared_storage_cleanup",
        "PrepareDestination": "M pre_live_migration post_claim_migrate_data",
        "ReceiveDisk": "S",
        "RollbackDestination": "M rollback_live_migration_at_destination",
        "CompleteSource": "M post_live_migration post_live_migration_at_source",
        "CompleteDestination": "M post_live_migration_at_destination",
        "MigrateDiskAndPowerOff": "L migrate_disk_and_power_off",
        "FinishMigration": "L finish_migration finish_resize",
        "ConfirmMigration": "M confirm_migration",
        "RevertMigration": "M finish_revert_migration revert_resize",
        "CompareCpu": "R compare_cpu",
    },
    "OperationService": {
        "GetOperation": "R",
        "ListOperations": "R",
        "WaitOperation": "S",
        "WatchOperation": "S",
        "CancelOperation": "C",
    },
    "VolumeService": {
        "AttachVolume": "M attach_volume",
        "DetachVolume": "M detach_volume",
        "SwapVolume": "L swap_volume",
        "ExtendVolume": "M extend_volume",
        "GetVolumeConnector": "R get_volume_connector",
        "CreateVolumeSnapshot": "L volume_snapshot_create",
        "DeleteVolumeSnapshot": "L volume_snapshot_delete",
        "AssignDeviceNames": (
            "R default_root_device_name default_device_names_for_instance "
            "get_device_name_for_instance"
        ),
        "CheckFilesystemSupport": "R is_supported_fs_format",
    },
}
