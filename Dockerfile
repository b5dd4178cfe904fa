# syntax=docker/dockerfile:1
# Two images: `cpu` (the base install) and `gpu` (with CUDA bindings and TensorRT). See docs/container.md.

FROM python:3.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/forebay
COPY requirements.lock ./
RUN /opt/forebay/bin/pip install --requirement requirements.lock
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
RUN /opt/forebay/bin/pip install --no-deps --no-build-isolation ./client . \
    && /opt/forebay/bin/pip check

# Comma-separated extras of pyproject.toml, such as otel: --build-arg EXTRAS=otel
ARG EXTRAS=
RUN if [ -n "$EXTRAS" ]; then /opt/forebay/bin/pip install --constraint requirements.lock ".[$EXTRAS]"; fi \
    && /opt/forebay/bin/pip check

FROM build AS build-gpu
RUN /opt/forebay/bin/pip install --constraint requirements.lock ".[cuda,tensorrt]" \
    && /opt/forebay/bin/pip check

FROM python:3.13-slim-bookworm AS cpu
ENV PATH=/opt/forebay/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1
RUN install --directory --owner=65532 --group=65532 /var/cache/forebay
COPY --from=build /opt/forebay /opt/forebay
USER 65532:65532
WORKDIR /tmp
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["forebay", "health"]
ENTRYPOINT ["forebay"]
CMD ["serve"]

# The NVIDIA container runtime brings the driver; the CUDA libraries come with the Python packages.
FROM python:3.13-slim-bookworm AS gpu
ENV PATH=/opt/forebay/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN install --directory --owner=65532 --group=65532 /var/cache/forebay
COPY --from=build-gpu /opt/forebay /opt/forebay
USER 65532:65532
WORKDIR /tmp
EXPOSE 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["forebay", "health"]
ENTRYPOINT ["forebay"]
CMD ["serve"]
