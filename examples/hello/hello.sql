-- A Python function in Lambda, called from SQL; region and credentials are the instance's.
SELECT awslambda_fn('lambdaTest', '{"name":"bob"}');

-- All that Lambda answers, as a row.
SELECT status_code, payload, executed_version, function_error
  FROM awslambda.invoke('lambdaTest', '{"name":"alice"}');

-- It fails: a function that raises becomes an SQL error that can be caught by its SQLSTATE, LA001.
SELECT awslambda_fn('lambdaFail', '{"sensor": 7}');
\echo SQLSTATE :SQLSTATE

-- It fails: a call that takes too long can be cancelled, by a timeout, by Ctrl-C or from another session.
SET statement_timeout = '500ms';
SELECT awslambda_fn('lambdaSleep', '{"seconds": 30}');
RESET statement_timeout;
