"""A local AWS whose Lambda really runs Python handlers, without containers.

moto serves the other services; Invoke is ours: it runs the code that was uploaded, in warm processes of AWS's own
runtime client, and answers as AWS does, errors and limits included. `python -m awslambda_local` starts it from a
shell, `LocalAWS` from a test or a demo. Nothing in here knows the `awslambda` package.
"""

from awslambda_local.process import LocalAWS, LocalAWSError

__all__ = ["LocalAWS", "LocalAWSError"]
