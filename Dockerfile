# The official PostgreSQL image with plpython3u and awslambda, ready for CREATE EXTENSION. See docs/docker.md.
ARG PG_MAJOR=15
ARG BASE=postgres:${PG_MAJOR}-bookworm

# make and pip stay behind in this stage. Its python3 is the final stage's, so the byte code that it makes is valid there.
FROM ${BASE} AS build
ARG PG_MAJOR
# No versions of packages, here and below: Debian's mirrors keep the newest only, so a pinned one soon cannot be had.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends make python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The dependencies have a layer of their own: a change of our code does not fetch them again.
COPY Makefile ./
COPY extension/ extension/
COPY python/requirements.lock python/
RUN make build/dependencies PG_CONFIG="/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config"
COPY sql/ sql/
COPY python/ python/
RUN make install DESTDIR=/staging PG_CONFIG="/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config"

FROM ${BASE}
ARG PG_MAJOR
# python3 is for the program awslambda; plpython3u needs its library only.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends "postgresql-plpython3-${PG_MAJOR}" python3 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /staging/ /
# The build fails here if PostgreSQL cannot load the extension or its Python, which validates the options of the server.
RUN check="$(mktemp -d)" \
 && chown postgres "$check" \
 && printf '%s\n' >"$check/check.sql" \
      "CREATE EXTENSION awslambda CASCADE" \
      "CREATE SERVER aws FOREIGN DATA WRAPPER awslambda OPTIONS (region 'us-east-1')" \
      "DO LANGUAGE plpython3u 'import boto3'" \
 && export PATH="/usr/lib/postgresql/${PG_MAJOR}/bin:$PATH" \
 && runuser -u postgres -- initdb --no-sync -D "$check/data" >/dev/null \
 && runuser -u postgres -- postgres --single -c exit_on_error=on -D "$check/data" postgres <"$check/check.sql" >/dev/null \
 && awslambda --version \
 && rm -r "$check"
# Over TCP, because while the entrypoint sets up a new cluster the server listens on its Unix socket only and is not ready.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["pg_isready", "-q", "-h", "127.0.0.1"]
