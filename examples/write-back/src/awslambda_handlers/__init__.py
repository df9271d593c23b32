"""Lambda functions that use a PostgreSQL: `transaction` gives a function a database, `Router` gives it an API."""

from awslambda_handlers.database import transaction
from awslambda_handlers.router import NotFound, Router

__all__ = ["NotFound", "Router", "transaction"]
