"""A member's own rows: read by one SQL query, proposed a schema for, encoded by the charter's."""
