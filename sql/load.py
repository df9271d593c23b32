import sys
if sys.path[0] != "@LIBDIR@":
    sys.path[:] = ["@LIBDIR@", *(folder for folder in sys.path if folder != "@LIBDIR@")]
try:
    import awslambda
except ImportError:
    plpy.error("the Python package awslambda is not in @LIBDIR@", sqlstate="55000",
               hint="Run make install of version @VERSION@ on this host, with the PREFIX that the extension was built with.")
awslambda.require(plpy, "@LIBDIR@")
from awslambda import plpython
