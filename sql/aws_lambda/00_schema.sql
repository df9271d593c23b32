CREATE SCHEMA aws_lambda;

COMMENT ON SCHEMA aws_lambda IS
  'AWS Lambda from SQL as on RDS and Aurora: aws_lambda.invoke.';
