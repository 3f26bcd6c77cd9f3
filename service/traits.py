"""What the host can do in the words of os-traits, which schedulers share."""

from collections.abc import Iterable, Mapping

import os_traits

Words = tuple[str, ...]
# Features and verbs, as GetCapabilities names them → COMPUTE_…
_OF_CAPABILITY: Mapping[str, Words] = {
    "attach_interface": ("NET_ATTACH_INTERFACE",),
    "attach_volume": ("VOLUME_ATTACH",),
    "config_drive_openstack": ("DEVICE_TAGGING",),
    "extend_volume": ("VOLUME_EXTEND",),
    "image_qcow2": ("IMAGE_TYPE_QCOW2",),
    "image_raw": ("IMAGE_TYPE_RAW",),
    "interface_host_device": ("NET_VIF_MODEL_SRIOV",),
    "migration_auto_converge": ("MIGRATE_AUTO_CONVERGE",),
    "migration_post_copy": ("MIGRATE_POST_COPY",),
    "migration_same_host": ("SAME_HOST_COLD_MIGRATE",),
    "secure_boot": ("SECURITY_UEFI_SECURE_BOOT",),
    "uefi": ("FIRMWARE_UEFI",),
    "virtiofs": ("STORAGE_VIRTIO_FS", "SHARE_LOCAL_FS"),
    "vnc": ("GRAPHICS_MODEL_VGA",),
    "volume_multi_attach": ("VOLUME_MULTI_ATTACH",),
    "vtpm": ("SECURITY_TPM_1_2", "SECURITY_TPM_2_0", "SECURITY_TPM_CRB", "SECURITY_TPM_TIS"),
}
# What any specification may ask of any backend.
_ALWAYS: Words = (
    *("NODE", "ARCH_X86_64", "FIRMWARE_BIOS", "GRAPHICS_MODEL_NONE", "NET_VIF_MODEL_VIRTIO"),
    *("STORAGE_BUS_VIRTIO", "STORAGE_BUS_SCSI", "STORAGE_BUS_SATA", "STORAGE_BUS_USB"),
)
DISABLED = os_traits.COMPUTE_STATUS_DISABLED
# CPU features whose trait is not called like them → HW_CPU_X86_…; the features' names are
# those of libvirt's cpu_map.
_OF_CPU_FEATURE: Mapping[str, Words] = {
    "aes": ("AESNI",),
    "amd-no-ssb": ("AMD_NO_SSB",),
    "amd-ssbd": ("AMD_SSBD",),
    "bmi1": ("BMI",),
    "fma": ("FMA3",),
    "gfni": ("AVX512GFNI",),
    "ibpb": ("AMD_IBPB",),
    "md-clear": ("INTEL_MD_CLEAR",),
    "pcid": ("INTEL_PCID",),
    "pclmuldq": ("CLMUL",),
    "pclmulqdq": ("CLMUL",),
    "pni": ("SSE3",),
    "rtm": ("TSX",),
    "sha-ni": ("SHA",),
    "spec-ctrl": ("INTEL_SPEC_CTRL",),
    "ssbd": ("INTEL_SSBD",),
    "svm": ("SVM", "AMD_SVM"),
    "vaes": ("AVX512VAES",),
    "virt-ssbd": ("AMD_VIRT_SSBD",),
    "vmx": ("VMX", "INTEL_VMX"),
    "vpclmulqdq": ("AVX512VPCLMULQDQ",),
}
_STANDARD = frozenset(os_traits.get_traits())


def capability_traits(supported: Iterable[str]) -> frozenset[str]:
    """Traits that follow from the capabilities that are supported."""
    found = [*_ALWAYS, *(word for name in supported for word in _OF_CAPABILITY.get(name, ()))]
    return frozenset(f"COMPUTE_{word}" for word in found) & _STANDARD


def cpu_traits(features: Iterable[str]) -> frozenset[str]:
    """Traits of CPU features that guests can have; others have none."""
    words = (word for name in features for word in _cpu_words(name))
    return frozenset(f"HW_CPU_X86_{word}" for word in words) & _STANDARD


def _cpu_words(feature: str) -> Words:
    """ "sse4.1" → "SSE41", "avx512-vpopcntdq" → "AVX512VPOPCNTDQ"."""
    plain = feature.replace(".", "").replace("-", "").upper()
    return _OF_CPU_FEATURE.get(feature, (plain,))
