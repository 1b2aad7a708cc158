# One image for set-up, the workers, notify and the server: hashed wheels only, no compiler, not root.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tollmeter
WORKDIR /src
COPY requirements-worker.lock ./
RUN /opt/tollmeter/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements-worker.lock
COPY pyproject.toml README.md LICENSE ./
COPY dashboards dashboards
COPY producers producers
COPY schemas schemas
COPY sinks sinks
COPY streams streams
COPY src src
RUN /opt/tollmeter/bin/pip install --no-index --no-deps --no-build-isolation . && /opt/tollmeter/bin/pip check

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 tollmeter \
    && useradd --system --uid 10001 --gid 10001 --create-home --home-dir /var/lib/tollmeter tollmeter
COPY --from=build /opt/tollmeter /opt/tollmeter
LABEL org.opencontainers.image.title="tollmeter" \
      org.opencontainers.image.description="LLM usage and cost meter: priced events, exact ledger, budgets and alerts" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"
ENV PATH=/opt/tollmeter/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/tollmeter
USER 10001:10001
ENTRYPOINT ["tollmeter"]
CMD ["--help"]
