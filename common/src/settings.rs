//! Settings: defaults, then the settings file, then the environment, then flags. They are read here and handed down.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    access::{self, Limits, Secret, Shared, Tokens},
    process,
    renewed::Renewed,
    supervisor::Supervisor,
    tls, web,
};

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The folder of SQL files, or the `s3://` address of one.
    pub catalog: String,
    /// Where the embedded log and the folder store are, and the lock.
    pub data: PathBuf,
    /// Where to answer; each program has an address of its own.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    /// What the layers show each other when they run apart: at least 32 letters and digits, the same for all.
    pub secret: Option<Secret>,
    /// Who may ask: the tokens' document, or the file that it is in. Without it everyone may, at loopback addresses.
    pub tokens: Option<String>,
    /// Answers everyone without tokens at other addresses too.
    pub insecure: bool,
    /// Names of this server that are answered without tokens, beside loopback ones.
    pub hosts: Vec<String>,
    /// So many connections there are at once, if the system allows twice as many open files.
    pub connections: usize,
    /// TLS for HTTP.
    pub tls: tls::Settings,
    /// Only to test upgrades with: another format for the same states.
    pub state_format: Option<u32>,
    /// The log.
    pub log: LogSettings,
    /// The object store.
    pub store: StoreSettings,
    /// Room on a disk for what does not fit into memory.
    pub spill: SpillSettings,
    /// The batch layer.
    pub batch: BatchSettings,
    /// The speed layer.
    pub speed: SpeedSettings,
    /// The serving layer.
    pub serving: ServingSettings,
}

/// The log.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Kafka's brokers; without them the embedded log under the data folder is used.
    pub kafka: Option<String>,
    /// Whether topics that Kafka does not have are created. Otherwise a dataset without one is refused.
    pub create_topics: bool,
    /// Any other librdkafka setting, such as `security.protocol`.
    #[serde(serialize_with = "shown")]
    pub settings: BTreeMap<String, String>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { kafka: None, create_topics: true, settings: BTreeMap::new() }
    }
}

impl std::fmt::Debug for LogSettings {
    /// Settings may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.settings.keys().collect();
        f.debug_struct("LogSettings")
            .field("kafka", &self.kafka)
            .field("create_topics", &self.create_topics)
            .field("settings", &names)
            .finish()
    }
}

/// The object store.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// `s3://bucket/prefix` or `file:///folder`; without it a folder under the data folder is used.
    pub url: Option<String>,
    /// Options as `object_store` names them, such as `aws_endpoint`. For S3 the environment's `AWS_…` count too.
    #[serde(serialize_with = "shown")]
    pub options: BTreeMap<String, String>,
    /// Whether a folder has everything on the disk before anybody is told that it is written. Without it a power failure
    /// may take the newest files; what the log has of them is archived again.
    pub sync: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { url: None, options: BTreeMap::new(), sync: true }
    }
}

impl std::fmt::Debug for StoreSettings {
    /// Options may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.options.keys().collect();
        f.debug_struct("StoreSettings")
            .field("url", &self.url)
            .field("options", &names)
            .field("sync", &self.sync)
            .finish()
    }
}

/// Room on a disk for what recomputes and queries do not have the memory for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpillSettings {
    /// The folder; without it the system's for temporary files. Better not on the disk of the data folder: whoever fills
    /// that stops the log.
    pub folder: Option<PathBuf>,
    /// So much may be there at once of all queries together, and so much of a recompute; what would need more fails.
    pub size: ByteSize,
}

/// What is in the name of an option of another library's whose value is not for others to see.
const SECRET_NAMES: [&str; 5] = ["password", "secret", "key", "token", "config"];

/// Writes options of another library's, with secrets hidden.
fn shown<S: Serializer>(options: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    let is_secret = |name: &str| SECRET_NAMES.iter().any(|part| name.to_lowercase().contains(part));
    serializer.collect_map(options.iter().map(|(name, value)| match is_secret(name) {
        true => (name, access::HIDDEN),
        false => (name, value.as_str()),
    }))
}

/// What is wrong with the settings of an address.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// What stands between a layer's service and the world.
#[derive(Clone, Debug)]
pub struct BackDoor {
    /// What the other layers must show.
    pub secret: Option<Shared>,
    /// How it meets those who ask.
    pub front: web::Front,
}

/// What stands between HTTP and the world.
#[derive(Clone, Debug)]
pub struct Door {
    /// Who may ask.
    pub tokens: Option<Renewed<Tokens>>,
    /// How it meets those who ask.
    pub front: web::Front,
}

/// The batch layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSettings {
    /// A batch is archived once it has this many events,
    pub flush_rows: usize,
    /// or this many bytes,
    pub flush_bytes: ByteSize,
    /// or its first event has waited this long.
    #[serde(with = "humantime_serde")]
    pub flush_age: Duration,
    /// What a recompute may use before it spills to disk.
    pub memory: ByteSize,
    /// How long files of old batch view versions are kept: longer than any query.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// How often the catalog's files are looked at. A change takes effect once two looks have found the same.
    #[serde(with = "humantime_serde")]
    pub catalog_every: Duration,
}

/// The speed layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedSettings {
    /// Above this the tail is folded into few states; where that is not enough, the head stops until a newer batch view
    /// version lets go of some.
    pub memory: ByteSize,
    /// The consumer group whose members share the partitions. Two groups hold each partition twice.
    pub group: String,
    /// How long partitions are kept for queries after they went to another member, also before stopping.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
}

/// The serving layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingSettings {
    /// What all queries together may use.
    pub memory: ByteSize,
    /// The largest request body.
    pub body: ByteSize,
    /// What the bodies of all requests that are at work may take.
    pub bodies: ByteSize,
    /// Where the speed layer's workers are: `dns://host:port`, or `http://host:port` with commas between them.
    pub speed: String,
    /// Where the batch layer is.
    pub batch: String,
    /// What one client may use.
    pub limits: Limits,
    /// So many proxies stand before it, and each adds to `x-forwarded-for` whom it asks for: clients without tokens are
    /// told apart by the address that the first of them has seen.
    pub proxies: usize,
}

/// How often it is looked whether there are new tokens or certificates.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A size as the number of bytes that this machine can have.
pub fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

impl ServingSettings {
    /// The largest request body, in bytes.
    pub fn body_bytes(&self) -> usize {
        bytes(self.body)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            catalog: "catalog".to_owned(),
            data: PathBuf::from("data"),
            listen: None,
            secret: None,
            tokens: None,
            insecure: false,
            hosts: Vec::new(),
            connections: 4096,
            tls: tls::Settings::default(),
            state_format: None,
            log: LogSettings::default(),
            store: StoreSettings::default(),
            spill: SpillSettings::default(),
            batch: BatchSettings::default(),
            speed: SpeedSettings::default(),
            serving: ServingSettings::default(),
        }
    }
}

impl Default for SpillSettings {
    fn default() -> Self {
        Self { folder: None, size: ByteSize::gib(16) }
    }
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            flush_rows: 500_000,
            flush_bytes: ByteSize::mib(64),
            flush_age: Duration::from_secs(5),
            memory: ByteSize::gib(2),
            retention: Duration::from_secs(1800),
            catalog_every: Duration::from_secs(30),
        }
    }
}

impl Default for SpeedSettings {
    fn default() -> Self {
        Self { memory: ByteSize::gib(2), group: "lamina-speed".to_owned(), linger: Duration::from_secs(10) }
    }
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self {
            memory: ByteSize::gib(1),
            body: ByteSize::mib(16),
            bodies: ByteSize::mib(256),
            limits: Limits::default(),
            proxies: 0,
            speed: "http://127.0.0.1:8789".to_owned(),
            batch: "http://127.0.0.1:8788".to_owned(),
        }
    }
}

/// What flags say.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The folder of SQL files that define datasets and views.
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<String>,
    /// Where the embedded log and the folder store are kept [default: data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Kafka's brokers, such as `127.0.0.1:9092`; without them an embedded log is used.
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// An object store, such as `s3://bucket/prefix`; without it a folder is used.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Where to answer, such as `127.0.0.1:8787` or `localhost:8787`.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// The file of tokens that `lamina token new` wrote lines for; who asks must then have one.
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<String>,
    /// Answer everyone, without tokens, at addresses that other machines reach.
    #[arg(long)]
    pub insecure: bool,
    /// A settings file in TOML; what it says, flags override.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// An address to answer at: a name's first one in IPv4, or else its first.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = match text.parse() {
        Ok(address) => vec![address],
        Err(_) => text.to_socket_addrs().map(Iterator::collect).unwrap_or_default(),
    };
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    first.ok_or_else(|| format!("`{text}` is no address: write one such as `127.0.0.1:8787` or `localhost:8787`"))
}

fn listen<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| address(&text).map_err(serde::de::Error::custom)).transpose()
}

/// Names in the environment that are no settings of the layers.
const OTHER_NAMES: &[&str] = &["url", "token", "log", "seed", "seeds"];

/// `LAMINA_KAFKA_SECURITY_PROTOCOL` is librdkafka's `security.protocol`, and so on.
const KAFKA: &str = "LAMINA_KAFKA_";

impl Settings {
    /// All sources together. All faults are told at once.
    pub fn read(flags: &Flags) -> Result<Self, figment::Error> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = &flags.settings {
            figment = figment.merge(Toml::file_exact(file));
        }
        let is_setting = |name: &str| !OTHER_NAMES.contains(&name) && !name.starts_with("kafka_");
        figment = figment
            .merge(Env::prefixed("LAMINA_").filter(move |name| is_setting(&name.as_str().to_lowercase())).split("__"));
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                figment = std::mem::take(&mut figment).merge((name, value));
            }
        };
        let path = |path: &Option<PathBuf>| path.as_deref().map(Path::display).map(|path| path.to_string());
        set("catalog", flags.catalog.clone());
        set("data", path(&flags.data));
        set("log.kafka", flags.kafka.clone());
        set("store.url", flags.store.clone());
        set("listen", flags.listen.map(|address| address.to_string()));
        set("tokens", flags.tokens.clone());
        if flags.insecure {
            figment = figment.merge(("insecure", true));
        }
        let mut settings: Self = figment.extract()?;
        #[allow(clippy::disallowed_methods, reason = "settings are read in this module")]
        for (name, value) in std::env::vars() {
            if let Some(name) = name.strip_prefix(KAFKA) {
                settings.log.settings.insert(name.to_lowercase().replace('_', "."), value);
            }
        }
        if settings.store.url.as_deref().is_some_and(|url| url.starts_with("s3")) {
            #[allow(clippy::disallowed_methods, reason = "settings are read in this module")]
            let environment = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
            for (name, value) in environment {
                settings.store.options.entry(name.to_lowercase()).or_insert(value);
            }
        }
        Ok(settings)
    }

    /// What stands between HTTP at `listen` and the world; refused where that is nothing.
    pub fn door(&self, listen: SocketAddr) -> Result<Door, Fault> {
        let tokens = self.tokens.as_deref().map(Tokens::read).transpose()?.map(Renewed::new);
        access::may_listen(listen, tokens.is_some(), self.insecure)?;
        let front = self.front(tokens.is_some())?;
        if tokens.is_some() && front.tls.is_none() && !listen.ip().is_loopback() {
            tracing::warn!("tokens travel in the clear to `{listen}`: set `tls`, or keep TLS in front of it");
        }
        Ok(Door { tokens, front })
    }

    /// Takes new tokens up while they are asked for.
    pub fn renew_tokens(&self, door: &Door, supervisor: &Supervisor) -> Result<(), Fault> {
        if let (Some(tokens), Some(setting)) = (&door.tokens, self.tokens.clone()) {
            let known = Tokens::document(&setting)?;
            tokens.follow("tokens", RENEW_EVERY, supervisor, known, move || {
                let document = Tokens::document(&setting)?;
                let tokens = Tokens::parse(&document)?;
                Ok((document, Arc::new(tokens)))
            });
        }
        Ok(())
    }

    /// Takes new certificates up while they are shown.
    pub fn renew_certificates(&self, front: &web::Front, supervisor: &Supervisor) -> Result<(), Fault> {
        if let Some(config) = &front.tls {
            let (settings, known) = (self.tls.clone(), self.tls.material()?);
            config.follow("certificates", RENEW_EVERY, supervisor, known, move || {
                let material = settings.material()?;
                let config = settings.server(tls::HTTP)?.ok_or("there is no certificate any more")?;
                Ok((material, config))
            });
        }
        Ok(())
    }

    /// How those are met who show something that no web page has, or else anybody.
    fn front(&self, is_shown: bool) -> Result<web::Front, Fault> {
        let others = match (is_shown, self.insecure) {
            (true, _) => web::Others::Everybody,
            (false, true) => web::Others::Unowned,
            (false, false) => web::Others::Nobody,
        };
        let patience = web::Patience::default();
        Ok(web::Front {
            tls: self.tls.server(tls::HTTP)?.map(Renewed::new),
            hosts: Arc::new(web::Hosts { others, names: self.hosts.clone() }),
            connections: self.connections.min(process::open_files() / 2),
            bodies: web::Bodies::new(bytes(self.serving.bodies), self.serving.body_bytes(), patience.body),
            patience,
        })
    }

    /// What stands between a layer's service at `listen` and the world: the secret that the layers share.
    pub fn back_door(&self, listen: SocketAddr) -> Result<BackDoor, Fault> {
        let secret = self.secret.clone().map(Shared::new).transpose()?;
        if secret.is_none() && !self.insecure && !listen.ip().to_canonical().is_loopback() {
            return Err(access::Error::OpenLayer { address: listen }.into());
        }
        Ok(BackDoor { front: self.front(secret.is_some())?, secret })
    }

    /// The store's root.
    pub fn store_url(&self) -> std::io::Result<String> {
        match &self.store.url {
            Some(url) => Ok(url.clone()),
            None => {
                let folder = self.data.join("store");
                std::fs::create_dir_all(&folder)?;
                let folder = folder.canonicalize()?;
                let url = url::Url::from_directory_path(&folder);
                let url = url.map_err(|()| std::io::Error::other(format!("`{}` is no folder", folder.display())))?;
                Ok(url.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_overridden_by_flags() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listen = '127.0.0.1:1'\n[batch]\nflush_age = '30s'\nmemory = '64MiB'\n").unwrap();
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 2)));
        let flags = Flags { settings: Some(file.path().to_owned()), listen, ..Flags::default() };
        let settings = Settings::read(&flags).unwrap();
        assert_eq!((settings.listen.map(|address| address.port()), settings.batch.flush_age.as_secs()), (Some(2), 30));
        assert_eq!(settings.batch.memory, ByteSize::mib(64));
        std::fs::write(file.path(), "listen = 'localhost:1'").unwrap();
        let named = Settings::read(&Flags { listen: None, ..flags.clone() }).unwrap();
        assert_eq!(named.listen, Some(SocketAddr::from(([127, 0, 0, 1], 1))));
        assert!(address("localhost").unwrap_err().contains("`localhost` is no address"));
        std::fs::write(file.path(), "lissen = '127.0.0.1:1'").unwrap();
        let error = Settings::read(&flags).unwrap_err().to_string();
        assert!(error.contains("lissen"), "{error}");
    }

    #[test]
    fn an_address_that_others_reach_needs_tokens_or_a_waiver() {
        let (loopback, open) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([0, 0, 0, 0], 8787)));
        let issued = access::issue(&access::Request { roles: [access::Role::Admin].into(), ..Default::default() });
        let tokens = Some(issued.unwrap().line);
        assert!(Settings::default().door(loopback).unwrap().tokens.is_none());
        let error = Settings::default().door(open).unwrap_err().to_string();
        assert!(error.contains("0.0.0.0:8787") && error.contains("--insecure"), "{error}");
        assert!(Settings { insecure: true, ..Settings::default() }.door(open).unwrap().tokens.is_none());
        assert!(Settings { tokens, ..Settings::default() }.door(open).unwrap().tokens.is_some());
        Settings { tokens: Some("/no/such/file".to_owned()), ..Settings::default() }.door(open).unwrap_err();
    }

    #[test]
    fn a_layer_that_others_reach_needs_the_secret_or_a_waiver() {
        let open = SocketAddr::from(([0, 0, 0, 0], 8789));
        let error = Settings::default().back_door(open).unwrap_err().to_string();
        assert!(error.contains("0.0.0.0:8789") && error.contains("--insecure"), "{error}");
        Settings { insecure: true, ..Settings::default() }.back_door(open).unwrap();
        let secret = |text: &str| Settings { secret: Some(Secret::new(text)), ..Settings::default() };
        assert!(secret(&"x".repeat(64)).back_door(open).unwrap().secret.is_some());
        secret("short").back_door(open).unwrap_err();
    }

    #[test]
    fn secrets_are_not_shown() {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut settings = Settings { secret: Some(Secret::new("hush")), ..Settings::default() };
        settings.tls.key = Some(Secret::new("hush"));
        settings.store.options = map(&[("aws_secret_access_key", "hush"), ("aws_region", "here")]);
        settings.log.settings = map(&[("sasl.password", "hush"), ("ssl.key.pem", "hush"), ("sasl.username", "me")]);
        let (debug, json) = (format!("{settings:?}"), serde_json::to_string(&settings).unwrap());
        for shown in [&debug, &json] {
            assert!(shown.contains("aws_secret_access_key") && shown.contains("sasl.password"), "{shown}");
            assert!(!shown.contains("hush"), "{shown}");
        }
        assert!(json.contains("here") && json.contains("me") && json.contains(access::HIDDEN), "{json}");
    }
}
