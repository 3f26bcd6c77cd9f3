"""`make soak`: what takes too long for every change, about half an hour in all.

    storm       random verbs of many controllers on few instances; the daemon is killed beneath them
    storm-fake  the same, with many more on the fake
    models      one instance goes by chance through all verbs, held against the model
    hypervisor  libvirtd is stopped for a minute, then killed again and again beneath a storm
    fleet       twenty guests; the daemon is killed and started, and they do not notice
    busy        a guest writes to disks of every bus, while their volumes are changed under it
    deaths      the daemon dies around every step of every verb, on real QEMU
    cancels     each verb is cancelled in each of its steps, on real QEMU
    losses      the hypervisor is lost in each step of each verb, for a moment
    watchers    two hundred watchers, half of them stopped, under a storm of events
    migrations  between two real hosts: everybody dies once in every phase

Each says what it did and every promise that was broken (docs/reliability.md).
"""
