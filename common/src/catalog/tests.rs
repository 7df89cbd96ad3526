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
    assert_eq!(catalog.views["daily_sales"].refresh, Some(Duration::from_secs(60)));
    assert_eq!(
        catalog.views["product_sales"].sql,
        "SELECT product_id, count(*) AS orders, sum(quantity) AS total_quantity, sum(amount) AS total_amount, \
         avg(amount) AS average_amount FROM sales GROUP BY product_id"
    );
}

#[test]
fn every_type() {
    let check = |sql: &str, expected: &str| {
        let dataset = dataset(&format!("CREATE TABLE t (c {sql})"));
        assert_eq!(crate::values::sql_type_name(dataset.columns.field(0).data_type()), expected, "{sql}");
        // What is canonical stays as it is.
        let again = self::dataset(&dataset.sql);
        assert_eq!((&again.sql, &again.definition, &again.schema), (&dataset.sql, &dataset.definition, &dataset.schema));
    };
    for same in [
        "BOOLEAN", "SMALLINT", "INT", "BIGINT", "REAL", "DOUBLE", "DECIMAL(38,0)", "DECIMAL(12,2)", "TEXT", "BYTEA", "DATE",
        "TIMESTAMP", "TIMESTAMPTZ", "TEXT[]", "INT[][]", "STRUCT<a INT, \"B c\" TEXT[]>", "STRUCT<a STRUCT<b DATE>>[]",
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
    let sql = r#"CREATE TABLE Sales (Id BIGINT, "orderId" INT CHECK ("orderId" > ID), "select" TEXT, "true" INT, day DATE)"#;
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
    assert_eq!(catalog.datasets["sales"].definition, "?");
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

/// What is said of one column, option, check or name that is wrong.
#[test]
fn flaws_of_a_table() {
    let check = |columns: &str, expected: &str| {
        let sql = format!("CREATE TABLE t\n({columns})");
        assert_eq!(faults(&sql), format!("sales.sql:{expected}"), "{columns}");
    };
    check("a STRNG", "2:4: column `a`: type `STRNG` is not known; did you mean `STRUCT`?");
    check("a", "2:2: column `a`: the column has no type");
}
