"""Volumes of instances: what every backend reckons about them in the same way."""

from backends.volumes.policy import VolumePolicy

__all__ = ["VolumePolicy"]
