# shellcheck shell=bash
# Python, its virtual environment, and what is built with it. Sourced by `prepare`,
# which sets `profile`, `logs`, `say`, `die` and `logged`.

venv=.venv

# Prints the interpreter that environments are made from, if there is one.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import sys; assert sys.version_info >= (3, 11); print(sys.executable)' \
            2>/dev/null && return
    done
    return 1
}

# Debian has the headers in a package of their own; other interpreters bring them.
python_packages() {
    case $(find_python) in
    /usr/bin/*) echo python3-dev ;;
    esac
}

# What environments are made with comes before all else, so that they are made
# while the other packages are installed.
install_python() {
    local python
    python=$(find_python) && "$python" -c 'import ensurepip' 2>/dev/null && return
    if [ -z "$(obstacle)" ] && [ "${python:-/usr/bin/python3}" = /usr/bin/python3 ]; then
        say "installing packages: python3-venv"
        apt_install python3-venv || true
    fi
    python=$(find_python) || die "needs Python 3.11 or later; here is $(python3 -V 2>&1 | head -n 1)"
    "$python" -c 'import ensurepip' 2>/dev/null || die "needs Python's venv (package python3-venv)"
}

# current STAMP FACT...: the stamp holds these facts.
current() {
    [ "$(cat "$1" 2>/dev/null)" = "${*:2}" ]
}

# What an environment is made from; it cannot be moved.
environment_facts() {
    echo "$PWD" "$(find_python)" "$("$(find_python)" -V)" \
        "$(cat pyproject.toml clients/python/pyproject.toml | sha256sum)"
}

make_environment() {
    local facts dev=""
    facts=$(environment_facts)
    current "$venv/test.stamp" "$facts" && return
    [ "${profile:?}" = run ] || dev="[dev]"
    current "$venv/$profile.stamp" "$facts" && return
    say "making the Python environment $venv"
    [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)' 2>/dev/null)" = "$PWD/$venv" ] ||
        logged venv "$(find_python)" -m venv --clear "$venv"
    logged "pip-$profile" "$venv/bin/python" -m pip install -e 'clients/python[cli]' -e ".$dev"
    echo "$facts" >"$venv/$profile.stamp"
}

# extra NAME: the requirements of an extra, without making the package itself anew.
extra() {
    "$venv/bin/python" - "$1" <<'END'
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]]))
END
}

install_libvirt_python() {
    local facts
    facts=$(environment_facts)
    current "$venv/libvirt.stamp" "$facts" && return
    pkg-config --exists libvirt libvirt-qemu 2>/dev/null || return 0
    say "building libvirt-python"
    extra libvirt >"${logs:?}/libvirt.txt"
    logged pip-libvirt "$venv/bin/python" -m pip install -r "$logs/libvirt.txt"
    echo "$facts" >"$venv/libvirt.stamp"
}

build_guest() {
    command -v qemu-img >/dev/null && command -v apt-get >/dev/null || return 0
    if logged guest "$venv/bin/python" tests/guest/build.py --out .cache/guest; then
        [ "$profile" = run ] || build_generic_guest
        return
    fi
    [ "$profile" = run ] || return 1
    say "the test guest cannot be built here; the fake backend serves"
}

# With SATA and USB. After the other, whose packages but for the kernel are the same.
build_generic_guest() {
    logged guest-generic "$venv/bin/python" tests/guest/build.py --kernel generic
}

# buf. Not `npm ci`: the lock file has the platforms that it was made with alone.
install_buf() {
    local stamp=protos/node_modules/.stamp facts
    facts=$(sha256sum protos/package-lock.json)
    current $stamp "$facts" && return
    say "installing the Node modules of protos"
    logged npm npm install --prefix protos --no-save
    echo "$facts" >$stamp
}

# The pages of the web console, where the daemon of this environment looks for them.
build_web() {
    local pages=$venv/share/virtrpc/web facts
    facts=$(cat clients/web/package-lock.json clients/web/build.mjs clients/web/src/* | sha256sum)
    current "$pages/.stamp" "$facts" && return
    say "building the web console"
    logged npm-web npm ci --prefix clients/web
    logged web node clients/web/build.mjs "$pages"
    echo "$facts" >"$pages/.stamp"
}

fetch_proto_tools() {
    logged protoc "$venv/bin/python" protos/generate.py --include
}
