# PostgreSQL with imgvec, ONNX Runtime and the starter model, on Debian 12.
#
#   docker build --tag imgvec .                               PostgreSQL 17
#   docker build --tag imgvec --build-arg PG_MAJOR=15 .       14 to 18 exist; 15, 17 and 18 are tested
#   docker run --rm -e POSTGRES_PASSWORD=secret -p 127.0.0.1:5432:5432 imgvec
#
# A new database server has the extension in its first database. Mount models of your own, one directory each, below
# /usr/share/postgresql/17/imgvec/models.
#
# `tests/packaging.rs` keeps this file in step with the sources.
ARG PG_MAJOR=17

FROM rust:1.89-slim-bookworm AS rust

FROM postgres:${PG_MAJOR}-bookworm AS build
ARG PG_MAJOR
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# What tests/setup.sh would install.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends \
        "postgresql-server-dev-${PG_MAJOR}" gcc libc6-dev make pkg-config clang libclang-dev ca-certificates \
        python3 python3-pip && \
    rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:$PATH
WORKDIR /imgvec
COPY . .
# Compiles, fetches ONNX Runtime as a wheel of PyPI whose checksum is known, and installs below /installed.
RUN make install DESTDIR=/installed PG_CONFIG="/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config"

FROM postgres:${PG_MAJOR}-bookworm
COPY --from=build /installed /
RUN echo 'CREATE EXTENSION IF NOT EXISTS imgvec;' >/docker-entrypoint-initdb.d/imgvec.sql
USER postgres
