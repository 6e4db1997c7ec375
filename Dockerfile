# Builds with the classic builder and with BuildKit. `make pin-images` pins the base image.
ARG PYTHON=python:3.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/venv
COPY requirements.txt requirements-dev.txt ./
RUN /build/bin/pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r requirements.txt
# Installs the build backend from its lines of the development lock, so the wheel needs no build isolation.
RUN awk '/^[a-z]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' requirements-dev.txt >build.txt \
 && /build/bin/pip install --require-hashes --only-binary :all: -r build.txt
COPY pyproject.toml README.md ./
COPY migrations migrations
COPY app app
COPY simulator simulator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /build/bin/pip --python /opt/venv/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON}
LABEL org.opencontainers.image.title="faceid-results" \
      org.opencontainers.image.description="Retrieves, keeps and serves the results of Tencent Cloud FaceID verifications" \
      org.opencontainers.image.licenses="Apache-2.0"
# Orchestrators can check that a numeric id is not root. The id is high, so it does not exist on the host.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin faceid \
 && install --directory --owner 10001 --group 10001 --mode 0700 /data \
 && install --directory --mode 0755 /etc/faceid-results
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data
# `faceid-results.toml` is read from this folder.
WORKDIR /etc/faceid-results
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["faceid-results"]
CMD ["serve", "--host", "0.0.0.0"]
