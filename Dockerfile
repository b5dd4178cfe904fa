# syntax=docker/dockerfile:1
# Two images: `cpu` (the base install) and `gpu` (with CUDA bindings and TensorRT). See docs/container.md.

# Pin it by digest: --build-arg BASE=python@sha256:... It needs Python 3.13, sh, install and libstdc++.
ARG BASE=python:3.13-slim-trixie
# The base with pip, for the stages that are thrown away.
ARG BUILD_BASE=${BASE}

# Empty; a folder of wheels in its place is used instead of an index: --build-context wheels=FOLDER
FROM scratch AS wheels

FROM ${BUILD_BASE} AS build
# PIP_INDEX_URL and PIP_EXTRA_INDEX_URL name a mirror, or NVIDIA's index of TensorRT. Every package has its hash in a lock.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
WORKDIR /src
COPY locks/ locks/
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3.13 -m venv /opt/build && python3.13 -m venv --without-pip /opt/forebay \
    && /opt/build/bin/pip install --require-hashes --requirement locks/setuptools.txt \
    && /opt/build/bin/pip --python /opt/forebay/bin/python install --require-hashes --requirement locks/cpu.txt
# Comma-separated extras of pyproject.toml, such as otel: --build-arg EXTRAS=otel
ARG EXTRAS=
RUN --mount=type=bind,from=wheels,target=/wheels \
    IFS=,; for extra in $EXTRAS; do \
        /opt/build/bin/pip --python /opt/forebay/bin/python install --require-hashes --requirement "locks/$extra.txt" || exit 1; \
    done
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY bench/ bench/
COPY client/ client/
COPY engines/ engines/
COPY forebay/ forebay/
COPY forebay_server/ forebay_server/
COPY loadtest/ loadtest/
COPY models/ models/
COPY protos/ protos/
COPY service/ service/
COPY tools/image/ tools/image/
# Seconds since 1970 of the last commit: two builds of one tree have the same layers, byte for byte. Of all that is above,
# nothing depends on the time, so that the next commit takes the packages from the cache.
ARG SOURCE_DATE_EPOCH=0
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /src/dist ./client . \
    && /opt/build/bin/pip --python /opt/forebay/bin/python install --no-deps /src/dist/*.whl \
    && /opt/build/bin/pip --python /opt/forebay/bin/python check

FROM build AS build-cpu
RUN /opt/forebay/bin/python tools/image/finish.py

FROM build AS build-gpu
# Not locked: the packages are on NVIDIA's index, which differs between architectures and drivers.
ARG TENSORRT="tensorrt>=10.3"
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
RUN --mount=type=bind,from=wheels,target=/wheels \
    /opt/build/bin/pip --python /opt/forebay/bin/python install --require-hashes --requirement locks/cuda.txt \
    && sed -e '/--hash=/d' -e 's/ *\\$//' locks/cpu.txt >/src/constraints.txt \
    && { /opt/build/bin/pip --python /opt/forebay/bin/python install --constraint /src/constraints.txt "$TENSORRT" \
        >/src/pip.log 2>&1 \
    || { tail -n 3 /src/pip.log >&2; \
        echo "forebay: no TensorRT here: give NVIDIA's index, or a mirror, as --build-arg PIP_EXTRA_INDEX_URL=..." >&2; \
        exit 1; }; }
RUN /opt/build/bin/pip --python /opt/forebay/bin/python check && /opt/forebay/bin/python tools/image/finish.py

# Each image is whole: both would name the id of a stage in common, which is another one in every build.
FROM ${BASE} AS gpu
ENV PATH=/opt/forebay/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Platforms that run an image as an arbitrary user give it group 0.
RUN install -d -o 65532 -g 0 -m 0775 /var/cache/forebay
# The NVIDIA container runtime brings the driver; the CUDA libraries come with the Python packages.
COPY --from=build-gpu /opt/forebay /opt/forebay
USER 65532:65532
WORKDIR /tmp
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["forebay", "health"]
ENTRYPOINT ["forebay"]
CMD ["serve"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Forebay" \
    org.opencontainers.image.description="gRPC streaming inference for live frames" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${REVISION}"

FROM ${BASE} AS cpu
ENV PATH=/opt/forebay/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN install -d -o 65532 -g 0 -m 0775 /var/cache/forebay
COPY --from=build-cpu /opt/forebay /opt/forebay
USER 65532:65532
WORKDIR /tmp
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["forebay", "health"]
ENTRYPOINT ["forebay"]
CMD ["serve"]
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Forebay" \
    org.opencontainers.image.description="gRPC streaming inference for live frames" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.revision="${REVISION}"
