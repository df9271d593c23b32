#!/bin/sh
# What demo, tests and benchmarks need, on Debian and Ubuntu: packages, a venv with pinned tools, the extension installed.
# Does only what is missing. Needs root or sudo; without, it names what is missing.
set -eu
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }
if [ "$(id -u)" = 0 ]; then as_root=""
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then as_root="sudo"
else as_root="none"; fi

major() {  # of PostgreSQL: the one of PG_CONFIG, else the distribution's
  if "$PG_CONFIG" --version >/dev/null 2>&1; then "$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/'
  elif command -v apt-cache >/dev/null; then apt-cache show postgresql 2>/dev/null | sed -n 's/^Depends:.*postgresql-\([0-9]*\).*/\1/p' | head -n 1
  fi
}

missing() {
  version=$(major)
  [ -x "/usr/lib/postgresql/$version/bin/initdb" ] || [ -x "$("$PG_CONFIG" --bindir 2>/dev/null)/initdb" ] || echo "postgresql-${version:-NN}"
  [ -e "/usr/lib/postgresql/$version/lib/plpython3.so" ] || [ -e "$("$PG_CONFIG" --pkglibdir 2>/dev/null)/plpython3.so" ] || echo "postgresql-plpython3-${version:-NN}"
  "$PYTHON" -m pip --version >/dev/null 2>&1 || echo python3-pip
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

packages=$(missing)
if [ -n "$packages" ]; then
  # shellcheck disable=SC2086
  set -- $packages
  command -v apt-get >/dev/null || fail "missing: $* (these are Debian's names). This sets itself up on Debian and Ubuntu only: install what they are called here, then run it again with PG_CONFIG=…"
  [ "$as_root" != none ] || fail "missing: $*. Run this as root, install sudo, or ask for: apt-get install $*"
  $as_root apt-get update -qq
  packages=$(missing)  # the version of PostgreSQL is known now
  # shellcheck disable=SC2086
  set -- $packages
  echo "setup: apt-get install $*"
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  PG_CONFIG=/usr/lib/postgresql/$(major)/bin/pg_config
fi

lock=python/requirements-development.lock
if ! cmp -s $lock .venv/$lock 2>/dev/null; then
  echo "setup: pinned Python packages into .venv"
  rm -rf .venv
  "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: --require-hashes -r $lock
  echo "$PWD/python/src" > "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/awslambda.pth"
  mkdir -p .venv/python && cp $lock .venv/$lock
fi

$MAKE --silent PG_CONFIG="$PG_CONFIG" PYTHON="$PYTHON" all build/awslambda
if ! installed=$(cat build/installed 2>/dev/null) || [ "$installed" != "$PG_CONFIG" ] \
  || [ -n "$(find build/lib/awslambda build/*.sql build/awslambda build/dependencies extension -newer build/installed | head -n 1)" ] \
  || [ ! -x /usr/local/bin/awslambda ]; then
  [ "$as_root" != none ] || fail "the extension is not installed: ask for: make install PG_CONFIG=$PG_CONFIG"
  echo "setup: make install"
  $as_root "$MAKE" --silent PG_CONFIG="$PG_CONFIG" PYTHON="$PYTHON" install
  echo "$PG_CONFIG" > build/installed
fi
