-- A BEFORE UPDATE trigger of Aurora MySQL. Ported: the trigger's body is a function of its own that returns NEW,
-- connection_id() is pg_backend_pid(). CALL and concat stay; lambda_arn is what psql -v lambda_arn=... says.

CREATE TABLE t (x int, y int);
INSERT INTO t VALUES (1, 1);

CREATE FUNCTION t_bufer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.y := OLD.x;
  CALL mysql.lambda_async(
    TG_ARGV[0],
    concat('{"trigger":"t_bufer","connection":"', pg_backend_pid(), '","old":"', OLD.x, '","new":"', NEW.x, '"}'));
  RETURN NEW;
END
$$;

CREATE TRIGGER t_bufer BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION t_bufer(:'lambda_arn');
