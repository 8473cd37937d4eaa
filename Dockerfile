# syntax=docker/dockerfile:1
# transmla in a slim image. Not built where it was written (there was no Docker daemon): its steps are those of the README.
#
#   docker build -t transmla .
#   docker run --rm -v "$PWD":/work -v "$HOME/.cache/huggingface":/cache transmla convert --model-path org/model --save-path mla
#
# Files that it writes belong to the user it runs as: `--user "$(id -u):$(id -g)"` makes that the caller.

FROM rust:1-slim-bookworm AS build
# cc for mimalloc and zstd; everything else is Rust.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# .dockerignore leaves rust-toolchain.toml out: the image's toolchain is a stable one, and rustup would fetch another.
RUN cargo build --release --locked --workspace --bin transmla \
    && strip target/release/transmla

FROM debian:bookworm-slim
# Certificates are in the binary; the folders are what it writes to.
RUN useradd --create-home --uid 1000 transmla \
    && mkdir --mode=1777 /work /cache
COPY --from=build /src/target/release/transmla /usr/local/bin/transmla
COPY LICENSE README.md /usr/local/share/doc/transmla/
ENV HF_HOME=/cache
USER transmla
WORKDIR /work
ENTRYPOINT ["transmla"]
CMD ["--help"]
