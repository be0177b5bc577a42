# deskbridge in a container: built from this checkout, run by a user of its own, without a shell.
# Works with BuildKit and with the classic builder; needs no build arguments.

# The toolchain of rust-toolchain.toml (which is left out of the build): change both together.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src

# Dependencies first: this layer is built again only when Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin deskbridge \
 && rm -r src

COPY src src
# The sources are older than what was just built of the empty ones.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin deskbridge

# The same as `init` in docker-compose.yml, which says why there is no digest.
FROM debian:bookworm-20260824-slim

# For amqps:// to a broker whose certificate a public authority signed.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# The number is fixed: volumes outlive images. The journal's volume takes its owner from here.
RUN groupadd --gid 10001 deskbridge \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /opt/deskbridge \
      --shell /usr/sbin/nologin deskbridge \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/deskbridge

# Found by every command without --config: `docker compose exec bridge deskbridge check`.
WORKDIR /opt/deskbridge
COPY config/docker.toml config/deskbridge.toml
COPY --from=build /src/target/release/deskbridge /usr/local/bin/deskbridge

USER 10001:10001
VOLUME /var/lib/deskbridge
# Webhooks; health, status and metrics.
EXPOSE 8080 9180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["deskbridge", "health"]
ENTRYPOINT ["deskbridge"]
CMD ["serve"]
