# Two images: `cpu` (the base install) and `gpu` (with CUDA bindings and TensorRT). See docs/container.md.

# Pin it by digest: --build-arg BASE=python@sha256:... It needs Python 3.13, sh, install and libstdc++.
ARG BASE=python:3.13-slim-trixie
# The base with pip, for the stages that are thrown away.
ARG BUILD_BASE=${BASE}
# Of the package; the build ends where it is not. A test compares them.
ARG VERSION=0.1.0

# Empty; a folder of wheels in its place is used instead of an index: --build-context wheels=FOLDER
FROM scratch AS wheels

FROM ${BASE} AS base

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
COPY tools/image/install.py tools/image/
# A failure of install.py is one line that names the build argument to set.
RUN --mount=type=bind,from=wheels,target=/wheels \
    python3.13 -m venv /opt/build && python3.13 -m venv --without-pip /opt/forebay \
    && /opt/build/bin/python tools/image/install.py --into /opt/build/bin/python setuptools \
    && /opt/build/bin/python tools/image/install.py cpu
# Comma-separated extras of pyproject.toml, such as otel: --build-arg EXTRAS=otel
ARG EXTRAS=
RUN --mount=type=bind,from=wheels,target=/wheels \
    /opt/build/bin/python tools/image/install.py --argument EXTRAS "$EXTRAS"
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
ARG VERSION
RUN --mount=type=bind,from=base,target=/base \
    /opt/forebay/bin/python tools/image/finish.py --version "$VERSION" --base /base

FROM build AS build-gpu
# `tensorrt-rtx`, which has a lock, or a package of NVIDIA's index, which has none: it differs between architectures and
# drivers.
ARG TENSORRT="tensorrt>=10.3"
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
RUN --mount=type=bind,from=wheels,target=/wheels \
    /opt/build/bin/python tools/image/install.py cuda \
    && /opt/build/bin/python tools/image/install.py --argument TENSORRT "$TENSORRT" \
    && /opt/build/bin/pip --python /opt/forebay/bin/python check
ARG VERSION
RUN --mount=type=bind,from=base,target=/base \
    /opt/forebay/bin/python tools/image/finish.py --version "$VERSION" --base /base

# Each image is whole: both would name the id of a stage in common, which is another one in every build.
FROM base AS gpu
ENV PATH=/opt/forebay/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
# Platforms that run an image as an arbitrary user give it group 0.
RUN install -d -o 65532 -g 0 -m 0775 /var/cache/forebay
# The NVIDIA container runtime brings the driver, with `video` also libnvcuvid for NVDEC; the other CUDA libraries come with
# the Python packages, libnvjpeg and NVRTC with EXTRAS=gpu-decode.
COPY --from=build-gpu /opt/forebay /opt/forebay
USER 65532:65532
WORKDIR /tmp
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["forebay", "health"]
ENTRYPOINT ["forebay"]
CMD ["serve"]
ARG REVISION=unknown
ARG VERSION
LABEL org.opencontainers.image.title="Forebay" \
    org.opencontainers.image.description="gRPC streaming inference for live frames" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

FROM base AS cpu
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
ARG VERSION
LABEL org.opencontainers.image.title="Forebay" \
    org.opencontainers.image.description="gRPC streaming inference for live frames" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
