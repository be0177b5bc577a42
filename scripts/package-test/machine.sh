# shellcheck shell=bash disable=SC2154
# A clean Debian 12 with systemd as process 1, in a container of systemd-nspawn. It has no network but
# its own loopback. Sourced by scripts/package-test.sh; independent of deskbridge.

MACHINE_SECONDS_MAX=60
MACHINE_CGROUP=deskbridge-package-test-$$

# machine_make DIR: creates the Debian system, once. It has a broker and the tools of the checks.
machine_make() {
    local url
    [ ! -x "$1/usr/bin/rpm" ] || return 0
    url=$(scripts/mirror.sh)
    say "creating a Debian 12 in $1"
    rm -rf "$1.new"
    mkdir -p "$1.new"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,sqlite3,rabbitmq-server,rpm \
        bookworm "$1.new" "$url" >"$WORK/debootstrap" 2>&1 ||
        { tail -n 5 "$WORK/debootstrap" >&2; fail "debootstrap"; }
    rm -rf "$1"
    mv "$1.new" "$1"
}

# machine_start DIR: boots a copy of DIR that keeps nothing, sets machine_pid and init_pid.
machine_start() {
    mkdir "$WORK/machine"
    # The cgroups of version 2 and the overlay are mounted in a mount namespace of its own.
    # shellcheck disable=SC2016
    setsid unshare --mount sh -ec '
        mount --make-rprivate /
        mount -t tmpfs -o mode=0755 machine "$1"
        mkdir "$1/upper" "$1/work" "$1/root"
        mount -t overlay -o "lowerdir=$0,upperdir=$1/upper,workdir=$1/work" machine "$1/root"
        umount -R /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mkdir "/sys/fs/cgroup/$2"
        echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
        exec systemd-nspawn --quiet --boot --register=no --keep-unit --private-network \
            --machine="$2" --console=pipe --directory="$1/root"
    ' "$(realpath "$1")" "$WORK/machine" "$MACHINE_CGROUP" </dev/null >"$WORK/boot" 2>&1 &
    machine_pid=$!
    until_true "$MACHINE_SECONDS_MAX" is_booted
}

is_booted() {
    kill -0 "$machine_pid" 2>/dev/null || { cat "$WORK/boot" >&2; fail "the container does not start"; }
    init_pid=$(pgrep --parent "$machine_pid" --exact systemd) || return
    case $(inside systemctl is-system-running 2>/dev/null) in
        running | degraded) ;;
        *) return 1 ;;
    esac
}

# inside COMMAND...: runs the command in the container, as root in /.
inside() {
    nsenter --target "$init_pid" --all --root --wd \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

# machine_stop: ends the container and deletes its control groups.
machine_stop() {
    kill -TERM "$machine_pid" 2>/dev/null || true
    ends_within 20 "$machine_pid" || kill -KILL "${init_pid:-$machine_pid}" "$machine_pid" 2>/dev/null || true
    wait "$machine_pid" 2>/dev/null || true
    # shellcheck disable=SC2016
    unshare --mount sh -c '
        umount -R /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        find "/sys/fs/cgroup/$0" -depth -type d -exec rmdir {} +
    ' "$MACHINE_CGROUP" 2>/dev/null || true
}

# ends_within SECONDS PID
ends_within() {
    local deadline=$((SECONDS + $1))
    while kill -0 "$2" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || return
        sleep 0.2
    done
}
