# awslambda: `make install` puts it into a PostgreSQL, `make demo` shows it, `make test` proves it. Others: `make help`.

EXTVERSION := $(shell sed -n "s/^default_version = '\(.*\)'$$/\1/p" extension/awslambda.control)
PREFIX     ?= /usr/local
PYTHON     ?= /usr/bin/python3
PG_CONFIG  ?= $(or $(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin/pg_config))),pg_config)

EXTENSION  = extension/awslambda extension/aws_commons extension/aws_lambda
DATA_built = $(EXTENSION:extension/%=build/%--$(EXTVERSION).sql)
LIBDIR     = $(PREFIX)/lib/awslambda/$(EXTVERSION)
SERVICES   = kinesis lambda sqs sns sts sso sso-oidc
EXTRA_CLEAN = build
NO_INSTALL = 1
NO_INSTALLCHECK = 1

# PGXS is for the targets that build and install; the others must work before there is a PostgreSQL.
DEVELOPMENT = help setup demo example playground test bench check lock
ifneq ($(filter-out $(DEVELOPMENT),$(or $(MAKECMDGOALS),all)),)
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
endif

.PHONY: help install uninstall setup demo example playground test check bench lock FORCE
help:
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' Makefile | expand -t 18

all: build/lib/awslambda/__init__.py

# The SQL is `cat` of its parts in order, between those that all extensions share, with the way to load Python in every
# body; neither a token is left over in it nor a byte that is not ASCII.
build/%--$(EXTVERSION).sql: sql/load.py sql/schema.sql sql/revoke.sql build/libdir $(wildcard sql/*/*.sql)
	cat sql/schema.sql $(sort $(wildcard sql/$*/[0-9]*.sql)) sql/revoke.sql | sed -e '/^@LOAD@$$/{r sql/load.py' -e 'd}' \
	  | sed -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@VERSION@|$(EXTVERSION)|g' -e 's|@EXTENSION@|$*|g' > $@.part
	! grep -n '@[A-Z]\+@' $@.part
	! LC_ALL=C grep -n '[^ -~	]' $@.part
	mv $@.part $@

build/libdir: FORCE
	@mkdir -p build; echo '$(LIBDIR)' | cmp -s - $@ || echo '$(LIBDIR)' > $@

# botocore's descriptions of the services that are used, and of no others.
build/dependencies: python/requirements.lock Makefile
	@$(PYTHON) -m pip --version >/dev/null || { echo "pip is missing for $(PYTHON): install the package python3-pip" >&2; exit 1; }
	rm -rf build/lib $@
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --no-compile \
	  --only-binary :all: --require-hashes --target build/lib -r python/requirements.lock
	rm -rf build/lib/bin build/lib/boto3/examples build/lib/*/__pycache__
	find build/lib/botocore/data -mindepth 1 -maxdepth 1 -type d $(foreach s,$(SERVICES),! -name $(s)) -exec rm -r {} +
	touch $@

build/lib/awslambda/__init__.py: build/dependencies $(wildcard python/src/awslambda/*.py)
	rm -rf build/lib/awslambda
	cp -R python/src/awslambda build/lib/
	rm -rf build/lib/awslambda/__pycache__
	touch $@

build/awslambda: python/program.py build/libdir
	sed -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@PYTHON@|$(PYTHON)|g' $< > $@

install: all build/awslambda  ## into the PostgreSQL of PG_CONFIG; Python below PREFIX (/usr/local); DESTDIR is honoured
	$(MKDIR_P) '$(DESTDIR)$(datadir)/extension' '$(DESTDIR)$(dir $(LIBDIR))' '$(DESTDIR)$(PREFIX)/bin'
	@# Made beside its place and moved there: a server that runs this version misses it for no longer than a rename.
	rm -rf '$(DESTDIR)$(LIBDIR).new' '$(DESTDIR)$(LIBDIR).old'
	cp -R build/lib '$(DESTDIR)$(LIBDIR).new'
	$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash \
	  -s '$(DESTDIR)$(LIBDIR).new' -p '$(LIBDIR)' '$(DESTDIR)$(LIBDIR).new'
	chmod -R u=rwX,go=rX '$(DESTDIR)$(LIBDIR).new'
	if [ -e '$(DESTDIR)$(LIBDIR)' ]; then mv '$(DESTDIR)$(LIBDIR)' '$(DESTDIR)$(LIBDIR).old'; fi
	mv '$(DESTDIR)$(LIBDIR).new' '$(DESTDIR)$(LIBDIR)'
	rm -rf '$(DESTDIR)$(LIBDIR).old'
	$(INSTALL_DATA) $(EXTENSION:=.control) $(DATA_built) '$(DESTDIR)$(datadir)/extension/'
	$(INSTALL_SCRIPT) build/awslambda '$(DESTDIR)$(PREFIX)/bin/awslambda'

# The Python and the program serve all majors of PostgreSQL on the host: they go with the last one that has this version.
ANY_MAJOR = $(shell echo '$(datadir)' | sed 's,\([/-]\)[0-9][0-9]*\(/\|$$\),\1*\2,')
uninstall:  ## this version; others, and what they share, stay
	rm -f $(addprefix '$(DESTDIR)$(datadir)/extension'/,$(notdir $(DATA_built)))
	for path in $(addprefix '$(DESTDIR)$(datadir)/extension'/,$(notdir $(EXTENSION))); do \
	  ls "$$path"--*.sql >/dev/null 2>&1 || rm -f "$$path.control"; \
	done
	if ! ls $(DESTDIR)$(ANY_MAJOR)/extension/awslambda--$(EXTVERSION).sql >/dev/null 2>&1; then \
	  rm -rf '$(DESTDIR)$(LIBDIR)'; \
	  ! grep -qsF '$(LIBDIR)' '$(DESTDIR)$(PREFIX)/bin/awslambda' || rm '$(DESTDIR)$(PREFIX)/bin/awslambda'; \
	fi
	rmdir '$(DESTDIR)$(PREFIX)/lib/awslambda' 2>/dev/null || true

setup:  ## everything that demo and tests need (Debian and Ubuntu; root or sudo)
	@PG_CONFIG='$(PG_CONFIG)' PYTHON='$(PYTHON)' MAKE='$(MAKE)' tests/setup.sh

demo: setup  ## what it does, on a throw-away cluster and a local AWS
	@.venv/bin/python -m examples.demo

example: setup  ## one of examples/ on a throw-away cluster and a local AWS: make example NAME=temperature
	@.venv/bin/python -m examples '$(NAME)'

playground: setup  ## the demo's cluster and local AWS, with psql open on it
	@.venv/bin/python -m examples.demo --playground

test: setup  ## all tests
	.venv/bin/python -m pytest

bench: setup  ## what the claims about speed rest on; SHORT=1: in a minute, failing if something is slow by a factor of two
	.venv/bin/python -m bench $(if $(SHORT),--short)

# Without a search path, so that it is inlined; it calls one function, by its whole name.
INLINED_POLL = awslambda.kinesis_poll(consumer text,stream text,starting_position text,starting_timestamp timestamptz,starting_sequence_number numeric,max_records bigint,batch_size integer,max_duration interval,deaggregate boolean,decompress text,server text)
ifndef PGXS  # which has a target of this name too
check: setup  ## linters, types, layers, and the security of the SQL
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/pgspot --ignore-lang=plpython3u --ignore-lang=aws_lambda_python \
	  --proc-without-search-path 'awslambda._slot(key text,message_id uuid)' \
	  --proc-without-search-path 'awslambda._origin(source_schema text,source_table text)' \
	  --proc-without-search-path 'awslambda._occurrence()' \
	  --proc-without-search-path 'awslambda._stem()' \
	  --proc-without-search-path 'awslambda._message_id(stem text,id bigint)' \
	  --proc-without-search-path 'awslambda._writer()' \
	  --proc-without-search-path '$(INLINED_POLL)' $(DATA_built)
	.venv/bin/sqlfluff lint --processes 1 sql
	.venv/bin/hadolint Dockerfile
endif

lock:  ## newest versions into the lock files (needs uv)
	cd python && uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-header --upgrade \
	  pyproject.toml -o requirements.lock
	cd python && uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-header --upgrade \
	  --extra local --extra development pyproject.toml -c requirements.lock -o requirements-development.lock
