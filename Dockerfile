# syntax=docker/dockerfile:1
# For a CPU:        docker build -t approxnas .
# For NVIDIA GPUs:  docker build -t approxnas --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 --build-arg TORCH=cu128 .
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

ARG TORCH=cpu
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# CUDA's images bring no Python. A C compiler is what Triton builds its launchers with.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/approxnas
COPY . .
RUN "$(command -v /usr/local/bin/python3 || command -v python3)" -m venv /opt/venv \
    && torch="$(grep -E '^torch==' constraints.txt)" \
    && /opt/venv/bin/pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/${TORCH}" "${torch}" \
    && grep -v -E '^torch==' constraints.txt > /opt/constraints.txt \
    && /opt/venv/bin/pip install --no-cache-dir -c /opt/constraints.txt -e '.[export,gpu]'

RUN useradd --create-home --uid 10001 researcher
USER 10001
WORKDIR /home/researcher
ENV PATH="/opt/venv/bin:${PATH}"
ENTRYPOINT ["approxnas"]
CMD ["--help"]
