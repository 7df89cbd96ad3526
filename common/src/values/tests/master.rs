//! Decoding gives exactly the types and values that the master dataset gives back.

use std::collections::BTreeMap;

use datafusion::{
    execution::{TaskContext, memory_pool::UnboundedMemoryPool},
    physical_plan::collect,
};

use super::{chunk, decoder, json};
use crate::{
    master,
    storage::{
        Storage,
        parquet::{File, Layout},
        scan::Scan,
    },
};

const TABLE: &str = "CREATE TABLE t (
  a BOOLEAN, b SMALLINT, c INT, d BIGINT, e REAL, f DOUBLE,
  g DECIMAL(5,2), h DECIMAL(18,4), i DECIMAL(38,10), j DECIMAL(38,38),
  k TEXT, l BYTEA, m DATE, n TIMESTAMP, o TIMESTAMPTZ,
  p TEXT[], q STRUCT<x INT, \"Y\" DECIMAL(9,3)[], z STRUCT<t TIMESTAMP, u TIMESTAMPTZ>>, r INT[][],
  s STRUCT<x INT>[], \"camelCase\" BIGINT NOT NULL, é TEXT NOT NULL)";

const EVENTS: [&str; 4] = [
    r#"{"camelCase":0,"é":""}"#,
    r#"{"a":true,"b":-32768,"c":-2147483648,"d":-9223372036854775808,"e":-3.4028235e38,"f":5e-324,"g":-999.99,
        "h":"-99999999999999.9999","i":"-9999999999999999999999999999.9999999999","j":"-0.99999999999999999999999999999999999999",
        "k":"\u0000","l":"00","m":"0001-01-01","n":"0001-01-01T00:00:00","o":"0001-01-01T00:00:00Z",
        "p":[],"q":{},"r":[[],null,[null]],"s":[null,{}],"camelCase":-1,"é":"é"}"#,
    r#"{"a":false,"b":32767,"c":2147483647,"d":9223372036854775807,"e":"NaN","f":"NaN","g":999.99,
        "h":"99999999999999.9999","i":"9999999999999999999999999999.9999999999","j":"0.99999999999999999999999999999999999999",
        "k":"größe 🦀","l":"ff00","m":"9999-12-31","n":"9999-12-31T23:59:59.999999","o":"9999-12-31T23:59:59.999999Z",
        "p":["a",null,""],"q":{"x":1,"Y":[1.5,null],"z":{"t":"2026-01-03T00:00:00","u":"2026-01-03T00:00:00Z"}},
        "r":[[1,2],[]],"s":[{"x":1}],"camelCase":1,"é":"x"}"#,
    r#"{"e":"-Infinity","f":"Infinity","n":"1969-12-31T23:59:59.999999","camelCase":2,"é":"y"}"#,
];

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let mut decoder = decoder(TABLE);
    let dataset = decoder.dataset.clone();
    let decoded = decoder.decode(&chunk(&EVENTS.map(str::as_bytes)));
    assert_eq!(decoded.dead, []);

    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let storage = Storage::open(url.as_str(), &BTreeMap::new()).unwrap();
    let table = master::table(&storage, &dataset.name).unwrap();
    table.ensure(&dataset.schema).await.unwrap();
    let snapshot = table.load(None).await.unwrap();
    assert_eq!(snapshot.schema(), dataset.schema, "Delta's schema is the dataset's");

    let mut file = File::new(&dataset.schema, Layout::Master).unwrap();
    file.write(&decoded.rows).unwrap();
    let (bytes, file) = file.finish("part.parquet".to_owned()).unwrap();
    table.put("part.parquet", bytes).await.unwrap();
    let snapshot = table.commit(&snapshot, &[file], Vec::new(), &BTreeMap::new(), 0).await.unwrap();

    let context = TaskContext::default()
        .with_runtime(storage.runtime(std::sync::Arc::new(UnboundedMemoryPool::default())).unwrap());
    let scan = Scan {
        table: table.path(),
        schema: snapshot.schema(),
        files: &snapshot.files(),
        projection: None,
        predicate: None,
        limit: None,
        partitions: 1,
    };
    let read = collect(scan.plan(&context.runtime_env()).unwrap(), std::sync::Arc::new(context)).await.unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(json(&read[0]), json(&decoded.rows));
    assert_eq!(read[0].schema(), dataset.schema);
    assert_eq!(read[0], decoded.rows);
}
