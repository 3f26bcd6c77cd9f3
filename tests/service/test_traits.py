"""Features in the words that schedulers share."""

import os_traits
import pytest

from service.traits import _OF_CAPABILITY, _OF_CPU_FEATURE, capability_traits, cpu_traits


@pytest.mark.parametrize(
    ("feature", "traits"),
    [
        ("avx2", {"HW_CPU_X86_AVX2"}),
        ("sse4.1", {"HW_CPU_X86_SSE41"}),
        ("pni", {"HW_CPU_X86_SSE3"}),
        ("avx512-vpopcntdq", {"HW_CPU_X86_AVX512VPOPCNTDQ"}),
        ("svm", {"HW_CPU_X86_SVM", "HW_CPU_X86_AMD_SVM"}),
        ("apic", set()),
        ("", set()),
    ],
)
def test_cpu_feature_has_its_trait_or_none(feature: str, traits: set[str]) -> None:
    assert cpu_traits([feature]) == traits


def test_every_name_in_the_tables_is_a_standard_one() -> None:
    standard = set(os_traits.get_traits())
    named = {f"HW_CPU_X86_{word}" for words in _OF_CPU_FEATURE.values() for word in words}
    named |= {f"COMPUTE_{word}" for words in _OF_CAPABILITY.values() for word in words}
    assert named <= standard


def test_capability_that_is_missing_has_no_trait() -> None:
    assert "COMPUTE_FIRMWARE_UEFI" in capability_traits(["uefi", "unknown"])
    assert "COMPUTE_FIRMWARE_UEFI" not in capability_traits([])
    assert "COMPUTE_NODE" in capability_traits([])
