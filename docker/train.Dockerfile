# The image of apps/train, for CPU and GPU: PyTorch brings its own CUDA libraries. See docs/images.md.
ARG BASE=base

# Dependabot updates this line. With another BASE, Docker does not download it.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS base

# uv, flit, and an empty environment. No final image contains this stage.
FROM ${BASE} AS tools
COPY .ci/tools.txt /build/.ci/
RUN --mount=type=secret,id=ca.crt --mount=type=secret,id=pip.conf \
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi; \
    if [ -s /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi; \
    python3 -m venv /opt/tools && \
    /opt/tools/bin/pip install --no-cache-dir --require-hashes -r /build/.ci/tools.txt && \
    /opt/tools/bin/uv venv --no-cache --python "$(command -v python3)" /opt/venv
ENV PATH=/opt/tools/bin:$PATH
WORKDIR /build

# The entries of requirements.txt, with their hashes, that training needs. Development tools are left out, so changing
# them does not install PyTorch again: the next stage depends on the content of locked.txt alone.
FROM tools AS requirements
COPY requirements.txt docker/siblings.overrides ./
COPY packages/cls-callbacks/pyproject.toml packages/cls-callbacks/
COPY packages/cls-data/pyproject.toml packages/cls-data/
COPY packages/cls-export/pyproject.toml packages/cls-export/
COPY packages/cls-models/pyproject.toml packages/cls-models/
COPY packages/cls-report/pyproject.toml packages/cls-report/
COPY apps/train/pyproject.toml apps/train/
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca.crt --mount=type=secret,id=uv.toml \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    if [ -s /run/secrets/uv.toml ]; then export UV_CONFIG_FILE=/run/secrets/uv.toml; fi; \
    uv pip compile --quiet --no-sources --no-header --no-annotate --all-extras \
        --constraints requirements.txt --overrides siblings.overrides --output-file names.txt \
        packages/*/pyproject.toml apps/train/pyproject.toml && \
    awk 'FNR == NR { names[$1]; next } /^[a-z]/ { keep = $1 in names } keep' \
        names.txt requirements.txt >locked.txt

# The packages of this repository. This is all that a code change rebuilds.
FROM tools AS packages
COPY packages packages
COPY apps apps
COPY conf /opt/cls/conf
RUN for folder in packages/* apps/train; do \
        python -m flit_core.wheel --outdir wheels "$folder" || exit 1; \
    done && \
    uv pip install --no-cache --no-index --no-deps --compile-bytecode \
        --python /opt/venv/bin/python --target /opt/cls/lib wheels/*.whl && \
    for app in train report compare; do \
        install -D -m 644 "apps/$app/__main__.py" "/opt/cls/apps/$app/__main__.py" || exit 1; \
    done

FROM ${BASE}
# /workspace holds data/ and runs/, usually as mounts. Any user may write there (docker run --user).
RUN useradd --uid 1000 --user-group --create-home cls && \
    install -d -m 1777 /workspace && \
    chmod 1777 /home/cls
# Dependencies. antlr4-python3-runtime has no wheel; setuptools, which builds it, is in locked.txt too.
COPY --from=requirements /build/locked.txt /opt/cls/
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca.crt --mount=type=secret,id=uv.toml \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    if [ -s /run/secrets/uv.toml ]; then export UV_CONFIG_FILE=/run/secrets/uv.toml; fi; \
    /opt/tools/bin/uv venv --python "$(command -v python3)" /opt/venv && \
    /opt/tools/bin/uv pip install --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
        --require-hashes --only-binary :all: --no-binary antlr4-python3-runtime \
        --build-constraints /opt/cls/locked.txt -r /opt/cls/locked.txt && \
    echo /opt/cls/lib >"$(echo /opt/venv/lib/python3.*/site-packages)/cls.pth"
COPY --from=packages /opt/cls /opt/cls
# HOME and USER also serve users who are not in /etc/passwd; Matplotlib needs a folder that a read-only root leaves writable.
# Enroot (SLURM) and NVIDIA's older runtime give GPUs only to images with NVIDIA_VISIBLE_DEVICES.
ENV PATH=/opt/venv/bin:/opt/cls/lib/bin:$PATH \
    HOME=/home/cls \
    USER=cls \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /workspace
USER 1000:1000
ENTRYPOINT ["python", "/opt/cls/apps/train"]
CMD ["--help"]

ARG COMMIT=
ARG VERSION=
ARG SOURCE=
ENV CLS_COMMIT=${COMMIT}
LABEL org.opencontainers.image.title="cls train" \
      org.opencontainers.image.description="Train, evaluate, and export image classifiers." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}"
