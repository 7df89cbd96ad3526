//! Access, limits and hostile SQL, over HTTP: nobody gets what is not theirs, and nobody takes it from others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    access::{self, Limits, Role, Tokens},
    catalog::Catalog,
    clock::System,
    log::{Log, NewRecord},
    renewed::Renewed,
    storage::Storage,
    supervisor::Supervisor,
    tls,
    web::Front,
};
use integration_tests::{
    memory_log::MemoryLog,
    world::{Settings, World, at_least},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use serving_layer::http;

const CATALOG: &str = "
    CREATE TABLE sales (id BIGINT NOT NULL, product BIGINT NOT NULL, amount BIGINT NOT NULL) WITH (partitions = 1);
    CREATE TABLE salaries (person BIGINT NOT NULL, amount BIGINT NOT NULL) WITH (partitions = 1);
    CREATE MATERIALIZED VIEW per_product AS SELECT product, count(*) AS n, sum(amount) AS total FROM sales GROUP BY product;
    CREATE MATERIALIZED VIEW per_sale AS SELECT id, sum(amount) AS total FROM sales GROUP BY id;
    CREATE MATERIALIZED VIEW per_person AS SELECT person, sum(amount) AS total FROM salaries GROUP BY person;
";

/// So many sales there are: crossed with themselves thrice they are 10^12 rows.
const SALES: i64 = 10_000;

/// A Lamina that answers at an address, and clients of it.
pub(crate) struct Bed {
    world: World,
    supervisor: Supervisor,
    pub(crate) base: String,
    pub(crate) http: reqwest::Client,
}

/// How a bed differs from the usual.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) tokens: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) tls: tls::Settings,
    pub(crate) http: Option<reqwest::Client>,
    pub(crate) front: Front,
}

impl Bed {
    pub(crate) async fn start(options: Options) -> Self {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new(0, Arc::new(System)));
        let store = Arc::new(object_store::memory::InMemory::new());
        let storage = Storage::with_store("memory:///lamina/".parse().unwrap(), store).unwrap();
        let catalog = Catalog::parse(&[("catalog.sql".to_owned(), CATALOG.to_owned())]);
        let catalog = Arc::new(catalog.unwrap_or_else(|faults| panic!("{faults}")));
        for topic in ["sales", "salaries"] {
            log.ensure_topic(topic, 1).await.unwrap();
        }
        let record = |value: Value| NewRecord { key: None, value: Some(value.to_string().into()) };
        let sales = (0..SALES).map(|id| record(json!({"id": id, "product": id % 10, "amount": 1})));
        log.append("sales", 0, sales.collect()).await.unwrap();
        log.append("salaries", 0, vec![record(json!({"person": 1, "amount": 100}))]).await.unwrap();
        let world = World::start(&storage, &log, &catalog, Settings::hasty()).await.unwrap();
        for (dataset, view) in [("sales", "per_sale"), ("salaries", "per_person")] {
            let end = log.bounds(dataset).await.unwrap().end;
            let options = at_least(dataset, &end, Duration::from_secs(60));
            for table in [dataset, view] {
                world.query(&format!("SELECT count(*) FROM {table}"), &options).await.unwrap();
            }
        }
        let router = http::router(http::Context {
            engine: world.engine.clone(),
            catalog,
            log,
            batch: world.batch.clone(),
            registry: world.registry.clone(),
            body_bytes_max: 16 << 20,
            tokens: options.tokens.map(|document| Renewed::new(Tokens::parse(&document).unwrap())),
            limits: options.limits,
            proxies: 0,
            clock: Arc::new(System),
        });
        let listener = common::web::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = options.tls.server(tls::HTTP).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let supervisor = Supervisor::new();
        common::web::serve(
            listener,
            Front { tls: tls.map(Renewed::new), ..options.front },
            router.unwrap(),
            &supervisor,
        );
        let base = format!("{scheme}://localhost:{port}");
        Self { world, supervisor, base, http: options.http.unwrap_or_default() }
    }

    pub(crate) async fn stop(self) {
        self.supervisor.stop();
        self.supervisor.wait().await.unwrap();
        self.world.stop().await.unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str, token: Option<&str>) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The status and body of a query; status 0 for an answer that broke off.
    pub(crate) async fn sql(&self, sql: &str, token: Option<&str>) -> (u16, Value) {
        let response = self.request(Method::POST, "/v1/sql", token).json(&json!({"sql": sql})).send().await.unwrap();
        let status = response.status();
        match response.bytes().await {
            Ok(body) => (status.as_u16(), serde_json::from_slice(&body).unwrap()),
            Err(_) if status == StatusCode::OK => (0, Value::Null),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Tokens that are made and their document.
#[derive(Default)]
pub(crate) struct Keys {
    pub(crate) tokens: BTreeMap<&'static str, String>,
    pub(crate) document: String,
}

impl Keys {
    pub(crate) fn make(
        mut self,
        id: &'static str,
        roles: &[Role],
        views: &[&str],
        datasets: &[&str],
        expires_ms: Option<i64>,
    ) -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let roles = roles.iter().copied().collect();
        let (views, datasets) = (names(views), names(datasets));
        let request = access::Request { id: Some(id.to_owned()), roles, views, datasets, expires_ms };
        let issued = access::issue(&request).unwrap();
        self.tokens.insert(id, issued.token);
        self.document = format!("{}{}\n", self.document, issued.line);
        self
    }
}

/// What each operation asks for: `None` for nothing. It is written out here once more, and compared with what the
/// server describes and does, so that no change of either goes unseen.
const NEEDS: [(&str, &str, Option<Role>); 19] = [
    ("get", "/", None),
    ("get", "/healthz", None),
    ("get", "/readyz", None),
    ("get", "/v1/openapi.json", None),
    ("get", "/v1/sql", Some(Role::Query)),
    ("post", "/v1/sql", Some(Role::Query)),
    ("get", "/v1/views", Some(Role::Query)),
    ("get", "/v1/views/{view}", Some(Role::Query)),
    ("get", "/v1/views/{view}/rows", Some(Role::Query)),
    ("get", "/v1/datasets", Some(Role::Query)),
    ("get", "/v1/datasets/{dataset}", Some(Role::Query)),
    ("get", "/v1/datasets/{dataset}/dead_letters", Some(Role::Query)),
    ("get", "/v1/views/{view}/failed_events", Some(Role::Query)),
    ("get", "/v1/views/{view}/failed_events", Some(Role::Query)),
    ("post", "/v1/datasets/{dataset}/events", Some(Role::Ingest)),
    ("post", "/v1/views/{view}/recompute", Some(Role::Operate)),
    ("get", "/v1/jobs", Some(Role::Operate)),
    ("get", "/v1/jobs/{id}", Some(Role::Operate)),
    ("get", "/metrics", Some(Role::Operate)),
];

/// Spreadsheets and their like are given an address and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_may_stand_in_an_address() {
    let bed = Bed::start(Options::default()).await;
    let get = async |path: &str, query: &[(&str, &str)]| {
        let response = bed.request(Method::GET, path, None).query(query).send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, kind, stamp) = (response.status().as_u16(), header("content-type"), header("lamina-stamp"));
        (status, kind.unwrap_or_default(), stamp.unwrap_or_default(), response.text().await.unwrap())
    };
    let sql = "SELECT product, count(*) AS sales FROM sales WHERE product < 2 GROUP BY product ORDER BY product";
    let (status, kind, stamp, body) = get("/v1/sql", &[("sql", sql), ("format", "csv")]).await;
    assert_eq!((status, kind.as_str()), (200, "text/csv"), "{body}");
    assert_eq!(body, format!("product,sales\r\n0,{0}\r\n1,{0}\r\n", SALES / 10));
    let stamp: Value = serde_json::from_str(&stamp).unwrap();
    assert_eq!(stamp["head"]["sales"]["0"], SALES);
    let (_, posted) = bed.sql(sql, None).await;
    let (_, _, _, body) = get("/v1/sql", &[("sql", sql)]).await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["rows"], posted["rows"]);
    let head = stamp["head"].to_string();
    let (status, ..) = get("/v1/sql", &[("sql", sql), ("min_position", &head), ("wait", "1s")]).await;
    assert_eq!(status, 200);
    let (_, kind, _, body) = get("/v1/views/per_sale/rows", &[("id", "7"), ("format", "ndjson")]).await;
    assert_eq!((kind.as_str(), body.lines().count()), ("application/x-ndjson", 1), "{body}");
    let chosen = "SELECT $2 AS text, count(*) AS sales FROM sales WHERE product = $1";
    let (status, _, _, body) =
        get("/v1/sql", &[("sql", chosen), ("parameters", r#"[1, "it's"]"#), ("format", "csv")]).await;
    assert_eq!((status, body), (200, format!("text,sales\r\nit's,{}\r\n", SALES / 10)));
    for (parameters, expected) in [
        (json!([1, "it's"]), (200, "it's")),
        (json!([1]), (400, "parameter `$2` has no value")),
        (json!([1, "a", 2]), (400, "no parameter `$3`")),
        (json!(["x", "a"]), (400, "x")),
        (json!([{}, "a"]), (400, "is an object")),
        (json!(7), (400, "")),
    ] {
        let asked = json!({"sql": chosen, "parameters": parameters});
        let response = bed.request(Method::POST, "/v1/sql", None).json(&asked).send().await.unwrap();
        let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
        assert!(status == expected.0 && body.contains(expected.1), "{parameters}: {status} {body}");
    }
    let refused: [(&[(&str, &str)], &str); 6] = [
        (&[("sql", sql), ("parameters", "7")], "`parameters=7` are no values"),
        (&[], "`sql` is missing"),
        (&[("sql", sql), ("limit", "3")], "no parameter `limit`"),
        (&[("sql", sql), ("sql", sql)], "no parameter `sql`"),
        (&[("sql", sql), ("format", "xml")], "`format=xml`"),
        (&[("sql", "DROP TABLE sales")], "not a query"),
    ];
    for (query, detail) in refused {
        let (status, kind, _, body) = get("/v1/sql", query).await;
        assert_eq!((status, kind.as_str()), (400, "application/problem+json"), "{body}");
        assert!(body.contains(detail), "{body}");
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_refused_everything_that_is_not_its_own() {
    let mut keys = Keys::default().make("expired", &[Role::Admin], &[], &[], Some(0));
    for role in Role::ALL {
        keys = keys.make(role.name(), &[role], &[], &[], None);
    }
    let bed = Bed::start(Options { tokens: Some(keys.document.clone()), ..Options::default() }).await;
    let document: Value =
        bed.request(Method::GET, "/v1/openapi.json", None).send().await.unwrap().json().await.unwrap();
    let mut described = BTreeSet::new();
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert((method.as_str(), path.as_str()));
            let Some((_, _, need)) = NEEDS.iter().find(|(m, p, _)| m == method && p == path) else {
                panic!("nobody has said who may {method} {path}");
            };
            assert_eq!(operation["security"][0]["token"][0].as_str(), need.map(Role::name), "{method} {path}");
            let send = async |token: Option<&str>| {
                let path = path.replace("{view}", "none").replace("{dataset}", "none").replace("{id}", "none");
                bed.request(method.to_uppercase().parse().unwrap(), &path, token).send().await.unwrap()
            };
            // Nobody, somebody made up, and somebody whose time is over.
            for token in [None, Some("lamina_admin_0"), Some("hush"), Some(keys.tokens["expired"].as_str())] {
                let response = send(token).await;
                assert_eq!(response.status() == 401, need.is_some(), "{method} {path} {token:?}");
                if need.is_some() {
                    assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
                }
            }
            for role in Role::ALL {
                let response = send(Some(&keys.tokens[role.name()])).await;
                let allowed = need.is_none_or(|need| role == need || role == Role::Admin);
                let status = response.status().as_u16();
                let body = response.text().await.unwrap();
                // What is allowed gets to the handler, which finds no such thing, no body or no query.
                let answered = [200, 400, 404, 415, 503].contains(&status);
                assert!(if allowed { answered } else { status == 403 }, "{role}: {method} {path}: {status} {body}");
                if !allowed {
                    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["role"], need.unwrap().name(), "{body}");
                }
                checked += 1;
            }
        }
    }
    assert_eq!(described, NEEDS.iter().map(|(method, path, _)| (*method, *path)).collect());
    assert_eq!(checked, 72);
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_scope_does_not_exist() {
    let all = [Role::Ingest, Role::Query, Role::Operate];
    let keys = Keys::default()
        .make("shop", &all, &["per_product"], &[], None)
        .make("archive", &all, &[], &["sales"], None)
        .make("admin", &[Role::Admin], &[], &[], None);
    let bed = Bed::start(Options { tokens: Some(keys.document.clone()), ..Options::default() }).await;
    let get = async |path: &str, token: &str| {
        let response = bed.request(Method::GET, path, Some(&keys.tokens[token])).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let names = |body: &Value, of: &str| -> Vec<String> {
        body[of].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&get("/v1/views", "shop").await.1, "views"), ["per_product"]);
    assert_eq!(names(&get("/v1/views", "archive").await.1, "views"), [""; 0]);
    assert_eq!(names(&get("/v1/views", "admin").await.1, "views"), ["per_person", "per_product", "per_sale"]);
    assert_eq!(names(&get("/v1/datasets", "shop").await.1, "datasets"), [""; 0]);
    assert_eq!(names(&get("/v1/datasets", "archive").await.1, "datasets"), ["sales"]);
    for path in [
        "/v1/views/per_person",
        "/v1/views/per_person/rows",
        "/v1/views/per_sale/rows",
        "/v1/views/per_sale/failed_events",
        "/v1/datasets/salaries",
        "/v1/datasets/salaries/dead_letters",
    ] {
        for token in ["shop", "archive"] {
            let (status, body) = get(path, token).await;
            assert_eq!(status, 404, "{path} {token}: {body}");
            assert!(!body["near"].to_string().contains("per_person"), "{body}");
        }
        assert_eq!(get(path, "admin").await.0, 200, "{path}");
    }
    assert_eq!(get("/v1/views/per_product/rows?product=3", "shop").await.0, 200);
    // What a view stands at may be waited for, and nothing else.
    let waiting =
        |dataset: &str| format!("/v1/views/per_product/rows?wait=1s&min_position={{\"{dataset}\":{{\"0\":1}}}}");
    assert_eq!(get(&waiting("sales"), "shop").await.0, 200);
    assert_eq!(get(&waiting("salaries"), "shop").await.0, 404);
    for (path, token) in [
        ("/v1/datasets/salaries/events", "shop"),
        ("/v1/datasets/salaries/events", "archive"),
        ("/v1/datasets/sales/events", "shop"),
        ("/v1/views/per_person/recompute", "shop"),
        ("/v1/views/per_person/recompute", "archive"),
    ] {
        let request = bed.request(Method::POST, path, Some(&keys.tokens[token]));
        let response = request.json(&json!({"person": 1, "amount": 1})).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path} {token}");
    }
    let job = bed.request(Method::POST, "/v1/views/per_person/recompute", Some(&keys.tokens["admin"]));
    let job: Value = job.send().await.unwrap().json().await.unwrap();
    let job = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!((get(&job, "admin").await.0, get(&job, "shop").await.0), (200, 404));
    assert_eq!(get("/v1/jobs", "shop").await.1["jobs"], json!([]));

    let refused = [
        "SELECT * FROM per_person",
        "SELECT * FROM public.per_person",
        "SELECT * FROM lamina.public.per_person",
        "SELECT * FROM \"per_person\"",
        "SELECT * FROM salaries",
        "WITH a AS (SELECT * FROM per_person) SELECT * FROM a",
        "SELECT (SELECT max(total) FROM per_person) AS a",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM per_person)",
        "SELECT 1 UNION ALL SELECT total FROM per_person",
        "EXPLAIN SELECT * FROM per_person",
        "EXPLAIN ANALYZE SELECT * FROM per_person",
        "DESCRIBE per_person",
        "SHOW COLUMNS FROM per_person",
        "TABLE per_person",
        "SELECT * FROM per_product, LATERAL (SELECT * FROM per_person) AS b",
    ];
    for sql in refused {
        for token in ["shop", "archive"] {
            let (status, body) = bed.sql(sql, Some(&keys.tokens[token])).await;
            assert!([400, 404].contains(&status), "{sql}: {status} {body}");
            assert!(!body.to_string().contains("100"), "{body}");
        }
    }
    let all_there_is = [
        "SHOW TABLES",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.views",
    ];
    for sql in all_there_is {
        let (status, body) = bed.sql(sql, Some(&keys.tokens["shop"])).await;
        assert_eq!(status, 200, "{sql}: {body}");
        let text = body["rows"].to_string();
        assert!(!["per_person", "per_sale", "salaries"].iter().any(|name| text.contains(name)), "{sql}: {text}");
        assert!(text.contains("per_product"), "{sql}: {text}");
    }
    bed.stop().await;
}

/// How a query ends that should not be run to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It is not run.
    Refused,
    /// It is stopped, by time, memory, rows or bytes.
    Stopped,
    /// It may do either, or be answered, as long as it is within its limits.
    Harmless,
}

#[test]
fn hostile_sql_is_refused_or_stopped_and_the_server_unharmed() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_stack_size(common::process::STACK_BYTES).build().unwrap();
    runtime.block_on(async { tokio::spawn(hostile_sql()).await.unwrap() });
}

/// What it would do: touch files, the network or settings, write, or never end.
fn what_is_no_query(file: &str) -> Vec<(String, End)> {
    use End::{Harmless, Refused, Stopped};
    let fixed = |cases: &[(&str, End)]| -> Vec<(String, End)> {
        cases.iter().map(|(sql, end)| ((*sql).to_owned(), *end)).collect()
    };
    let mut cases = vec![
        (format!("SELECT * FROM '{file}'"), Refused),
        (format!("SELECT * FROM \"{file}\""), Refused),
        (format!("COPY per_sale TO '{file}'"), Refused),
        (format!("COPY (SELECT 1) TO '{file}' STORED AS CSV"), Refused),
        (format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'"), Refused),
        (format!("SELECT * FROM read_csv('{file}')"), Refused),
        (format!("SELECT * FROM parquet_metadata('{file}')"), Refused),
    ];
    cases.extend(fixed(&[
        ("SELECT * FROM 'http://127.0.0.1:1/a.csv'", Refused),
        ("SELECT * FROM 's3://bucket/a.parquet'", Refused),
        ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'https://127.0.0.1:1/a'", Refused),
        ("SET datafusion.execution.batch_size = 1", Refused),
        ("RESET datafusion.execution.batch_size", Refused),
        ("CREATE TABLE t AS SELECT 1", Refused),
        ("CREATE VIEW v AS SELECT 1", Refused),
        ("SELECT 1 AS a INTO t", Refused),
        ("INSERT INTO per_sale VALUES (1, 2)", Refused),
        ("WITH a AS (INSERT INTO per_sale VALUES (1, 2)) SELECT 1", Refused),
        ("UPDATE per_sale SET total = 1", Refused),
        ("DELETE FROM per_sale", Refused),
        ("TRUNCATE TABLE per_sale", Refused),
        ("DROP TABLE per_sale", Refused),
        ("EXPLAIN INSERT INTO per_sale VALUES (1, 2)", Refused),
        ("PREPARE p AS SELECT 1", Refused),
        ("EXECUTE p", Refused),
        ("BEGIN", Refused),
        ("CALL f()", Refused),
        ("CREATE FUNCTION f() RETURNS INT RETURN 1", Refused),
        ("SELECT 1; DROP TABLE per_sale", Refused),
        ("SELECT pg_sleep(100)", Refused),
        ("SELECT pg_read_file('/etc/passwd')", Refused),
        ("SELECT load_extension('a')", Refused),
        ("WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM a) SELECT * FROM a", Stopped),
        ("WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT x FROM a) SELECT count(*) FROM a", Stopped),
        ("WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT a.x FROM a, per_sale) SELECT count(*) FROM a", Stopped),
        ("SELECT count(*) FROM per_sale a, per_sale b, per_sale c", Harmless),
        ("SELECT count(a.id + b.id) FROM per_sale a, per_sale b, per_sale c", Stopped),
        (
            "SELECT count(*) FROM per_sale a JOIN per_sale b ON a.id * b.id < -1 JOIN per_sale c ON b.id * c.id < a.id",
            Stopped,
        ),
        (
            "SELECT count(*) FROM sales a JOIN sales b ON a.amount = b.amount JOIN sales c ON b.amount = c.amount",
            Stopped,
        ),
        ("SELECT a.id, b.id FROM per_sale a, per_sale b, per_sale c", Stopped),
        ("SELECT a.id FROM per_sale a, per_sale b, per_sale c ORDER BY a.id + b.id DESC", Stopped),
        ("EXPLAIN ANALYZE SELECT count(a.id + b.id) FROM per_sale a, per_sale b, per_sale c", Stopped),
        ("SELECT count(*) FROM range(0, 1000000000000000000)", Stopped),
        ("SELECT sum(value) FROM generate_series(1, 1000000000000000000)", Stopped),
        ("SELECT * FROM generate_series(1, 1000000000000000000)", Stopped),
        ("SELECT array_length(range(0, 1000000000000000))", Harmless),
        ("SELECT array_length(generate_series(0, 1000000000000000))", Harmless),
        ("SELECT length(repeat('a', 100000000000))", Harmless),
        ("SELECT length(lpad('a', 100000000000, 'b'))", Harmless),
        ("SELECT length(repeat(repeat('a', 100000), 100000))", Harmless),
        ("SELECT array_length(array_repeat(1, 1000000000000))", Harmless),
        ("SELECT array_length(array_resize([1], 1000000000000, 1))", Harmless),
        ("SELECT regexp_like(repeat('a', 100000), '(a*)*b')", Harmless),
        ("SELECT regexp_like('a', '((((a{1,100}){1,100}){1,100}){1,100})')", Harmless),
        ("SELECT string_agg(repeat('a', 10000), '') FROM per_sale a, per_sale b", Stopped),
        ("SELECT power(1e308, 2), 1 / 0", Harmless),
    ]));
    cases
}

/// What is too deep or too long.
fn what_is_too_much() -> Vec<(String, End)> {
    use End::{Harmless, Refused};
    let mut cases = Vec::new();
    let many = |one: &str, between: &str, count: usize| vec![one; count].join(between);
    let nested = |before: &str, after: &str| format!("SELECT {}1{}", before.repeat(2_000), after.repeat(2_000));
    for (before, after) in [("(", ")"), ("- ", ""), ("NOT ", ""), ("abs(", ")"), ("[", "]"), ("(SELECT ", ")")] {
        cases.push((nested(before, after), Refused));
    }
    cases.push((nested("CASE WHEN true THEN ", " END"), Refused));
    // As deep as is allowed, and deeper.
    for (count, end) in [(480, Harmless), (6_000, Refused)] {
        cases.extend([
            (format!("SELECT {}", many("1", "+", count)), end),
            (format!("SELECT {} FROM per_sale", many("id", "+", count)), end),
            (format!("SELECT {} FROM per_sale", many("id=1", " OR ", count / 2)), end),
            (format!("SELECT count(*) FROM per_sale WHERE {}", many("id=1", " OR ", count / 2)), end),
            (format!("SELECT count(*) FROM per_sale WHERE {}", many("id<>1", " AND ", count / 2)), end),
            (many("SELECT 1", " UNION ALL ", count / 3), end),
            (many("SELECT id FROM per_sale", " UNION ", count / 3), end),
            (many("SELECT id FROM per_sale", " EXCEPT ", count / 3), end),
            (format!("SELECT 1 FROM {}", many("per_sale", ",", count)), end),
            (format!("SELECT 1 FROM {}", many("per_sale", " NATURAL JOIN ", count / 2)), end),
            (format!("SELECT 1{}", "::int".repeat(count / 2)), end),
            (format!("SELECT id{} FROM per_sale", "::text::bigint".repeat(count / 4)), end),
            (format!("SELECT id{} FROM per_sale", " IS NULL".repeat(count / 2)), end),
            (format!("SELECT [1]{}", "[1]".repeat(count - 2)), end),
            (format!("SELECT {} FROM per_sale", many("id", ",", count)), Harmless),
            (format!("SELECT 'a'{}", " || 'a'".repeat(count)), end),
            (format!("SELECT {}", many("a", ".", count)), Refused),
        ]);
    }
    cases.extend([
        (format!("SELECT count(*) FROM per_sale WHERE id IN ({})", many("1", ",", 30_000)), Harmless),
        (format!("SELECT count(*) FROM per_sale WHERE id IN ({})", many("1", ",", 1_000_000)), Refused),
        (format!("SELECT length('{}')", "a".repeat(60_000)), Harmless),
        (format!("SELECT length('{}')", "a".repeat(2_000_000)), Refused),
        (format!("SELECT {}", "9".repeat(60_000)), Harmless),
    ]);
    cases
}

async fn hostile_sql() {
    use End::{Harmless, Refused, Stopped};
    let time = Duration::from_secs(2);
    let limits = Limits { time, rows: 100_000, bytes: bytesize::ByteSize::mib(4), ..Limits::default() };
    let bed = Bed::start(Options { limits, ..Options::default() }).await;
    let file = tempfile::NamedTempFile::with_suffix(".csv").unwrap();
    std::fs::write(file.path(), "a,b\nhush,2\n").unwrap();
    let file = file.path().to_str().unwrap();
    let mut cases = what_is_no_query(file);
    cases.extend(what_is_too_much());
    let mut faults = Vec::new();
    for (sql, end) in cases {
        let began = Instant::now();
        let (status, body) = bed.sql(&sql, None).await;
        let took = began.elapsed();
        let shown: String = sql.chars().take(100).collect();
        let ended = match status {
            400 | 404 => Refused,
            0 | 413 | 503 => Stopped,
            _ => Harmless,
        };
        eprintln!("{status} {:.2} s {shown}", took.as_secs_f64());
        if end != Harmless && end != ended || status >= 500 && status != 503 {
            faults.push(format!(
                "{end:?} but {status}: {shown}: {}",
                body.to_string().chars().take(300).collect::<String>()
            ));
        }
        // What is not stopped takes hours.
        if took > time + Duration::from_secs(60) {
            faults.push(format!("took {took:?}: {shown}"));
        }
        // The next one is answered, right and at once: nothing is left at work.
        let began = Instant::now();
        let (status, body) = bed.sql("SELECT sum(n) AS n FROM per_product", None).await;
        if status != 200 || body["rows"] != json!([{"n": SALES}]) || began.elapsed() > Duration::from_secs(60) {
            faults.push(format!("after it {status} in {:?}: {shown}: {body}", began.elapsed()));
        }
    }
    assert_eq!(faults, [""; 0], "{faults:#?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "a,b\nhush,2\n");
    bed.stop().await;
}

/// A query that is at work for hours, for each way to be so: pairs that are given out, and pairs that are all dropped.
const ENDLESS: [&str; 3] = [
    "SELECT count(a.id + b.id) FROM per_sale a, per_sale b, per_sale c",
    "SELECT count(*) FROM per_sale a JOIN per_sale b ON a.id * b.id < -1 JOIN per_sale c ON b.id * c.id < a.id",
    "SELECT a.id, b.id FROM per_sale a, per_sale b, per_sale c",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_query_stops_when_its_client_leaves() {
    let bed = Bed::start(Options { limits: Limits { queries: 1, ..Limits::default() }, ..Options::default() }).await;
    let small = "SELECT sum(n) AS n FROM per_product";
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    bed.sql(small, None).await;
    let before = tasks();
    for sql in ENDLESS {
        let asked = bed.request(Method::POST, "/v1/sql", None).json(&json!({"sql": sql}));
        let client = async {
            let mut response = asked.send().await.unwrap();
            while response.chunk().await.unwrap().is_some() {}
        };
        // While it is at work its client has no other: that shows that it is.
        let mut client = Box::pin(client);
        let deadline = Instant::now() + Duration::from_secs(20);
        let refused = loop {
            assert!(Instant::now() < deadline, "{sql} was not at work");
            let _ = tokio::time::timeout(Duration::from_millis(100), &mut client).await;
            let response =
                bed.request(Method::POST, "/v1/sql", None).json(&json!({"sql": small})).send().await.unwrap();
            if response.status() == 429 {
                break response;
            }
        };
        assert!(refused.headers().contains_key("retry-after"));
        drop(client);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (status, body) = bed.sql(small, None).await;
            // The parts of it have tasks of their own.
            if status == 200 && tasks() <= before + 5 {
                break;
            }
            assert!(Instant::now() < deadline, "{sql} goes on: {status} {body}, {} tasks of {before}", tasks());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    bed.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_both_versions_of_http_and_with_certificates_of_clients() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::from_params(&params, &authority_key);
    let issue = || {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), access::Secret::new(key.serialize_pem()))
    };
    let client = |ca: &str, own: bool, protocols: &[&[u8]]| {
        let (certificate, key) = if own { issue() } else { (String::new(), access::Secret::new("")) };
        let (certificate, key) = (own.then_some(certificate), own.then_some(key));
        let config = tls::ClientSettings { ca: Some(ca.to_owned()), certificate, key }.client(protocols).unwrap();
        reqwest::Client::builder().use_preconfigured_tls(config.unwrap()).build().unwrap()
    };
    for asked in [false, true] {
        let (certificate, key) = issue();
        let settings = tls::Settings {
            certificate: Some(certificate),
            key: Some(key),
            client_ca: asked.then(|| authority.clone()),
            ca: None,
        };
        let http = client(&authority, true, tls::HTTP);
        let bed = Bed::start(Options { tls: settings, http: Some(http), ..Options::default() }).await;
        let health = format!("{}/healthz", bed.base);
        let response = bed.http.get(&health).send().await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, reqwest::Version::HTTP_2));
        let one = client(&authority, true, &[b"http/1.1"]).get(&health).send().await.unwrap();
        assert_eq!((one.status(), one.version()), (StatusCode::OK, reqwest::Version::HTTP_11));
        let (status, body) = bed.sql("SELECT sum(n) AS n FROM per_product", None).await;
        assert_eq!((status, &body["rows"]), (200, &json!([{"n": SALES}])));
        // Who is not known, who does not know it, and who speaks without TLS.
        assert_eq!(client(&authority, false, tls::HTTP).get(&health).send().await.is_ok(), !asked);
        assert!(client(unknown_authority().as_str(), true, tls::HTTP).get(&health).send().await.is_err());
        assert!(reqwest::get(health.replace("https", "http")).await.is_err());
        // One that connects and says nothing holds nobody up.
        let address = health.trim_start_matches("https://").trim_end_matches("/healthz");
        let silent = tokio::net::TcpStream::connect(address).await.unwrap();
        assert!(client(&authority, true, tls::HTTP).get(&health).send().await.is_ok());
        drop(silent);
        bed.stop().await;
    }
}

/// An authority that nobody knows.
fn unknown_authority() -> String {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem()
}
