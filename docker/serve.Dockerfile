# The image of one exported classifier: cls-export and a bundle, without PyTorch. See docs/images.md.
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

# The entries of requirements.txt, with their hashes, that cls-export needs.
FROM tools AS requirements
COPY requirements.txt docker/siblings.overrides ./
COPY packages/cls-export/pyproject.toml packages/cls-export/
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca.crt --mount=type=secret,id=uv.toml \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    if [ -s /run/secrets/uv.toml ]; then export UV_CONFIG_FILE=/run/secrets/uv.toml; fi; \
    uv pip compile --quiet --no-sources --no-header --no-annotate \
        --constraints requirements.txt --overrides siblings.overrides --output-file names.txt \
        packages/cls-export/pyproject.toml && \
    awk 'FNR == NR { names[$1]; next } /^[a-z]/ { keep = $1 in names } keep' \
        names.txt requirements.txt >locked.txt

FROM tools AS packages
COPY --from=requirements /build/locked.txt ./
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=ca.crt --mount=type=secret,id=uv.toml \
    if [ -s /run/secrets/ca.crt ]; then export SSL_CERT_FILE=/run/secrets/ca.crt; fi; \
    if [ -s /run/secrets/uv.toml ]; then export UV_CONFIG_FILE=/run/secrets/uv.toml; fi; \
    uv pip install --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
        --require-hashes --only-binary :all: -r locked.txt
COPY packages/cls-export packages/cls-export
RUN python -m flit_core.wheel --outdir wheels packages/cls-export && \
    uv pip install --no-cache --no-index --no-deps --compile-bytecode \
        --python /opt/venv/bin/python wheels/*.whl

FROM ${BASE}
RUN useradd --uid 1000 --user-group --create-home cls
COPY --from=packages /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
# BUNDLE is a folder of the build context: copy runs/NAME/export there, or `cls-export pull` into it.
ARG BUNDLE=bundle
COPY ${BUNDLE} /bundle
WORKDIR /home/cls
USER 1000:1000
RUN cls-export verify /bundle
ENTRYPOINT ["cls-export"]
CMD ["info", "/bundle"]

ARG COMMIT=
ARG VERSION=
ARG SOURCE=
LABEL org.opencontainers.image.title="cls serve" \
      org.opencontainers.image.description="An exported image classifier and its runtime." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}"
