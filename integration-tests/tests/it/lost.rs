//! Events that expired before they were archived.

use std::sync::Arc;

use batch_layer::lost::{Lost, find, record};
use common::{
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord, embedded::Embedded},
    master,
    position::Frontier,
    storage::Storage,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_recorded_and_the_line_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE sales (a INT) WITH (partitions = 2);";
    let catalog = Catalog::parse(&[("sales.sql".to_owned(), sql.to_owned())]).unwrap();
    let dataset = &catalog.datasets["sales"];
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let storage = Storage::open(url.as_str(), &Default::default()).unwrap();
    let log = Embedded::open(&folder.path().join("log"), Arc::new(System)).unwrap();
    log.ensure_topic("sales", 2).await.unwrap();
    assert!(find(&storage, &log, dataset).await.unwrap().is_empty());

    let events = |count: usize| vec![NewRecord { key: None, value: Some(r#"{"a": 1}"#.into()) }; count];
    log.append("sales", 0, events(10)).await.unwrap();
    log.append("sales", 0, events(5)).await.unwrap();
    log.append("sales", 1, events(3)).await.unwrap();
    log.trim("sales", &Frontier::from_iter([(0, 10)])).await.unwrap();
    let lost = [Lost { partition: 0, from: 0, to: 10 }];
    assert!(log.reader("sales", &Frontier::default(), None).await.is_err(), "the line stands");
    assert_eq!(find(&storage, &log, dataset).await.unwrap(), lost);
    assert_eq!(record(&storage, &log, dataset, &System).await.unwrap(), lost);

    let at = master::Follower::open(&storage, dataset, 2).await.unwrap();
    assert_eq!(at.at().frontier, Frontier::from_iter([(0, 10)]));
    master::verify(&log, "sales", at.at()).await.unwrap();
    log.reader("sales", &at.at().frontier, None).await.unwrap();
    assert!(record(&storage, &log, dataset, &System).await.unwrap().is_empty(), "once is enough");
    assert_eq!(at.at().version, master::Follower::open(&storage, dataset, 2).await.unwrap().at().version);
}
