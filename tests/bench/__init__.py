"""How fast the product is, as ratios to what it stands on: `python -m tests.bench`.

A ratio says more than a time: both sides are measured in turns, in one run on one
machine, so what disturbs the machine disturbs both.

reads.py                GetInstance                 ÷ a bare grpc.aio reply
listing.py              ListInstances of 1,000      ÷ getAllDomainStats, virsh list
reads_beside_spawns.py  GetInstance, 8 guests start ÷ GetInstance at idle
lifecycle.py            spawn and destroy           ÷ the same calls of libvirt itself
fan_out.py              events to many watchers     ÷ bare grpc.aio streams
console_stream.py       a flooded console, followed ÷ a bare stream, and the file itself
console_flood.py        GetInstance beside a flood   ÷ a bare grpc.aio reply beside it
migration.py            a live migration            ÷ libvirt's own, by virsh
memory.py               memory and pace after many calls ÷ before them
"""
