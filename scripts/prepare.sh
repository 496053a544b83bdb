#!/bin/sh
# Installs what Understudy's commands and tests need beyond Rust, on Debian and Ubuntu: a PostgreSQL
# server, libclang, a C compiler, make and setpriv. `prepare.sh cluster` adds what the test cluster
# needs: containerd, runc, the CNI plugins, iptables, conntrack, socat and three kinds of mkfs. `prepare.sh
# bench` adds the relays that the mirror is measured beside, callgrind, strace, and a User-Mode Linux where a process
# may have too few open files; `prepare.sh drivers` what the drivers of tests/drivers run on: Python, Node.js,
# Java. Several words may be given. Says what it installs before it does so; does nothing and prints nothing
# when all is there. Creates and starts no PostgreSQL cluster, no container runtime and no relay.
#
# It must not change what is there already: no upgrade, no setting that stays.
set -eu

say() { printf 'prepare: %s\n' "$*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

# Whether one of the files exists: exists PATTERN…, expanded by the caller.
exists() {
    for file in "$@"; do
        if [ -e "$file" ]; then return 0; fi
    done
    return 1
}

for word; do
    case $word in
        cluster | bench | drivers) ;;
        *) say "there is no $word: cluster, bench, drivers"; exit 2 ;;
    esac
done
words=" $* "
wanted() { case $words in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# --- What is missing -----------------------------------------------------------------------------

# A directory with everything of one server: a client alone has pg_basebackup, but no postgres.
has_postgres() {
    old_ifs=$IFS
    IFS=:
    for directory in $PATH /usr/lib/postgresql/*/bin; do
        complete=yes
        for program in postgres initdb pg_ctl pg_basebackup pgbench; do
            if [ ! -x "$directory/$program" ]; then complete=no; fi
        done
        if [ "$complete" = yes ]; then
            IFS=$old_ifs
            return 0
        fi
    done
    IFS=$old_ifs
    return 1
}

# The library and the compiler's own headers, which bindgen reads.
has_libclang() {
    if [ -n "${LIBCLANG_PATH:-}" ]; then return 0; fi
    exists /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-[0-9]*.so* \
        /usr/lib/*/libclang.so* /usr/lib/*/libclang-[0-9]*.so* /usr/lib64/libclang.so* /usr/local/lib/libclang.so* &&
        exists /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib/clang/*/include/stddef.h \
            /usr/lib64/clang/*/include/stddef.h /usr/local/lib/clang/*/include/stddef.h
}

has_compiler() {
    has cc && exists /usr/include/stdio.h
}

missing=
packages=
lacks() {
    missing="$missing${missing:+, }$1"
    shift
    packages="$packages${packages:+ }$*"
}
has_postgres || lacks 'a PostgreSQL server with pgbench' postgresql
has_libclang || lacks 'libclang' libclang
has_compiler || lacks 'a C compiler' gcc libc6-dev
has make || lacks 'make' make
has setpriv || lacks 'setpriv' util-linux
if wanted cluster; then
    has containerd || lacks 'containerd' containerd
    has runc || lacks 'runc' runc
    exists /usr/lib/cni/bridge || lacks 'the CNI plugins' containernetworking-plugins
    has iptables || lacks 'iptables' iptables
    has conntrack || lacks 'conntrack' conntrack
    has socat || lacks 'socat' socat
    has ip || lacks 'ip' iproute2
    has mkfs.ext4 || lacks 'mkfs.ext4' e2fsprogs
    has mkfs.xfs || lacks 'mkfs.xfs' xfsprogs
    has mkfs.btrfs || lacks 'mkfs.btrfs' btrfs-progs
    # Debian's own is too old.
    has go || { say 'this machine lacks Go 1.26, which the cluster is built with: see https://go.dev/dl'; exit 1; }
fi
if wanted bench; then
    exists /usr/sbin/haproxy || lacks 'HAProxy' haproxy
    exists /usr/sbin/pgbouncer || lacks 'PgBouncer' pgbouncer
    has valgrind || lacks 'callgrind' valgrind
    has strace || lacks 'strace' strace
    # Ten thousand sessions need some 33,000 open files, which this machine may not allow; one of its own does.
    if [ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 33000 ] && [ "$(uname -m)" = x86_64 ]; then
        has linux.uml || lacks 'User-Mode Linux' user-mode-linux
        has ip || lacks 'ip' iproute2
    fi
fi
if wanted drivers; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || lacks 'Python with venv' python3 python3-venv
    has node || lacks 'Node.js' nodejs
    has npm || lacks 'npm' npm
    has javac || lacks 'a JDK' default-jdk-headless
    has curl || lacks 'curl' curl ca-certificates
fi
if [ -z "$missing" ]; then exit 0; fi

# --- How to get it -------------------------------------------------------------------------------

if ! has apt-get; then
    say "this machine lacks $missing, and has no apt-get to install it with; install it with your system's packages and run the command again"
    exit 1
fi

root=
if [ "$(id -u)" -ne 0 ]; then
    # Without a terminal nobody can type a password.
    if has sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        root=sudo
    else
        say "this machine lacks $missing, and installing needs root; run: sudo scripts/prepare.sh $*"
        exit 1
    fi
fi

cd "$(dirname "$0")/.."
mkdir -p target
log=target/prepare.log
: >"$log"

quietly() {
    if ! $root env DEBIAN_FRONTEND=noninteractive "$@" >>"$log" 2>&1; then return 1; fi
}

fail() {
    say "$1; the end of $log says:"
    tail -n 15 "$log" >&2
    exit 1
}

known() { apt-cache show "$1" >/dev/null 2>&1; }

updated=no
update() {
    if [ "$updated" = yes ]; then return 0; fi
    updated=yes
    say 'fetching the package lists (apt-get update)'
    quietly apt-get update || fail 'apt-get update failed'
}

install() {
    quietly apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" && return 0
    # Lists that are too old name files that are gone.
    update
    quietly apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" ||
        fail "apt-get install $* failed"
}

say "this machine lacks $missing"
for package in $packages; do
    case $package in libclang) package=libclang-dev ;; esac
    known "$package" || update
done

# libclang-dev is the newest libclang with a quarter of a gigabyte of static libraries: its runtime
# library and headers are enough.
clang=$(apt-cache depends libclang-dev 2>/dev/null | sed -n 's/^ *Depends: libclang-\([0-9][0-9]*\)-dev$/\1/p' | head -n 1)
list=
for package in $packages; do
    case $package in
        libclang) package=${clang:+libclang1-$clang libclang-common-$clang-dev} package=${package:-libclang-dev} ;;
    esac
    list="$list${list:+ }$package"
done
say "installing with apt-get: $list"

# --- Installing ----------------------------------------------------------------------------------

# Debian's server package creates and starts a cluster called main unless createcluster.conf forbids
# it. It is forbidden for as long as the installation takes; the file is then as it was.
conf=/etc/postgresql-common/createcluster.conf
saved=$conf.before-understudy

restore() {
    if [ -e "$saved" ]; then $root mv -f "$saved" "$conf"; fi
}

case " $list " in
    *' postgresql '*)
        say 'no PostgreSQL cluster is created or started by this'
        restore
        trap restore EXIT
        trap 'exit 129' HUP
        trap 'exit 130' INT
        trap 'exit 143' TERM
        install postgresql-common
        $root cp -p "$conf" "$saved"
        echo 'create_main_cluster = false' | $root tee -a "$conf" >/dev/null
        ;;
esac

# Services of this installation are neither started now nor at the next start of the machine.
policy=/usr/sbin/policy-rc.d
ours=no
allow() {
    if [ "$ours" = yes ]; then $root rm -f "$policy"; fi
}
case " $list " in
    *' containerd '* | *' haproxy '* | *' pgbouncer '*)
        say 'no service is started by this'
        if [ ! -e "$policy" ]; then
            ours=yes
            trap 'allow; restore' EXIT
            trap 'exit 129' HUP
            trap 'exit 130' INT
            trap 'exit 143' TERM
            printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
            $root chmod 755 "$policy"
        fi
        ;;
esac
# shellcheck disable=SC2086  # a list of names
install $list
for service in containerd haproxy pgbouncer; do
    case " $list " in
        *" $service "*) if [ -d /run/systemd/system ]; then quietly systemctl disable "$service" || true; fi ;;
    esac
done
say 'done'
