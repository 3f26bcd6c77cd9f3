"""Domain XML as declarative elements: pure functions over lxml, without libvirt."""
