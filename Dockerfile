# One image for every process of Killick: `docker build --tag killick:0.1.0 .`, `docker run killick:0.1.0 --help`.
# The base is pinned by its tag; docs/deploy.md says how to pin it by digest.

# 1 Killick as a wheel. The build tools come from their lock file, by hash, and stay in this stage.
FROM python:3.11.14-slim-bookworm AS wheel
WORKDIR /build
COPY requirements.build.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --only-binary=:all: --requirement requirements.build.lock
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY consumers consumers
COPY worker worker
RUN pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

# 2 What it needs, by hash, without test tools, in an environment of its own (ADR 1).
FROM python:3.11.14-slim-bookworm AS packages
RUN python -m venv --without-pip /opt/killick
COPY requirements.runtime.lock ./
RUN pip --python /opt/killick/bin/python install --no-cache-dir --disable-pip-version-check \
    --require-hashes --only-binary=:all: --requirement requirements.runtime.lock
COPY --from=wheel /build/dist /dist
RUN pip --python /opt/killick/bin/python install --no-cache-dir --disable-pip-version-check --no-deps /dist/*.whl

# 3 What runs: Python, that environment, a user without rights or home.
FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="killick" \
      org.opencontainers.image.description="Keeps a streaming forecaster from drifting" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"
RUN pip uninstall --yes --root-user-action=ignore setuptools wheel pip \
    && groupadd --system --gid 10001 killick \
    && useradd --system --uid 10001 --gid killick --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin killick \
    && install --directory --owner=killick --group=killick /var/lib/killick /var/lib/killick/archive \
       /var/lib/killick/reports
COPY --from=packages /opt/killick /opt/killick
ENV PATH=/opt/killick/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    KILLICK_HTTP__HOST=0.0.0.0
WORKDIR /var/lib/killick
USER 10001:10001
EXPOSE 9464 9465 9466 9467
STOPSIGNAL SIGTERM
# A consumer's page; docker-compose.yml asks the others at their own ports.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["killick"]
CMD ["--help"]
