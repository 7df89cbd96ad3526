//! What the embedded log promises, and what it says of damage.

use super::*;
use crate::clock::System;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_opened_once_and_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Embedded::open(folder.path(), Arc::new(System));
    let log = open().unwrap();
    assert_eq!(log.ensure_topic("t", 2).await.unwrap(), 2);
    let record = |value: &'static [u8]| NewRecord { key: None, value: Some(value.into()) };
    assert_eq!(log.append("t", 1, vec![record(b"a"), record(b"b")]).await.unwrap(), [0, 1]);
    let held = crate::fault::chain(&open().unwrap_err());
    assert!(held.contains("open the embedded log") && held.contains("another process has it open"), "{held}");
    drop(log);
    let log = open().unwrap();
    assert_eq!(log.ensure_topic("t", 9).await.unwrap(), 2);
    assert_eq!(log.append("t", 1, vec![record(b"c")]).await.unwrap(), [2]);
    let mut reader = log.reader("t", &Frontier::from_iter([(1, 1)]), None).await.unwrap();
    let chunks = reader.poll(10, Duration::from_secs(5)).await.unwrap();
    assert_eq!((chunks.len(), chunks[0].offsets.clone(), chunks[0].value(1)), (1, vec![1, 2], b"c".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract() {
    use crate::log::suite;

    let folder = tempfile::tempdir().unwrap();
    let embedded = Arc::new(Embedded::open(folder.path(), Arc::new(System)).unwrap());
    let log: Arc<dyn Log> = embedded.clone();
    suite::what_is_written_is_read(&log, "a").await.unwrap();
    suite::a_reader_waits_at_the_end(&log, "b").await.unwrap();
    suite::appends_side_by_side(&log, "c").await.unwrap();
    suite::what_is_not_there(&log, "d").await.unwrap();
    suite::gaps_are_passed(&log, "e", || async { embedded.skip("e", 0, 1).await.unwrap() }).await.unwrap();
    let trim = |below: Frontier| {
        let embedded = embedded.clone();
        async move { embedded.trim("f", &below).await.unwrap() }
    };
    suite::what_has_expired_is_said(&log, "f", trim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_trimming() {
    let folder = tempfile::tempdir().unwrap();
    let log = Embedded::open(folder.path(), Arc::new(System)).unwrap();
    log.ensure_topic("t", 1).await.unwrap();
    let record = || NewRecord { key: None, value: Some("x".into()) };
    log.append("t", 0, vec![record(), record()]).await.unwrap();
    log.skip("t", 0, 3).await.unwrap();
    assert_eq!(log.append("t", 0, vec![record()]).await.unwrap(), [5]);
    log.skip("t", 0, 1).await.unwrap();
    let mut reader = log.reader("t", &Frontier::default(), None).await.unwrap();
    let chunks = reader.poll(10, Duration::from_secs(5)).await.unwrap();
    assert_eq!((chunks[0].offsets.clone(), chunks[0].next), (vec![0, 1, 5], 7));
    log.trim("t", &Frontier::from_iter([(0, 4)])).await.unwrap();
    let expired = log.reader("t", &Frontier::default(), None).await.unwrap_err();
    assert!(matches!(expired, Error::Expired { start: 2, .. }), "{expired}");
    let beyond = log.reader("t", &Frontier::from_iter([(0, 8)]), None).await.unwrap_err();
    assert!(matches!(beyond, Error::Truncated { end: 7, .. }), "{beyond}");
}

/// Some commits of two partitions, and what must be read of them.
async fn written(log: &Embedded) -> Vec<(Partition, Offset, Vec<u8>)> {
    log.ensure_topic("sales", 2).await.unwrap();
    log.ensure_topic("clicks", 1).await.unwrap();
    let mut all = Vec::new();
    for round in 0..30_u32 {
        let partition = i32::from(round % 3 == 0);
        let values: Vec<Vec<u8>> =
            (0..4).map(|i| format!("event {round} {i} {}", "x".repeat(90)).into_bytes()).collect();
        let records = values.iter().map(|value| NewRecord { key: None, value: Some(value.clone().into()) }).collect();
        let offsets = log.append("sales", partition, records).await.unwrap();
        all.extend(offsets.into_iter().zip(values).map(|(offset, value)| (partition, offset, value)));
    }
    all.sort();
    all
}

/// All that a log gives out of `sales`, in order.
async fn read_all(log: &Embedded) -> Result<Vec<(Partition, Offset, Vec<u8>)>, Error> {
    let end = log.bounds("sales").await?.end;
    let mut reader = log.reader("sales", &Frontier::default(), None).await?;
    let (mut all, mut at) = (Vec::new(), Frontier::default());
    while end.iter().any(|(partition, end)| at.get(partition) < end) {
        for chunk in reader.poll(1000, Duration::from_secs(5)).await? {
            let records = (0..chunk.len()).map(|i| (chunk.partition, chunk.offsets[i], chunk.value(i).to_vec()));
            all.extend(records);
            at.set(chunk.partition, chunk.next);
        }
    }
    all.sort();
    Ok(all)
}

/// What is in a folder, by name.
fn image(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

/// A folder with these files.
fn restored(image: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in image {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

async fn open_and_read(folder: &Path) -> Result<Vec<(Partition, Offset, Vec<u8>)>, Error> {
    let log = Embedded::open(folder, Arc::new(System))?;
    read_all(&log).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_bit_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let log = Embedded::open(folder.path(), Arc::new(System)).unwrap();
    let expected = written(&log).await;
    // As a process leaves it that is killed, and as one that ends in order does.
    let killed = image(folder.path());
    drop(log);
    let ended = image(folder.path());
    let mut random = fastrand::Rng::with_seed(17);
    let (mut right, mut told) = (0, 0);
    for image in [killed, ended] {
        assert_eq!(open_and_read(restored(&image).path()).await.unwrap(), expected);
        for i in 0..150 {
            let name = if i % 10 == 9 { "log.seen-1" } else { "log.redb" };
            let mut image = image.clone();
            let bytes = image.get_mut(name).unwrap();
            // Most of the file is not used.
            let used: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i] != 0).collect();
            let (byte, bit) = (used[random.usize(0..used.len())], random.u8(0..8));
            bytes[byte] ^= 1 << bit;
            match open_and_read(restored(&image).path()).await {
                Ok(read) => {
                    assert_eq!(read, expected, "bit {bit} of byte {byte} of `{name}` is silent");
                    right += 1;
                }
                Err(_) => told += 1,
            }
        }
    }
    assert!(right > 0 && right + told == 300, "{right} right, {told} told");
    println!("{right} right, {told} told");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_is_recovered_and_what_is_not_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let log = Embedded::open(folder.path(), Arc::new(System)).unwrap();
    let expected = written(&log).await;
    let before = image(folder.path());
    let last = NewRecord { key: None, value: Some("the last".into()) };
    assert_eq!(log.append("sales", 1, vec![last.clone(), last]).await.unwrap(), [40, 41]);
    let after = image(folder.path());
    drop(log);
    let mut all = expected.clone();
    all.extend([40, 41].map(|offset| (1, offset, b"the last".to_vec())));
    // Without its order, records are found by what they say of themselves.
    let mut headless = after.clone();
    headless.get_mut("log.redb").unwrap()[..4096].fill(0);
    let restored_folder = restored(&headless);
    assert_eq!(open_and_read(restored_folder.path()).await.unwrap(), all);
    assert!(restored_folder.path().join("log.redb.damaged-0").exists());
    assert_eq!(open_and_read(restored_folder.path()).await.unwrap(), all, "once more");
    // A log that has gone back a commit: what it lacks is named, until it is agreed to.
    let mut back = after.clone();
    back.insert("log.redb".to_owned(), before["log.redb"].clone());
    let folder = restored(&back);
    let said = open_and_read(folder.path()).await.unwrap_err().to_string();
    assert!(said.contains("offsets 40 to 42 of `sales` partition 1") && said.contains("accept-loss"), "{said}");
    std::fs::write(folder.path().join("accept-loss"), "").unwrap();
    let log = Embedded::open(folder.path(), Arc::new(System)).unwrap();
    assert_eq!(read_all(&log).await.unwrap(), expected);
    let next = NewRecord { key: None, value: Some("next".into()) };
    assert_eq!(log.append("sales", 1, vec![next]).await.unwrap(), [42], "no offset is given twice");
    assert!(!folder.path().join("accept-loss").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_there_were_checksums_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path().join("log.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TOPICS).unwrap().insert("sales", (0, 1)).unwrap();
    transaction.open_table(BOUNDS).unwrap().insert((0, 0), (0, 1)).unwrap();
    let record: Vec<u8> = [0_i64.to_le_bytes(), 7_i64.to_le_bytes()].concat();
    let record = [record, u32::MAX.to_le_bytes().to_vec(), 3_u32.to_le_bytes().to_vec(), b"old".to_vec()].concat();
    transaction.open_table(BATCHES).unwrap().insert((0, 0, 0), record.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let log = Embedded::open(folder.path(), Arc::new(System)).unwrap();
    let new = NewRecord { key: None, value: Some("new".into()) };
    assert_eq!(log.append("sales", 0, vec![new]).await.unwrap(), [1]);
    let expected = [(0, 0, b"old".to_vec()), (0, 1, b"new".to_vec())];
    assert_eq!(read_all(&log).await.unwrap(), expected);
}
