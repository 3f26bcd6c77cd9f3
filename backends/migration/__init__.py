"""Live migration, the part that every hypervisor shares: who asks whom, what is kept, what undone.

book         what either daemon knows of a migration, on disk
driver       what a backend has to bring
checks       what stands in the way
source       the source's part: check, prepare, transfer, complete, or roll back
destination  the destination's part
storage      do two hosts see the same directory?
verbs        the facets over all of it
"""
