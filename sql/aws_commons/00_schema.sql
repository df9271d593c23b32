CREATE SCHEMA aws_commons;

COMMENT ON SCHEMA aws_commons IS
  'What RDS''s extensions share: the types of a Lambda function''s name, of an object in S3 and of credentials.';
