//! The page at `/`, in a real browser.

use std::time::{Duration, Instant};

use integration_tests::sandbox::{
    browser::Browser,
    process::{Program, free_port},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_all_digits() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("catalog");
    std::fs::create_dir_all(&catalog).unwrap();
    let sql = "CREATE TABLE numbers (id BIGINT NOT NULL, wide DECIMAL(38,2), amount DECIMAL(12,2));
               CREATE MATERIALIZED VIEW each AS
               SELECT id, max(wide) AS wide, max(amount) AS amount, array_agg(id ORDER BY id) AS ids, max('') AS empty,
                      max(CASE WHEN id = 0 THEN id END) AS nothing
               FROM numbers GROUP BY id;";
    std::fs::write(catalog.join("numbers.sql"), sql).unwrap();
    let (catalog, data) = (catalog.display().to_string(), folder.path().join("data").display().to_string());
    let arguments = ["--catalog", catalog.as_str(), "--data", data.as_str()];
    let lamina = Program::lamina(free_port().unwrap(), &arguments, &folder.path().join("output")).await.unwrap();
    let event = r#"{"id": 9007199254740993, "wide": 12345678901234567890123456789.12, "amount": 23820.40}"#;
    let url = format!("{}/v1/datasets/numbers/events", lamina.url);
    let request = reqwest::Client::new().post(url).header("content-type", "application/json").body(event);
    assert!(request.send().await.unwrap().status().is_success());

    let browser = Browser::start().await.unwrap();
    browser.open(&lamina.url).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ask = "$('sql').value = 'SELECT * FROM each'; return run();";
        browser.run(ask).await.unwrap();
        let cells = "return [...document.querySelectorAll('#answer td')].map(cell => cell.textContent)";
        let cells = browser.run(cells).await.unwrap();
        let expected = json!([
            "9007199254740993",
            "12345678901234567890123456789.12",
            "23820.40",
            "[\"9007199254740993\"]",
            "",
            "NULL"
        ]);
        if cells == expected {
            break;
        }
        assert!(Instant::now() < deadline, "{cells}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // An error of the query is shown with what to do about it.
    browser.run("$('sql').value = 'SELECT * FROM eahc'; return run();").await.unwrap();
    let shown = browser.run("return document.querySelector('#answer').textContent").await.unwrap();
    assert!(shown.as_str().unwrap().contains("did you mean `each`?"), "{shown}");
    drop(browser);
    assert!(lamina.stop().await.unwrap());
}
