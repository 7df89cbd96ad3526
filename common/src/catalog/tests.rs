//! Catalogs that are right, and every way to be wrong, with the words for it.

use super::*;

const SALES: &str = include_str!("../../../examples/sales/sales.sql");

fn files(sql: &str) -> Vec<(String, String)> {
    vec![("sales.sql".to_owned(), sql.to_owned())]
}

fn faults(sql: &str) -> String {
    match Catalog::parse(&files(sql)) {
        Ok(_) => "no faults".to_owned(),
        Err(faults) => faults.to_string(),
    }
}

/// Faults are as expected, but for the file's name before the first.
fn same(found: &str, expected: &str, what: &str) {
    assert_eq!(found.strip_prefix("sales.sql:").unwrap_or(found), expected, "{what}");
}

fn dataset(sql: &str) -> Arc<Dataset> {
    match Catalog::parse(&files(sql)) {
        Ok(catalog) => catalog.datasets.into_values().next().unwrap(),
        Err(faults) => panic!("{faults}\n{sql}"),
    }
}

#[test]
fn the_example_is_a_catalog() {
    let catalog = Catalog::parse(&files(SALES)).unwrap_or_else(|faults| panic!("{faults}"));
    let sales = &catalog.datasets["sales"];
    assert_eq!((sales.topic.as_str(), sales.key, sales.partitions), ("sales", Some(1), 4));
    assert_eq!(sales.columns.fields().len(), 7);
    assert_eq!(sales.schema.fields().len(), 10);
    assert_eq!(sales.checks.len(), 1);
    let names: Vec<&str> = catalog.views.keys().map(String::as_str).collect();
    assert_eq!(names, ["daily_sales", "daily_store_sales", "product_sales"]);
    assert_eq!(catalog.views["daily_sales"].refresh, Some(Duration::from_secs(15)));
    assert_eq!(
        catalog.views["product_sales"].sql,
        "SELECT product_id, count(*) AS orders, sum(quantity) AS total_quantity, sum(amount) AS total_amount, \
         avg(amount) AS average_amount FROM sales GROUP BY product_id"
    );
}

#[test]
fn what_nobody_sees_is_skipped_at_the_start_and_shown_elsewhere() {
    let sql = "CREATE TABLE t (a INT)";
    assert_eq!(faults(&format!("\u{feff}{sql}")), "no faults");
    let found = faults(&format!("{sql};\n\u{200b}{sql}"));
    assert!(found.contains("\\u{200b}") && !found.contains('\u{200b}'), "{found}");
}

#[test]
fn every_type() {
    let check = |sql: &str, expected: &str| {
        let dataset = dataset(&format!("CREATE TABLE t (c {sql})"));
        assert_eq!(crate::values::sql_type_name(dataset.columns.field(0).data_type()), expected, "{sql}");
        // What is canonical stays as it is.
        let again = self::dataset(&dataset.sql);
        assert_eq!(
            (&again.sql, &again.definition, &again.schema),
            (&dataset.sql, &dataset.definition, &dataset.schema)
        );
    };
    for same in [
        "BOOLEAN",
        "SMALLINT",
        "INT",
        "BIGINT",
        "REAL",
        "DOUBLE",
        "DECIMAL(38,0)",
        "DECIMAL(12,2)",
        "TEXT",
        "BYTEA",
        "DATE",
        "TIMESTAMP",
        "TIMESTAMPTZ",
        "TEXT[]",
        "INT[][]",
        "STRUCT<a INT, \"B c\" TEXT[]>",
        "STRUCT<a STRUCT<b DATE>>[]",
    ] {
        check(same, same);
    }
    check("bool", "BOOLEAN");
    check("int2", "SMALLINT");
    check("integer", "INT");
    check("int8", "BIGINT");
    check("float4", "REAL");
    check("double precision", "DOUBLE");
    check("NUMERIC(5)", "DECIMAL(5,0)");
    check("varchar", "TEXT");
    check("TIMESTAMP(6)", "TIMESTAMP");
    check("TIMESTAMP WITHOUT TIME ZONE", "TIMESTAMP");
    check("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ");
    check("ARRAY<INT>", "INT[]");
}

#[test]
fn names_fold_to_lower_case() {
    let sql =
        r#"CREATE TABLE Sales (Id BIGINT, "orderId" INT CHECK ("orderId" > ID), "select" TEXT, "true" INT, day DATE)"#;
    let dataset = dataset(sql);
    assert_eq!(
        dataset.sql,
        "CREATE TABLE sales (\n  id BIGINT,\n  \"orderId\" INT,\n  \"select\" TEXT,\n  \"true\" INT,\n  day DATE,\n  \
         CHECK (\"orderId\" > id)\n) WITH (topic = 'sales', format = 'json', partitions = 4)"
    );
    assert_eq!(self::dataset(&dataset.sql).sql, dataset.sql);
}

#[test]
fn a_definition_is_what_it_means() {
    let definition = |sql: &str| dataset(sql).definition.clone();
    let plain = definition("CREATE TABLE t (a INT NOT NULL, b TEXT, CHECK (a > 0))");
    assert_eq!(plain.len(), 16);
    for same in [
        "create table T (A integer not null check (A>0), \"b\" varchar) with (topic = 'x', partitions = 9, key = 'a');",
        "CREATE TABLE other (a INT /* not null */ NOT NULL, b TEXT NULL, CONSTRAINT positive CHECK ((\"a\") > 0))",
    ] {
        let same = same.replace("((\"a\") > 0)", "(\"a\" > 0)");
        assert_eq!(definition(&same), plain, "{same}");
    }
    for other in [
        "CREATE TABLE t (a INT, b TEXT, CHECK (a > 0))",
        "CREATE TABLE t (a INT NOT NULL, b TEXT)",
        "CREATE TABLE t (a INT NOT NULL, b TEXT, CHECK (a >= 0))",
        "CREATE TABLE t (a BIGINT NOT NULL, b TEXT, CHECK (a > 0))",
        "CREATE TABLE t (a INT NOT NULL, c TEXT, CHECK (a > 0))",
        "CREATE TABLE t (b TEXT, a INT NOT NULL, CHECK (a > 0))",
    ] {
        assert_ne!(definition(other), plain, "{other}");
    }
}

#[test]
fn definitions_are_pinned() {
    // A changed hash would refuse every running system's datasets and recompute all its views: it must be meant.
    let catalog = Catalog::parse(&files(SALES)).unwrap();
    assert_eq!(catalog.datasets["sales"].definition, "867b2706665b7193");
}

#[test]
fn a_views_definition_is_its_query_over_its_dataset() {
    const TABLE: &str = "CREATE TABLE t (a INT, b INT)";
    let definition = |table: &str, view: &str| {
        let catalog = Catalog::parse(&files(&format!("{table}; CREATE MATERIALIZED VIEW {view}")));
        catalog.unwrap_or_else(|faults| panic!("{faults}")).views.into_values().next().unwrap().definition.clone()
    };
    let plain = definition(TABLE, "v AS SELECT a, sum(b) AS s FROM t GROUP BY a");
    let same = definition(TABLE, "w WITH (refresh = 'never') AS select A, SUM(\"b\") as S -- …\n from T group by a");
    assert_eq!(same, plain);
    assert_ne!(definition(TABLE, "v AS SELECT a, sum(b) AS total FROM t GROUP BY a"), plain);
    assert_ne!(definition("CREATE TABLE t (a INT, b BIGINT)", "v AS SELECT a, sum(b) AS s FROM t GROUP BY a"), plain);
}

#[test]
fn refresh() {
    let check = |with: &str, expected: Option<u64>| {
        let sql = format!("CREATE TABLE t (a INT); CREATE MATERIALIZED VIEW v {with} AS SELECT a FROM t GROUP BY a");
        let catalog = Catalog::parse(&files(&sql)).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(catalog.views["v"].refresh, expected.map(Duration::from_secs), "{with}");
    };
    check("", Some(60));
    check("WITH (refresh = '5 minutes')", Some(300));
    check("WITH (refresh = '90s')", Some(90));
    check("WITH (refresh = 'never')", None);
}

/// What is said of a column that is wrong.
#[test]
fn flaws_of_columns() {
    let check = |columns: &str, expected: &str| {
        let sql = format!("CREATE TABLE t\n({columns})");
        same(&faults(&sql), expected, columns);
    };
    check(
        "a STRNG",
        "2:4: column `a`: type `STRNG` is not known; write one of `BOOLEAN`, `SMALLINT`, `INT`, `BIGINT`, `REAL`, `DOUBLE`, `DECIMAL`, `TEXT`, `BYTEA`, `DATE`, `TIMESTAMP`, `TIMESTAMPTZ`, `STRUCT`",
    );
    check("a TIMESTMP", "2:4: column `a`: type `TIMESTMP` is not known; did you mean `TIMESTAMP`?");
    check(
        "a",
        "2:3: expected a data type name, but found ); write `CREATE TABLE name (column TYPE, …) WITH (…);` or `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`",
    );
    check(
        "a INT, key TEXT",
        "2:17: a word of SQL stands where a column's name is expected, and begins a constraint; write the column's name in quotes, such as `\"key\" TEXT`",
    );
    check(
        "a VARCHAR(10)",
        "2:4: column `a`: type `VARCHAR(10)` is not known; write `TEXT`, with `CHECK (char_length(column) <= 10)` to bound its length",
    );
    check(
        "a JSON",
        "2:4: column `a`: type `JSON` is not known; write `STRUCT<name TEXT, …>` for an object, or `TEXT` for a string that holds JSON",
    );
    check("a FLOAT", "2:4: column `a`: type `FLOAT` is not known; write `DOUBLE` for 64 bits or `REAL` for 32");
    check(
        "a INT UNSIGNED",
        "2:4: column `a`: type `INT UNSIGNED` is not known; write the signed type, with `CHECK (column >= 0)`",
    );
    check(
        "a TIMESTAMP(3)",
        "2:4: column `a`: type `TIMESTAMP(3)` is not known; write `TIMESTAMP`: times are kept in microseconds",
    );
    check(
        "a DECIMAL",
        "2:4: column `a`: type `DECIMAL` has no precision; write `DECIMAL(12,2)` for 12 digits, 2 of them after the point",
    );
    check(
        "a DECIMAL(39,2)",
        "2:4: column `a`: type `DECIMAL(39,2)` is out of range; write `DECIMAL(p,s)` with `p` from 1 to 38 and `s` from 0 to `p`",
    );
    check(
        "a DECIMAL(5,6)",
        "2:4: column `a`: type `DECIMAL(5,6)` is out of range; write `DECIMAL(p,s)` with `p` from 1 to 38 and `s` from 0 to `p`",
    );
    check(
        "a DECIMAL(5,-1)",
        "2:4: column `a`: type `DECIMAL(5,-1)` is out of range; write `DECIMAL(p,s)` with `p` from 1 to 38 and `s` from 0 to `p`",
    );
    check("a STRUCT<INT>", "2:4: column `a`: member `INT` of a STRUCT has no name; write `STRUCT<name TEXT, age INT>`");
    check(
        "a STRUCT<x INT, X TEXT>",
        "2:4: column `a`: member `x` of a STRUCT is there twice; give one of them another name",
    );
    check("a STRUCT<x UUID>[]", "2:4: column `a`: type `UUID` is not known; write `TEXT`");
    check("a INT, b TEXT, A INT", "2:17: column `a` is there twice; give one of them another name");
    check(
        "a INT, \"A\" INT",
        "2:9: columns `a` and `A` differ in case only, which Delta tables cannot tell apart; give one of them another name",
    );
    check("_offset BIGINT", "2:2: column `_offset` would hide where the log has the event; give it another name");
    check(
        "\"a b\" INT",
        "2:2: column `a b` has a name that Delta tables cannot have; use no spaces and none of `,;{}()=`",
    );
    check(
        "a INT DEFAULT 7",
        "2:8: `DEFAULT` is not known: events are kept as they come; remove it: a missing field is NULL; write `coalesce(column, value)` in the views",
    );
    check(
        "a INT PRIMARY KEY",
        "2:8: `PRIMARY KEY` is not known: a log keeps what it is given; remove it: every event is a row; a view with `GROUP BY` has one row for each key",
    );
    check(
        "a INT NOT NULL UNIQUE",
        "2:17: `UNIQUE` is not known: a log keeps what it is given; remove it: every event is a row; a view with `GROUP BY` has one row for each key",
    );
    check(
        "a INT REFERENCES other (id)",
        "2:8: `REFERENCES` is not known: a log keeps what it is given; remove it: every event is a row; a view with `GROUP BY` has one row for each key",
    );
    check("a INT NULL NOT NULL", "2:8: the column is both NULL and NOT NULL; remove one of them");
    check("a INT COMMENT 'x'", "2:8: `COMMENT 'x'` is not known; write `NOT NULL`, `CHECK (…)` or nothing");
    check(
        "a INT GENERATED ALWAYS AS IDENTITY",
        "2:8: `GENERATED ALWAYS AS IDENTITY` is not known; write `NOT NULL`, `CHECK (…)` or nothing",
    );
    check(
        "a INT, PRIMARY KEY (a)",
        "2:9: `PRIMARY KEY` is not known: a log keeps what it is given; remove it: every event is a row; a view with `GROUP BY` has one row for each key",
    );
    check(
        "a INT, UNIQUE (a)",
        "2:9: `UNIQUE` is not known: a log keeps what it is given; remove it: every event is a row; a view with `GROUP BY` has one row for each key",
    );
    check(
        "a INT, FOREIGN KEY (a) REFERENCES b (c)",
        "2:9: `FOREIGN KEY` is not known: a log keeps what it is given; remove it: every event is a row; a view with `GROUP BY` has one row for each key",
    );
    check("", "1:14: dataset `t` has no columns; list them: `CREATE TABLE name (id BIGINT NOT NULL, …)`");
}

/// What is said of a check that is wrong.
#[test]
fn flaws_of_checks() {
    let check = |columns: &str, expected: &str| {
        let sql = format!("CREATE TABLE t\n({columns})");
        same(&faults(&sql), expected, columns);
    };
    check("a INT CHECK (a)", "2:15: the check is INT, not BOOLEAN; write a condition such as `quantity > 0`");
    check(
        "a INT CHECK (abs(DISTINCT a) > 0)",
        "2:15: `DISTINCT of abs` is not supported; only aggregates take it: leave it out",
    );
    check("a INT CHECK (b > 0)", "2:15: there is no column `b`; the columns are a");
    check("amount INT,\n  CHECK (amunt > 0)", "3:10: there is no column `amunt`; did you mean `amount`?");
    check(
        "a INT CHECK (a > now())",
        "2:15: `now` gives another value each time, so an event could be dead to one layer only; compare the event's own columns",
    );
    check(
        "a INT CHECK (random() > 0.5)",
        "2:15: `random` gives another value each time, so an event could be dead to one layer only; compare the event's own columns",
    );
    check("a INT CHECK (sum(a) > 0)", "2:15: `sum` is an aggregate; a check is over the columns of one event");
    check(
        "a INT CHECK (row_number() OVER () > 0)",
        "2:15: `row_number` is over a window; a check is over the columns of one event",
    );
    check("a INT CHECK (a > (SELECT 1))", "2:15: the check has a subquery; a check is over the columns of one event");
    check("a INT CHECK (a IN (SELECT 1))", "2:15: the check has a subquery; a check is over the columns of one event");
    check(
        "a INT CHECK (EXISTS (SELECT 1))",
        "2:23: the check has a subquery; a check is over the columns of one event",
    );
    check(
        "a INT CHECK (lenght(a) > 0)",
        "2:15: the check cannot be planned: Invalid function 'lenght'. Did you mean 'length'?; write a condition over the event's columns, such as `quantity > 0`",
    );
    check("a INT CHECK (a > $1)", "2:15: the check has a parameter; write the value");
    check("a INT CHECK (_offset > 0)", "2:15: there is no column `_offset`; the columns are a");
    check(
        "a INT CHECK (a > 0) NOT ENFORCED",
        "2:8: a check that is `NOT ENFORCED` checks nothing; remove it, or `NOT ENFORCED`",
    );
    check(
        "a TEXT[] CHECK (a > 0)",
        "2:18: the check cannot be planned: Cannot infer common argument type for comparison operation List(Utf8, field: 'element') > Int64; write a condition over the event's columns, such as `quantity > 0`",
    );
}

#[test]
fn flaws_of_options_and_clauses() {
    let check = |rest: &str, expected: &str| {
        let sql = format!("CREATE TABLE t (a INT, bc INT)\n{rest}");
        same(&faults(&sql), expected, rest);
    };
    check("WITH (topc = 'x')", "2:7: option `topc` is not known; did you mean `topic`?");
    check(
        "WITH (retention = 'x')",
        "2:7: option `retention` is not known; the options are `topic`, `format`, `key`, `partitions`",
    );
    check("WITH (topic = 'x', topic = 'y')", "2:20: option `topic` is there twice; remove one of them");
    check("WITH (topic = x)", "2:15: option `topic` must be a string, not `x`; write `topic = 'name'`");
    check(
        "WITH (topic = 'a/b')",
        "2:15: `a/b` cannot be a topic's name; use up to 249 letters, digits, `.`, `_` and `-`: `WITH (topic = 'name')`",
    );
    check(
        "WITH (topic = '')",
        "2:15: `` cannot be a topic's name; use up to 249 letters, digits, `.`, `_` and `-`: `WITH (topic = 'name')`",
    );
    check("WITH (format = 'avro')", "2:16: format `avro` is not known; write `format = 'json'`");
    check("WITH (key = 'b')", "2:13: key `b` is no column; the columns are a, bc");
    check("WITH (key = 'quantity')", "2:13: key `quantity` is no column; the columns are a, bc");
    check(
        "WITH (partitions = 0)",
        "2:20: `0` is no number of partitions; write a whole number from 1 to 10000, as `partitions = 4`",
    );
    check(
        "WITH (partitions = -1)",
        "2:21: `-1` is no number of partitions; write a whole number from 1 to 10000, as `partitions = 4`",
    );
    check(
        "WITH (partitions = 1.5)",
        "2:20: `1.5` is no number of partitions; write a whole number from 1 to 10000, as `partitions = 4`",
    );
    check("WITH (heap)", "2:1: option `heap` has no value; the options are `topic`, `format`, `key`, `partitions`");
    check(
        "OPTIONS (topic = 'x')",
        "2:1: `OPTIONS (…)` is not known; write `WITH (…)` with `topic`, `format`, `key`, `partitions`",
    );
    check(
        "TBLPROPERTIES ('topic' = 'x')",
        "2:1: `TBLPROPERTIES` is not known; write `WITH (…)` with `topic`, `format`, `key`, `partitions`",
    );
    check(
        "PARTITION BY a",
        "2:1: `PARTITION BY` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "ENGINE = Memory",
        "2:1: `ENGINE = Memory` is not known; write `WITH (…)` with `topic`, `format`, `key`, `partitions`",
    );
    check(
        "COMMENT 'x'",
        "2:1: `COMMENT 'x'` is not known; write `WITH (…)` with `topic`, `format`, `key`, `partitions`",
    );
    check(
        "CLUSTER BY (a)",
        "1:1: the statement has clauses that are not known; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "WITHOUT ROWID",
        "1:1: the statement has clauses that are not known; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "AS SELECT 1",
        "2:1: `AS SELECT` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
}

#[test]
fn flaws_of_statements() {
    let check = |sql: &str, expected: &str| same(&faults(sql), expected, sql);
    check(
        "CREATE OR REPLACE TABLE t (a INT)",
        "1:11: `OR REPLACE` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "CREATE TABLE IF NOT EXISTS t (a INT)",
        "1:14: `IF NOT EXISTS` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "CREATE TEMPORARY TABLE t (a INT)",
        "1:8: `TEMPORARY` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "CREATE TABLE t AS SELECT 1",
        "1:16: `AS SELECT` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check(
        "CREATE TABLE t LIKE u",
        "1:16: `LIKE` is not known in a dataset; write `CREATE TABLE name (column TYPE, …) WITH (…)`",
    );
    check("CREATE TABLE public.t (a INT)", "1:14: `public.t` is no name; write one name without a schema");
    check("CREATE TABLE _t (a INT)", "1:14: name `_t` begins with `_`, as Lamina's own do; choose another name");
    check("CREATE TABLE \"a/b\" (a INT)", "1:14: `a/b` cannot be a name; use up to 128 letters, digits and `_`");
    check(
        "CREATE TABLE t (a INT);\nCREATE TABLE T (a INT)",
        "2:14: name `t` is taken: it is defined at sales.sql:1:14; give one of them another name",
    );
    check(
        "CREATE VIEW v AS SELECT 1",
        "1:1: a view of the catalog is materialized; write `CREATE MATERIALIZED VIEW`; what needs no keeping is a query",
    );
    check(
        "DROP TABLE t",
        "1:1: `DROP TABLE` is no definition; a catalog has only `CREATE TABLE` and `CREATE MATERIALIZED VIEW`",
    );
    check(
        "SELECT 1",
        "1:1: `SELECT 1` is no definition; a catalog has only `CREATE TABLE` and `CREATE MATERIALIZED VIEW`",
    );
    check(
        "INSERT INTO t VALUES (1)",
        "1:1: `INSERT INTO` is no definition; a catalog has only `CREATE TABLE` and `CREATE MATERIALIZED VIEW`",
    );
    check(
        "CREATE TABEL t (a INT)",
        "1:8: expected an object type after CREATE, but found TABEL; write `CREATE TABLE name (column TYPE, …) WITH (…);` or `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`",
    );
    check(
        "CREATE TABLE t (a INT",
        "1:22: expected ',' or ')' after column definition, but the statement ends; write `CREATE TABLE name (column TYPE, …) WITH (…);` or `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`",
    );
    check(
        "CREATE TABLE t (a INT,, b INT)",
        "1:23: expected column name or constraint definition, but found ,; write `CREATE TABLE name (column TYPE, …) WITH (…);` or `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`",
    );
    check(
        "CREATE TABLE t (a INT) GARBAGE here",
        "1:24: expected end of statement, but found GARBAGE; write `CREATE TABLE name (column TYPE, …) WITH (…);` or `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`",
    );
    check(
        "CREATE TABLE t (a INT) WITH (topic = 'x)",
        "1:38: unterminated string literal; close what is open: strings end with `'`, quoted names with `\"`, comments with `*/`",
    );
    check(
        "/* CREATE TABLE t (a INT)",
        "1:26: unexpected EOF while in a multi-line comment; close what is open: strings end with `'`, quoted names with `\"`, comments with `*/`",
    );
    check("; -- nothing\n ;", "no faults");
}

#[test]
fn flaws_of_a_view() {
    let check = |view: &str, expected: &str| {
        let sql = format!(
            "CREATE TABLE sales (a INT, b INT); CREATE MATERIALIZED VIEW w AS SELECT a FROM sales GROUP BY a;\n{view}"
        );
        same(&faults(&sql), expected, view);
    };
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM sale GROUP BY a",
        "2:45: there is no dataset `sale`; did you mean `sales`?",
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM customers GROUP BY a",
        "2:45: there is no dataset `customers`; the datasets are sales",
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM w GROUP BY a",
        "2:45: `w` is a view, and a view is over a dataset; name its dataset here; views over views are for queries",
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM public.sales GROUP BY a",
        "2:45: `public.sales` is no dataset; write the dataset's name alone",
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT 1",
        "2:31: the view is over nothing; write `SELECT … FROM dataset GROUP BY …`",
    );
    check(
        "CREATE MATERIALIZED VIEW w AS SELECT a FROM sales GROUP BY a",
        "2:26: name `w` is taken: it is defined at sales.sql:1:61; give one of them another name",
    );
    check(
        "CREATE MATERIALIZED VIEW _v AS SELECT a FROM sales GROUP BY a",
        "2:26: name `_v` begins with `_`, as Lamina's own do; choose another name",
    );
    check(
        "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT a FROM sales GROUP BY a",
        "2:11: `OR REPLACE` is not known in a view; write `CREATE MATERIALIZED VIEW name WITH (refresh = '5 minutes') AS SELECT …`",
    );
    check(
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT a FROM sales GROUP BY a",
        "2:26: `IF NOT EXISTS` is not known in a view; write `CREATE MATERIALIZED VIEW name WITH (refresh = '5 minutes') AS SELECT …`",
    );
    check(
        "CREATE MATERIALIZED VIEW v (x) AS SELECT a FROM sales GROUP BY a",
        "2:29: a view's columns are named in its query; write `SELECT … AS name`",
    );
    check(
        "CREATE MATERIALIZED VIEW v WITH (refresh = 5) AS SELECT a FROM sales GROUP BY a",
        "2:44: option `refresh` must be a string, not `5`; write `refresh = '5 minutes'` or `refresh = 'never'`",
    );
    check(
        "CREATE MATERIALIZED VIEW v WITH (refresh = 'soon') AS SELECT a FROM sales GROUP BY a",
        "2:44: refresh `soon` is no time span; write `refresh = '5 minutes'` or `refresh = 'never'`",
    );
    check(
        "CREATE MATERIALIZED VIEW v WITH (refresh = '10ms') AS SELECT a FROM sales GROUP BY a",
        "2:44: refresh `10ms` is shorter than a second; write `refresh = '5 minutes'` or `refresh = 'never'`",
    );
    check(
        "CREATE MATERIALIZED VIEW v WITH (refesh = '1m') AS SELECT a FROM sales GROUP BY a",
        "2:34: option `refesh` is not known; did you mean `refresh`?",
    );
    check(
        "CREATE MATERIALIZED VIEW v AS SELECT a FROM sales JOIN w USING (a) GROUP BY a",
        "2:56: a view is over one dataset: joins are not allowed; write `FROM sales`; views can be joined when you query them",
    );
}

#[test]
fn all_flaws_at_once() {
    let files = [
        (
            "a.sql".to_owned(),
            "CREATE MATERIALIZED VIEW v WITH (refresh = 'now') AS SELECT a FROM broken GROUP BY a;\n\
             CREATE TABLE broken (\n  a INTT,\n  b INT DEFAULT 1 CHECK (c > 0)\n) WITH (topc = 'x', format = 'avro');\n\
             SELEC 1;\nCREATE TABLE fine (a INT)"
                .to_owned(),
        ),
        (
            "b.sql".to_owned(),
            "CREATE TABLE Fine (a INT);\nCREATE MATERIALIZED VIEW w AS SELECT a FROM fin GROUP BY a".to_owned(),
        ),
    ];
    let Err(faults) = Catalog::parse(&files) else { panic!("it has flaws") };
    let definitions = "write `CREATE TABLE name (column TYPE, …) WITH (…);` or \
                       `CREATE MATERIALIZED VIEW name WITH (…) AS SELECT …;`";
    let expected = [
        "a.sql:1:44: refresh `now` is no time span; write `refresh = '5 minutes'` or `refresh = 'never'`",
        "a.sql:3:5: column `a`: type `INTT` is not known; did you mean `INT`?",
        "a.sql:4:9: `DEFAULT` is not known: events are kept as they come; remove it: a missing field is NULL; \
         write `coalesce(column, value)` in the views",
        "a.sql:4:26: there is no column `c`; the columns are b",
        "a.sql:5:9: option `topc` is not known; did you mean `topic`?",
        "a.sql:5:30: format `avro` is not known; write `format = 'json'`",
        &format!("a.sql:6:1: expected an SQL statement, but found SELEC; {definitions}"),
        "b.sql:1:14: name `fine` is taken: it is defined at a.sql:7:14; give one of them another name",
        "b.sql:2:45: there is no dataset `fin`; did you mean `fine`?",
    ];
    assert_eq!(faults.to_string().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn differences() {
    let earlier = dataset("CREATE TABLE t (a INT NOT NULL, b TEXT, c DATE, CHECK (a > 0)) WITH (topic = 'x')");
    let check = |sql: &str, expected: &str| assert_eq!(dataset(sql).difference(&earlier.sql), expected, "{sql}");
    check(
        "CREATE TABLE t (a BIGINT NOT NULL, b TEXT NOT NULL, \"D\" INT, CHECK (a > 1))",
        "column `a` was `INT NOT NULL` and is `BIGINT NOT NULL`; column `b` was `TEXT` and is `TEXT NOT NULL`; \
         column `c DATE` is gone; column `D INT` is new; `CHECK (a > 0)` is gone; `CHECK (a > 1)` is new",
    );
    check("CREATE TABLE t (b TEXT, a INT NOT NULL, c DATE, CHECK (a > 0))", "the columns were in the order a, b, c");
    let unreadable = dataset("CREATE TABLE t (a INT)");
    assert_eq!(unreadable.difference("?"), format!("it was `?` and is `{}`", unreadable.sql));
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let load = || Catalog::load(folder.path()).map_err(|faults| faults.to_string());
    let hint = "put `CREATE TABLE` and `CREATE MATERIALIZED VIEW` statements in a file such as `sales.sql`";
    assert_eq!(load().unwrap_err(), format!("{path}: the catalog's folder has no `.sql` files; {hint}"));
    std::fs::write(folder.path().join("b.sql"), "CREATE TABLE t (a INT)").unwrap();
    std::fs::write(folder.path().join("a.sql"), "CREATE MATERIALIZED VIEW v AS SELECT a FROM t GROUP BY a").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "nothing").unwrap();
    assert_eq!(load().unwrap().views.len(), 1);
    std::fs::write(folder.path().join("c.sql"), b"-- \xff").unwrap();
    let hint = "make it a readable text file in UTF-8";
    assert_eq!(load().unwrap_err(), format!("c.sql: could not read it: stream did not contain valid UTF-8; {hint}"));
    let missing = Catalog::load(&folder.path().join("missing")).unwrap_err().to_string();
    assert!(missing.contains("could not read the catalog's folder"), "{missing}");
}
