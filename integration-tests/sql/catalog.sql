CREATE TABLE everything (
  id BIGINT NOT NULL, b BOOLEAN, s SMALLINT, i INT, r REAL, d DOUBLE, n DECIMAL(12,2), t TEXT, x BYTEA, day DATE,
  ts TIMESTAMP, tz TIMESTAMPTZ, list INT[], point STRUCT<a INT, b TEXT>, CHECK (i IS NULL OR i < 1000)
) WITH (partitions = 2);

CREATE MATERIALIZED VIEW by_text WITH (refresh = 'never') AS
SELECT t, count(*) AS n, count(i) AS ints, sum(i) AS i, sum(n) AS amount, avg(n) AS mean, min(ts) AS first, max(tz) AS last,
       bool_or(b) AS any_b, first_value(d ORDER BY id) AS d, array_agg(i ORDER BY id) AS all_i
FROM everything GROUP BY t;

CREATE MATERIALIZED VIEW large WITH (refresh = 'never') AS
SELECT day, sum(n) AS amount FROM everything WHERE id > 0 GROUP BY day HAVING sum(n) > 10;

CREATE MATERIALIZED VIEW whole WITH (refresh = 'never') AS SELECT count(*) AS n, sum(n) AS amount FROM everything;
