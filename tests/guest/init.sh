#!/bin/sh
# PID 1 of the test guest: makes the machine usable, prints the ready line on
# the console, then becomes busybox init (see /etc/inittab).
#
# Every process costs about 10 ms without hardware virtualisation, hence the
# shell builtins where a command would read better.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

mount_kernel_filesystems() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    mkdir /dev/pts /dev/virtio-ports
    mount -t devpts devpts /dev/pts
    ln -s /proc/self/fd /dev/fd
}

# Sets tty, data and one variable for each virtrpc.* switch.
read_cmdline() {
    tty=ttyS0 counter=0 flood=0 noacpi=0 disk=0
    read -r cmdline </proc/cmdline
    for word in $cmdline; do
        case $word in
        console=*) tty=${word#console=} tty=${tty%%,*} ;;
        virtrpc.counter=1) counter=1 ;;
        virtrpc.flood=1) flood=1 ;;
        virtrpc.noacpi=1) noacpi=1 ;;
        virtrpc.disk=1) disk=1 ;;
        esac
    done
    echo "$tty" >/run/tty
}

# Waits for a console whose driver is loaded later, such as hvc0.
await_console() {
    until [ -c "/dev/$tty" ]; do
        usleep 200000
    done
}

# Writers open the console anew each time: it is hung up when a login ends.
count() {
    await_console
    n=0
    while :; do
        n=$((n + 1))
        echo "count $n" >"/dev/$tty"
        usleep 200000
    done
}

flood() {
    await_console
    while :; do
        yes "virtrpc flood 0123456789abcdefghijklmnopqrstuvwxyz" >"/dev/$tty"
    done
}

name_guest() {
    id=
    [ -r /sys/class/dmi/id/product_uuid ] && read -r id </sys/class/dmi/id/product_uuid
    id=${id:-virtrpc-guest}
    hostname "guest-${id%%-*}"
    ip link set lo up
}

load_drivers() {
    cat /sys/bus/*/devices/*/modalias | sort -u | xargs modprobe -abq
}

# Controllers first, then what they found. Loading sd_mod waits until the
# kernel has probed all disks. mdev scans what is there before it goes to the
# background, and handles what is plugged in later (see /etc/mdev.conf).
find_devices() {
    load_drivers
    load_drivers
    [ -d /sys/bus/scsi ] && modprobe -abq sd_mod sr_mod
    modprobe -abq evdev
    echo online >/sys/devices/system/memory/auto_online_blocks
    mdev -d
}

make_ram_disk() {
    modprobe -q brd rd_nr=1 rd_size=4096
    zcat /data.ext4.gz >/dev/ram0
    echo /dev/ram0
}

# A writable filesystem that can be frozen: a partition of the guest's own
# disk, or else a RAM disk, as initramfs and tmpfs cannot be frozen.
mount_data() {
    device=
    [ "$disk" = 1 ] && device=$(findfs LABEL=virtrpc-data)
    mount -t ext4 "${device:-$(make_ram_disk)}" /mnt/data
}

# What earlier boots have left on the data partitions of all disks.
tell_markers() {
    for device in /dev/vd[a-z]2; do
        [ -b "$device" ] || continue
        if mount -t ext4 -r "$device" /mnt/other; then
            tell_marker /mnt/other "$device"
            umount /mnt/other
        else
            tell_marker /mnt/data "$device"
        fi
    done
}

tell_marker() {
    [ -r "$1/marker" ] || return
    read -r marker <"$1/marker"
    echo "marker ${2#/dev/}: $marker" >"/dev/$tty"
}

# The kernel drops a press of the power button that nobody listens for: acpid
# must have opened the button, then it writes its pid file, before we are ready.
watch_power_button() {
    [ "$noacpi" = 1 ] && return
    acpid -l /run/acpid.log -p /run/acpid.pid
    for _ in 1 2 3 4 5 6 7 8 9; do
        [ -e /run/acpid.pid ] && break
        usleep 20000
    done
}

start_networks() {
    for nic in /sys/class/net/eth*; do
        [ -d "$nic" ] && MDEV=${nic##*/} ACTION=add /usr/libexec/nic
    done
}

mount_kernel_filesystems
read_cmdline
[ "$counter" = 1 ] && count &
[ "$flood" = 1 ] && flood &
name_guest
find_devices 2>/run/devices.log
mount_data
[ "$disk" = 1 ] && tell_markers 2>>/run/devices.log
start_networks
watch_power_button
read -r uptime _ </proc/uptime
echo "virtrpc guest ready $id uptime=$uptime" >"/dev/$tty"
exec init
