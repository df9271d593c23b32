"""Students, as REST and as GraphQL."""

from awslambda_handlers import NotFound, Router, transaction

router = Router()
lambda_handler = router.handle


@router.rest("GET", "/students")
@router.graphql("Query", "students")
@transaction
def list_students(connection):
    return connection.execute("SELECT id, name FROM student ORDER BY id").fetchall()


@router.rest("GET", "/students/{id}")
@router.graphql("Query", "student")
@transaction
def get_student(connection, id):
    return found(connection.execute("SELECT id, name FROM student WHERE id = %s", [id]), id)


@router.rest("POST", "/students", status=201)
@router.graphql("Mutation", "addStudent")
@transaction
def add_student(connection, name):
    return connection.execute("INSERT INTO student (name) VALUES (%s) RETURNING id, name", [name]).fetchone()


@router.rest("PUT", "/students/{id}")
@router.graphql("Mutation", "renameStudent")
@transaction
def rename_student(connection, id, name):
    return found(connection.execute("UPDATE student SET name = %s WHERE id = %s RETURNING id, name", [name, id]), id)


@router.rest("DELETE", "/students/{id}")
@router.graphql("Mutation", "removeStudent")
@transaction
def remove_student(connection, id):
    return found(connection.execute("DELETE FROM student WHERE id = %s RETURNING id, name", [id]), id)


def found(cursor, id):
    student = cursor.fetchone()
    if student is None:
        raise NotFound(f"there is no student {id}")
    return student
