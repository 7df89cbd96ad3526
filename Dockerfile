# Images of the three layers and of the one-process form, one target each:
#
#     docker build --target speed-layer -t lamina/speed-layer .
#
# Third-party crates are compiled in a layer of their own (`dependencies`) that changes only with Cargo.lock and the
# manifests, so it needs no cache mounts and works with every builder. The first build takes about 50 CPU-minutes.

# Where the binaries come from: the stage below that compiles them, or an image that has them in `/out`, which spares
# the compiling when they have been built already: `--build-arg BINARIES=registry/lamina-binaries:1.2.3`.
ARG BINARIES=compiled

FROM rust:1.95.0-slim-bookworm AS toolchain
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
# The image's own toolchain, not one that rust-toolchain.toml would fetch; zlib compiled in, so that the binaries need
# nothing but glibc.
ENV RUSTUP_TOOLCHAIN=1.95.0 LIBZ_SYS_STATIC=1 CARGO_TERM_COLOR=never
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /src

FROM toolchain AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM toolchain AS dependencies
COPY --from=plan /src/recipe.json .
RUN cargo chef cook --locked --profile dist --bins --recipe-path recipe.json \
    --package batch-layer --package speed-layer --package serving-layer --package lamina

FROM dependencies AS compiled
COPY . .
RUN cargo build --locked --profile dist --bins \
    --package batch-layer --package speed-layer --package serving-layer --package lamina \
    && mkdir /out \
    && cd target/dist \
    && cp batch-layer speed-layer serving-layer lamina /out/

FROM ${BINARIES} AS binaries

FROM debian:bookworm-slim AS base
# Certificates for the object store and the brokers; the variable is read by both TLS libraries that the binaries hold.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 lamina \
    && useradd --uid 10001 --gid lamina --no-create-home --home-dir /var/lib/lamina --shell /usr/sbin/nologin lamina \
    && install -d -o lamina -g lamina -m 0750 /var/lib/lamina
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt LAMINA_DATA=/var/lib/lamina
USER 10001:10001
WORKDIR /var/lib/lamina
# Spilled bytes of recomputes and queries go to the system's folder for temporary files; what is here outlives a restart
# only in the one-process form, which keeps the embedded log in it.
VOLUME /var/lib/lamina
# The first SIGTERM stops in order: a speed worker serves on until its partitions have another owner (10 seconds), then no
# new work is taken and what is at work ends within 15 seconds; exit 0.
STOPSIGNAL SIGTERM

# Every layer listens on all addresses of its container, and so refuses to start until it has been given the secret that
# the layers share (LAMINA_SECRET: batch and speed layer) or tokens (LAMINA_TOKENS: serving layer, and the secret to be
# answered by the others), or LAMINA_INSECURE=true.

FROM base AS batch-layer
COPY --from=binaries /out/batch-layer /usr/local/bin/
ENV LAMINA_LISTEN=0.0.0.0:8788
EXPOSE 8788
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["batch-layer", "--health"]
ENTRYPOINT ["batch-layer"]

FROM base AS speed-layer
COPY --from=binaries /out/speed-layer /usr/local/bin/
ENV LAMINA_LISTEN=0.0.0.0:8789
EXPOSE 8789
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["speed-layer", "--health"]
ENTRYPOINT ["speed-layer"]

FROM base AS serving-layer
COPY --from=binaries /out/serving-layer /usr/local/bin/
ENV LAMINA_LISTEN=0.0.0.0:8787
EXPOSE 8787
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["serving-layer", "--health"]
ENTRYPOINT ["serving-layer"]

FROM base AS lamina
COPY --from=binaries /out/lamina /usr/local/bin/
ENV LAMINA_LISTEN=0.0.0.0:8787 LAMINA_CATALOG=/catalog
EXPOSE 8787
# /healthz asks for no token, which `lamina status` would need.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${LAMINA_LISTEN##*:} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.. 200' <&3"]
ENTRYPOINT ["lamina"]
CMD ["up"]
