"""Domains that the service did not make, taken over.

reading.py     a domain as a specification, and the parts that are said by none
disks.py       its disks and interfaces as parts of a specification
leftovers.py   what no specification can say: kept in the domain as it is
marks.py       what the service writes into the domain, and how that is taken out again
verb.py        ImportInstance
"""

from backends.libvirt.adoption.verb import LibvirtAdoption

__all__ = ["LibvirtAdoption"]
