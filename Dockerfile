# deskbridge in a container: built from this checkout, run by its own user, started without a shell.
# Works with BuildKit and with the classic builder. Needs no build arguments.

# The same toolchain as in rust-toolchain.toml (which is not part of the build): change both together.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src

# Dependencies first: this layer is rebuilt only when Cargo.toml, Cargo.lock or .cargo changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --features otel --bin deskbridge \
 && rm -r src

COPY src src
# The sources are older than the artifacts of the empty sources; without `touch` cargo would not rebuild.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --features otel --bin deskbridge

# The same image as for `init` in docker-compose.yml, which says why there is no digest.
FROM debian:bookworm-20260824-slim

# For amqps:// to a broker with a certificate of a public authority.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# The user id is fixed, because volumes outlive images. The journal's volume gets its owner from here.
RUN groupadd --gid 10001 deskbridge \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /opt/deskbridge \
      --shell /usr/sbin/nologin deskbridge \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/deskbridge

# Every command finds the configuration here without --config: `docker compose exec bridge deskbridge check`.
WORKDIR /opt/deskbridge
COPY config/docker.toml config/deskbridge.toml
COPY --from=build /src/target/release/deskbridge /usr/local/bin/deskbridge

LABEL org.opencontainers.image.title="deskbridge" \
      org.opencontainers.image.description="The bridge between DeskDirector's chat webhooks and RabbitMQ" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

USER 10001:10001
VOLUME /var/lib/deskbridge
# 8080: webhooks. 9180: health, status and metrics.
EXPOSE 8080 9180
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["deskbridge", "health"]
ENTRYPOINT ["deskbridge"]
CMD ["serve"]
