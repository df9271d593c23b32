#!@PYTHON@ -I
"""The program awslambda, run by the interpreter and from the folder that PostgreSQL uses."""

import sys

sys.path.insert(0, "@LIBDIR@")

from awslambda.__main__ import main

sys.exit(main())
