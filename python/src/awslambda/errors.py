"""Everything that can go wrong, one class for each thing a caller can act on.

The docstring is the message; its fields come from the keyword arguments. `sqlstate` is what SQL sees, `hint` what to do
about it. Messages, details and hints hold names, codes and sizes: never a payload, a key or a token.
"""

from __future__ import annotations


class LambdaError(Exception):
    """The call failed."""

    sqlstate = "38000"
    hint = ""

    def __init__(self, *, detail: str = "", hint: str = "", sqlstate: str = "", **fields: object) -> None:
        super().__init__((type(self).__doc__ or "").format(**fields))
        self.fields = fields
        self.detail = detail
        self.hint = hint or type(self).hint
        self.sqlstate = sqlstate or type(self).sqlstate


class FunctionError(LambdaError):
    """The Lambda function {function!r} raised {error}"""

    sqlstate = "LA001"
    hint = "The function ran and failed: its log in CloudWatch Logs has the whole story, under the request id."


class FunctionTimedOut(LambdaError):
    """The Lambda function {function!r} ran into its own timeout: {error}"""

    sqlstate = "LA002"
    hint = "The function may have done part of its work. Raise its Timeout in Lambda, or give it less to do."


class Throttled(LambdaError):
    """AWS throttled the call of the Lambda function {function!r} ({reason})."""

    sqlstate = "LA003"
    hint = "The function did not run. Call less often, or raise its reserved concurrency or the account's quota."


class ServiceFailed(LambdaError):
    """AWS could not run the Lambda function {function!r}: {code} (HTTP {status})."""

    sqlstate = "LA004"
    hint = "It may have run. If the code is not about the function's own set-up, call again when that does no harm."


class NoAnswer(LambdaError):
    """The Lambda function {function!r} did not answer within {seconds:g} s."""

    sqlstate = "LA005"
    hint = (
        "It may have run, or may still be running. The server option request_timeout must cover the function's timeout."
    )


class ConnectFailed(LambdaError):
    """Cannot connect to {endpoint}: {reason}."""

    sqlstate = "08001"
    hint = "Nothing was sent. Check region and endpoint_url, DNS, security group, and the route or VPC endpoint to AWS."


class ConnectionBroke(LambdaError):
    """The connection to {endpoint} broke before the Lambda function {function!r} had answered: {reason}."""

    sqlstate = "08006"
    hint = "The function may have run: it is not called again by itself."


class CredentialsUnavailable(ConnectFailed):
    """AWS gave no credentials: {reason}."""

    hint = "Nothing was sent to Lambda. The source of the credentials did not answer or failed: try again."


class FunctionNotFound(LambdaError):
    """There is no Lambda function {function!r} in {region}."""

    sqlstate = "42704"
    hint = "Check name, qualifier and region; another account's function needs its full ARN."


class ServerNotFound(LambdaError):
    """There is no server {server!r} of the foreign data wrapper awslambda."""

    sqlstate = "42704"
    hint = "CREATE SERVER ... FOREIGN DATA WRAPPER awslambda makes one; \\des+ lists them."


class DestinationNotFound(LambdaError):
    """There is no on-failure destination {destination!r}."""

    sqlstate = "42704"
    hint = "Check the ARN, its region and its account. awslambda.dead_letter has the record."


class DestinationFailed(LambdaError):
    """The on-failure destination {destination!r} did not take the record: {reason}."""

    sqlstate = "LA004"
    hint = "awslambda.dead_letter has the record; the destination may have it too."


class AccessDenied(LambdaError):
    """IAM does not allow this: {reason}"""

    sqlstate = "42501"
    hint = "The role that the server uses needs the action on that resource; awslambda.diagnostics() shows who it is."


class ServerNotAllowed(LambdaError):
    """The role {role!r} may not use {servers}."""

    sqlstate = "42501"
    hint = "GRANT USAGE ON FOREIGN SERVER ... TO ... allows it."


class ServerNotTrusted(LambdaError):
    """The server {server!r} is not used: its owner could have changed whose identity it stands for."""

    sqlstate = "42501"
    hint = "A superuser must own it, or a role that has USAGE on the foreign data wrapper awslambda."


class ResourceNotAllowed(LambdaError):
    """The server {server!r} does not allow {resource!r}."""

    sqlstate = "42501"
    hint = (
        "Its option allowed_resources has no pattern for it; a target given as an ARN needs a pattern that is an ARN."
    )


class NoCredentials(LambdaError):
    """No AWS credentials: {reason}."""

    sqlstate = "28000"
    hint = (
        "On EC2, attach an instance role. Elsewhere the operating-system user of PostgreSQL needs a profile, "
        "or the server option profile names one. awslambda.diagnostics() shows what was found."
    )


class CredentialsRefused(LambdaError):
    """AWS refused the credentials: {reason}"""

    sqlstate = "28000"
    hint = "They may have expired, or the clock of this host may be wrong: awslambda.diagnostics() tells."


class RegionUnknown(LambdaError):
    """No AWS region is known."""

    sqlstate = "22023"
    hint = (
        "Tried: the function's ARN, the argument region, the server option region, AWS_DEFAULT_REGION and the profile "
        "of PostgreSQL's operating-system user, and the instance metadata service. Set the server option region."
    )


class ServerNotChosen(LambdaError):
    """There are several servers that this role may use: {servers}."""

    sqlstate = "22023"
    hint = (
        "Name one in the argument server of the long forms (awslambda.invoke, awslambda.enqueue), or name one of them "
        "aws: that one is the default."
    )


class InvalidOption(LambdaError):
    """invalid option {option!r}"""

    sqlstate = "HV00D"


class OptionNotAllowed(LambdaError):
    """Only a superuser may set {options}."""

    sqlstate = "42501"
    hint = "These options decide whose identity is used, and where requests go."


class InvalidArgument(LambdaError):
    """{reason}"""

    sqlstate = "22023"


class InvalidJson(LambdaError):
    """The payload for the Lambda function {function!r} is not JSON: {reason}."""

    sqlstate = "22P02"
    hint = "Nothing ran. Build payloads with jsonb_build_object, to_jsonb or row_to_json, not by concatenation."


class PayloadTooLarge(LambdaError):
    """The payload for the Lambda function {function!r} has {size} bytes; {invocation_type} takes {limit} at most."""

    sqlstate = "54000"
    hint = "Nothing ran. Send less, or put the data into S3 and send its key."


class NullArgument(LambdaError):
    """{argument} must not be NULL."""

    sqlstate = "22004"
    hint = "Nothing was sent. A || with a NULL in it is NULL: jsonb_build_object keeps the other values."


class NotLambda(LambdaError):
    """What answers at {endpoint} for the Lambda function {function!r} is not Lambda: HTTP {status}."""

    sqlstate = "08P01"
    hint = "Check endpoint_url, AWS_ENDPOINT_URL and the proxy. Most likely nothing ran."


class ResponseNotJson(LambdaError):
    """The Lambda function {function!r} answered what is no {kind}: {reason}."""

    sqlstate = "22032"
    hint = "It ran. awslambda_fn(text, text) returns an answer as it is."


class ResponseNotText(LambdaError):
    """The Lambda function {function!r} answered bytes that are not UTF-8 text."""

    sqlstate = "22021"
    hint = "It ran. Let it return JSON, or base64 for bytes."


class InvalidBatchResponse(LambdaError):
    """The function's answer is no batch response: {reason}."""

    sqlstate = "22032"
    hint = (
        "The whole batch counts as failed. A function of a mapping with ReportBatchItemFailures returns "
        '{"batchItemFailures": [{"itemIdentifier": "..."}]} with the ids of the records to retry, or nothing.'
    )


class StreamNotFound(LambdaError):
    """There is no Kinesis stream {stream!r} in {region}."""

    sqlstate = "42704"
    hint = "Check name and region; another account's stream needs its full ARN."


class ShardNotFound(LambdaError):
    """The Kinesis stream {stream!r} has no shard {shard!r}."""

    sqlstate = "42704"
    hint = "Shards go when all their records are older than the stream's retention period."


class StreamThrottled(LambdaError):
    """Kinesis throttled {operation} of the stream {stream!r} ({reason})."""

    sqlstate = "LA003"
    hint = (
        "All readers of a shard share 5 reads and 2 MiB a second, all writers 1,000 records and 1 MiB: "
        "read less often, or give the stream more shards."
    )


class StreamFailed(LambdaError):
    """Kinesis could not do {operation} of the stream {stream!r}: {reason}."""

    sqlstate = "LA004"
    hint = "If the code is not about the stream's own set-up, try again: no record is lost by that."


class StreamNoAnswer(LambdaError):
    """Kinesis did not answer {operation} of the stream {stream!r} within {seconds:g} s."""

    sqlstate = "LA005"
    hint = "The server option request_timeout has the time."


class StreamConnectionBroke(LambdaError):
    """The connection to {endpoint} broke before {operation} of the stream {stream!r} was answered: {reason}."""

    sqlstate = "08006"
    hint = (
        "Reading again loses nothing. Records that were being put may have arrived: putting them again can double them."
    )


class IteratorExpired(LambdaError):
    """The iterator of the shard {shard!r} of the Kinesis stream {stream!r} has expired."""

    sqlstate = "LA004"
    hint = "More than five minutes went by between two reads."


class NotKinesis(LambdaError):
    """What answers at {endpoint} for the stream {stream!r} is not Kinesis: HTTP {status}."""

    sqlstate = "08P01"
    hint = "Check endpoint_url, AWS_ENDPOINT_URL and the proxy."


class BrokenRecord(LambdaError):
    """The record {sequence_number} of the shard {shard!r} cannot be unpacked: {reason}."""

    sqlstate = "22P03"
    hint = "decompress => 'none' and deaggregate => false give the bytes as they are."


class NotLogs(LambdaError):
    """This is not what CloudWatch Logs sends to a stream: {reason}."""

    sqlstate = "22P03"
    hint = "It takes the data of one Kinesis record, as it is or decompressed."


class RecordTooLarge(LambdaError):
    """A record to put has {size} bytes with its partition key; {limit} are the most."""

    sqlstate = "54000"
    hint = "Put the data into S3, and its key into the stream."


class RecordNotStored(LambdaError):
    """The record {sequence_number} of the shard {shard!r} cannot be stored: {reason}"""

    hint = (
        "All records before it are stored, and the consumer stands before it. Put right what it needs, or say "
        "on_error => 'dead_letter' or 'skip'; awslambda.kinesis_reset() puts the consumer elsewhere."
    )


class CheckpointMoved(LambdaError):
    """The checkpoint of the consumer {consumer!r} for the shard {shard!r} was moved while a cursor read on."""

    sqlstate = "40001"
    hint = "A savepoint was rolled back under the cursor, and another session read the shard. Begin again."


class RecordsLost(LambdaError):
    """The consumer {consumer!r} comes too late for records of the shard {shard!r} {after}: {reason}."""

    sqlstate = "LA006"
    hint = (
        "awslambda.kinesis_reset(..., 'TRIM_HORIZON') goes on with what there is; so does kinesis_consume with "
        "on_error 'skip' or 'dead_letter'. A longer retention period of the stream keeps records for longer."
    )


class NotLoaded(LambdaError):
    """The Python code of awslambda cannot be loaded: {reason}."""

    sqlstate = "55000"
    hint = "Other plpython code of this session may have loaded another version of what it needs: reconnect."


class InTransactionBlock(LambdaError):
    """CALL awslambda.{procedure} cannot be in a transaction block."""

    sqlstate = "2D000"
    hint = "It commits as it goes: call it outside of BEGIN and COMMIT and of functions, with autocommit on."


class NotSupported(LambdaError):
    """{reason}"""

    sqlstate = "0A000"
