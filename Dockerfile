# The images of the service:
#   --target web                             pages, API and `migrate`; no torch, no model
#   --target worker                          captions on processors
#   --target worker --build-arg DEVICE=gpu   captions on an NVIDIA GPU; the host needs its
#                                            driver and container toolkit
# Dependencies are layers of their own: a change of the code replaces the last, small ones.
ARG DEVICE=cpu

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HOME=/data \
    CAPTIONING_DATA_DIR=/data \
    CAPTIONING_HOST=0.0.0.0 \
    CAPTIONING_ACCESS=keys \
    CAPTIONING_PORT=8000 \
    CAPTIONING_WEB_METRICS_PORT=9100 \
    CAPTIONING_WORKER_METRICS_PORT=9101 \
    CAPTIONING_LOG_FORMAT=json
# A volume that is mounted on /data takes its owner from here.
RUN useradd --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin captioning \
    && install --directory --owner=captioning --group=captioning /data
WORKDIR /data
ENTRYPOINT ["captioning"]

# The commands `captioning` and `clipcap` and the version they tell, without any code.
FROM base AS commands
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md /build/
RUN pip install --no-deps --prefix /commands /build

FROM base AS web
RUN --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    --mount=type=bind,source=scripts/requirements.py,target=/build/scripts/requirements.py \
    python /build/scripts/requirements.py web postgresql > /tmp/requirements.txt \
    && pip install -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY --from=commands /commands /usr/local
COPY captioning /app/captioning
COPY migrations /app/migrations
COPY web /app/web
USER 10001:10001
EXPOSE 8000 9100
# Without the proxies of the environment, and patient: it waits for a thread of those that take
# uploads in.
HEALTHCHECK --interval=10s --timeout=30s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=25)"]
CMD ["web"]

# torch alone, in a layer that changes only with its version.
FROM base AS torch-cpu
# PyPI's torch for Linux on x86-64 brings CUDA along; PyTorch's own index has one without.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --index-url "$TORCH_INDEX" torch torchvision

FROM base AS torch-gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install torch torchvision

FROM torch-${DEVICE} AS worker
RUN --mount=type=bind,source=pyproject.toml,target=/build/pyproject.toml \
    --mount=type=bind,source=scripts/requirements.py,target=/build/scripts/requirements.py \
    python /build/scripts/requirements.py model postgresql > /tmp/requirements.txt \
    && pip install -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY --from=commands /commands /usr/local
COPY clipcap /app/clipcap
COPY captioning /app/captioning
COPY migrations /app/migrations
COPY worker /app/worker
USER 10001:10001
EXPOSE 9101
# It answers once the models are loaded. A worker that gets stuck ends itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:9101/metrics', timeout=4)"]
CMD ["worker"]
