# shellcheck shell=bash disable=SC2154,SC2016
# Stand-ins for the images in Dockerfile and docker-compose.yml, built from Debian packages, so that
# both files can be tested unchanged where no image registry can be reached.
# Sourced by scripts/compose-test.sh. Root file systems are created once and kept in $CACHE.

# tree SUITE PACKAGES [NAME]: creates a Debian root file system in $CACHE/NAME.
tree() {
    local suite=$1 packages=$2 name=${3:-$1} dir=$CACHE/${3:-$1}
    [ -e "$dir.complete" ] && return
    say "unpacking Debian $suite with $packages"
    rm -rf "$dir"
    debootstrap --variant=minbase --include="$packages" "$suite" "$dir" "$MIRROR" \
        >"$CACHE/$name.log" 2>&1 || { tail -n 5 "$CACHE/$name.log" >&2; fail "debootstrap $suite"; }
    touch "$dir.complete"
}

# fetch SUITE PACKAGE DIR: unpacks a package of a newer suite without installing it.
fetch() {
    local suite=$1 package=$2 dir=$3 root=$CACHE/trixie
    [ -e "$dir/.complete-$package" ] && return
    say "fetching $package of Debian $suite"
    echo "deb $MIRROR $suite main" >"$root/etc/apt/sources.list.d/$suite.list"
    # The mirror may be a snapshot whose Release file has expired.
    chroot "$root" sh -c "cd /var/tmp && apt-get update -qq -o Acquire::Check-Valid-Until=false && apt-get download -qq $package/$suite" \
        >"$CACHE/fetch.log" 2>&1 || { tail -n 5 "$CACHE/fetch.log" >&2; fail "downloading $package"; }
    rm "$root/etc/apt/sources.list.d/$suite.list"
    mkdir -p "$dir"
    dpkg -x "$root"/var/tmp/"$package"_*.deb "$dir"
    rm "$root"/var/tmp/"$package"_*.deb
    touch "$dir/.complete-$package"
}

# Downloads what the builds of the examples need: Python wheels and node_modules.
fetch_packages() {
    local examples=examples/consumers
    fetched $examples/python/requirements.txt "$CACHE/wheels" || {
        say "fetching the packages of the Python example"
        scripts/test-packages.sh
        rm -rf "$CACHE/wheels"
        .dev/python/bin/pip download --quiet --disable-pip-version-check --only-binary=:all: \
            --python-version 3.13 --platform "manylinux2014_$(uname -m)" \
            --platform "manylinux_2_28_$(uname -m)" --dest "$CACHE/wheels" \
            --requirement $examples/python/requirements.txt
        mark_fetched $examples/python/requirements.txt "$CACHE/wheels"
    }
    fetched $examples/typescript/package-lock.json "$CACHE/node" || {
        say "fetching the packages of the TypeScript example"
        rm -rf "$CACHE/node"
        mkdir -p "$CACHE/node"
        cp $examples/typescript/package.json $examples/typescript/package-lock.json "$CACHE/node/"
        (cd "$CACHE/node" && npm ci --ignore-scripts --no-audit --no-fund --silent)
        mark_fetched $examples/typescript/package-lock.json "$CACHE/node"
    }
}

fetched() { [ "$(cat "$2/.fetched" 2>/dev/null)" = "$(sha256sum <"$1")" ]; }
mark_fetched() { sha256sum <"$1" >"$2/.fetched"; }

# import SUITE NAME: imports a root file system from $CACHE as an image.
import() {
    tar -C "$CACHE/$1" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' \
        --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' -c . |
        docker import - "$2" >/dev/null
}

# build NAME DIR: builds an image from the Dockerfile on standard input and the files in DIR.
build() {
    cat >"$2/Dockerfile"
    docker build --quiet --tag "$1" "$2" >/dev/null || fail "building the stand-in of $1"
}

# Downloads everything from outside, because the engine has no network.
fetch_stand_ins() {
    MIRROR=$(scripts/mirror.sh)
    mkdir -p "$CACHE"
    tree bookworm ca-certificates
    tree trixie rabbitmq-server
    tree trixie python3,python3-pip,nodejs languages
    tree trixie prometheus monitoring
    fetch_packages
    fetch sid caddy "$CACHE/caddy"
}

# make_stand_ins BINARY CHECKOUT: creates the images under the names in the two files.
make_stand_ins() {
    local binary=$1 checkout=$2 context=$WORK/context
    builder=$(awk '$1 == "FROM" && /AS build$/ { print $2 }' "$checkout/Dockerfile")
    runtime=$(awk '$1 == "FROM" { last = $2 } END { print last }' "$checkout/Dockerfile")
    broker=$(awk '$1 == "image:" { print $2 }' "$checkout/config/compose/broker.yml")
    prometheus=$(awk '$1 == "image:" && /prometheus/ { print $2 }' "$checkout/docker-compose.yml")
    proxy=$(awk '$1 == "image:" && /caddy/ { print $2 }' "$checkout/docker-compose.yml")
    say "stand-ins: $runtime = Debian bookworm, minimal"
    import bookworm "$runtime"
    say "           $builder = the same; its cargo copies a binary built outside"
    mkdir -p "$context/builder" "$context/broker" "$context/proxy"
    cp "$binary" "$context/builder/deskbridge"
    cp scripts/compose-test/cargo.sh "$context/builder/cargo"
    build "$builder" "$context/builder" <<TEXT
FROM $runtime
COPY cargo /usr/local/bin/cargo
COPY deskbridge /stand-in/deskbridge
TEXT
    say "           $broker = RabbitMQ $(version trixie rabbitmq-server) of Debian trixie"
    import trixie stand-in/trixie
    cp scripts/compose-test/rabbitmq-entrypoint.sh "$context/broker/docker-entrypoint.sh"
    build "$broker" "$context/broker" <<'TEXT'
FROM stand-in/trixie
ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/bin:/usr/bin:/bin HOME=/var/lib/rabbitmq LANG=C.UTF-8
COPY docker-entrypoint.sh /usr/local/bin/
RUN mkdir -p /etc/rabbitmq/conf.d \
 && echo '[rabbitmq_management,rabbitmq_prometheus].' > /etc/rabbitmq/enabled_plugins \
 && echo 'loopback_users.guest = false' > /etc/rabbitmq/conf.d/10-defaults.conf \
 && echo 'log.console = true' >> /etc/rabbitmq/conf.d/10-defaults.conf \
 && ln -s /var/lib/rabbitmq/.erlang.cookie /root/.erlang.cookie
VOLUME /var/lib/rabbitmq
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["rabbitmq-server"]
TEXT
    make_stand_ins_of_languages "$checkout/examples/consumers"
    make_stand_in_of_monitoring
    say "           $proxy = Caddy of Debian sid on Debian trixie"
    cp "$CACHE/caddy/usr/bin/caddy" "$context/proxy/caddy"
    build "$proxy" "$context/proxy" <<'TEXT'
FROM stand-in/trixie
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
COPY caddy /usr/bin/caddy
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
TEXT
}

# Creates the image of Prometheus. There is no stand-in for Grafana: Debian has no package of it.
make_stand_in_of_monitoring() {
    local context=$WORK/context/monitoring
    say "           $prometheus = Prometheus $(version monitoring prometheus) of Debian trixie"
    import monitoring stand-in/monitoring
    mkdir -p "$context"
    build "$prometheus" "$context" <<'TEXT'
FROM stand-in/monitoring
RUN mkdir /prometheus && chown nobody:nogroup /prometheus
USER nobody
VOLUME /prometheus
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
TEXT
}

# make_stand_ins_of_languages EXAMPLES: creates the Python and Node.js images.
make_stand_ins_of_languages() {
    local context=$WORK/context python node
    python=$(awk '$1 == "FROM" { last = $2 } END { print last }' "$1/python/Dockerfile")
    node=$(awk '$1 == "FROM" { last = $2 } END { print last }' "$1/typescript/Dockerfile")
    say "           $python = Python $(version languages python3) of Debian trixie, with local wheels"
    say "           $node = Node.js $(version languages nodejs) of the same; its npm copies packages"
    import languages stand-in/languages
    mkdir -p "$context/python" "$context/node"
    cp -r "$CACHE/wheels" "$context/python/wheels"
    build "$python" "$context/python" <<'TEXT'
FROM stand-in/languages
COPY wheels /stand-in/wheels
RUN ln -s python3 /usr/bin/python
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/stand-in/wheels PIP_BREAK_SYSTEM_PACKAGES=1
TEXT
    cp -r "$CACHE/node/node_modules" "$context/node/node_modules"
    cp scripts/compose-test/npm.sh "$context/node/npm"
    build "$node" "$context/node" <<'TEXT'
FROM stand-in/languages
COPY npm /usr/local/bin/npm
COPY node_modules /stand-in/node_modules
TEXT
}

version() {
    chroot "$CACHE/$1" dpkg-query --show --showformat='${Version}' "$2"
}
