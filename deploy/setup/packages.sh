# shellcheck shell=bash
# Debian packages: which are missing, and how they come. Sourced by `prepare`,
# which sets `here`, `profile`, `say` and `logged`.

# wanted PROFILE: lines "package [program]".
wanted() {
    local lists=("${here:?}/packages-run.txt")
    [ "$1" = run ] || lists+=("$here/packages-test.txt")
    grep -hv '^#' "${lists[@]}"
}

installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Reads lines "package [program]", prints the packages that are missing.
missing() {
    while read -r package program; do
        if [ -n "$program" ] && command -v "$program" >/dev/null; then continue; fi
        installed "$package" || echo "$package"
    done
}

# Why packages cannot be installed here; nothing where they can.
obstacle() {
    if ! command -v apt-get >/dev/null; then
        echo "this is no Debian"
    elif [ "$(id -u)" != 0 ]; then
        echo "that takes root"
    fi
}

# apt_install PACKAGE...: fails with the reason in apt.log.
apt_install() {
    local options=(--yes --quiet --no-install-recommends -o "DPkg::Lock::Timeout=300")
    hold_services
    # One repository out of reach need not matter: the installation tells.
    if [ -z "${lists_updated:-}" ]; then
        logged apt-update apt-get update --quiet -o "DPkg::Lock::Timeout=300" || true
        lists_updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive logged apt apt-get install "${options[@]}" "$@"
}

# No service that comes with the packages is needed, so none is started; the
# rule removes itself, and is void once this process has ended.
hold_services() {
    [ ! -e /usr/sbin/policy-rc.d ] || return 0
    printf '#!/bin/sh\n! kill -0 %s 2>/dev/null || exit 101\n' $$ >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

install_packages() {
    local packages reason
    packages=$({ wanted "${profile:?}"; python_packages; } | missing | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    reason=$(obstacle)
    if [ -n "$reason" ]; then
        say "cannot install ${packages% } ($reason); without QEMU the fake backend serves"
        return 0
    fi
    say "installing packages: ${packages% }"
    # shellcheck disable=SC2086 # one word each
    apt_install $packages && return 0
    [ "$profile" = run ] || return 1
    say "apt could not install ${packages% }; without QEMU the fake backend serves"
}
