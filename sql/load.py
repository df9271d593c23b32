import sys
if sys.version_info < (3, 10):
    plpy.error("plpython3u of this server runs Python {}.{}; awslambda needs 3.10 or newer".format(*sys.version_info),
               hint="Install a plpython3 that is built for a newer Python.", sqlstate="55000")
if sys.path[0] != "@LIBDIR@":
    sys.path[:] = ["@LIBDIR@", *(folder for folder in sys.path if folder != "@LIBDIR@")]
try:
    import awslambda
except ImportError:
    plpy.error("the Python package awslambda is not in @LIBDIR@", sqlstate="55000",
               hint="Run make install of version @VERSION@ on this host, with the PREFIX that the extension was built with.")
awslambda.require(plpy, "@LIBDIR@")
from awslambda import plpython
