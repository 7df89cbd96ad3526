//! Settings: defaults, then the settings file, then the environment, then flags. They are read here and handed down.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

/// Everything that can be set.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The folder of SQL files.
    pub catalog: PathBuf,
    /// Where the embedded log and the folder store are, and the lock.
    pub data: PathBuf,
    /// Where HTTP is answered.
    pub listen: SocketAddr,
    /// The log.
    pub log: LogSettings,
    /// The object store.
    pub store: StoreSettings,
    /// The batch layer.
    pub batch: BatchSettings,
    /// The speed layer.
    pub speed: SpeedSettings,
    /// The serving layer.
    pub serving: ServingSettings,
}

/// The log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Kafka's brokers; without them the embedded log under the data folder is used.
    pub kafka: Option<String>,
    /// Any other librdkafka setting, such as `security.protocol`.
    pub settings: BTreeMap<String, String>,
}

/// The object store.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// `s3://bucket/prefix` or `file:///folder`; without it a folder under the data folder is used.
    pub url: Option<String>,
    /// Options as `object_store` names them, such as `aws_endpoint`. For S3 the environment's `AWS_…` count too.
    pub options: BTreeMap<String, String>,
}

impl std::fmt::Debug for StoreSettings {
    /// Options may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.options.keys().collect();
        f.debug_struct("StoreSettings").field("url", &self.url).field("options", &names).finish()
    }
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
}

/// The speed layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedSettings {
    /// Above this the tail is folded into few states; where that is not enough, the head stops until a newer batch view
    /// version lets go of some.
    pub memory: ByteSize,
}

/// The serving layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServingSettings {
    /// What all queries together may use.
    pub memory: ByteSize,
    /// The largest request body.
    pub body: ByteSize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            catalog: PathBuf::from("catalog"),
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            log: LogSettings::default(),
            store: StoreSettings::default(),
            batch: BatchSettings::default(),
            speed: SpeedSettings::default(),
            serving: ServingSettings::default(),
        }
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
        }
    }
}

impl Default for SpeedSettings {
    fn default() -> Self {
        Self { memory: ByteSize::gib(2) }
    }
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self { memory: ByteSize::gib(1), body: ByteSize::mib(16) }
    }
}

/// What flags say.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The folder of SQL files that define datasets and views.
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
    /// Where the embedded log and the folder store are kept [default: data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Kafka's brokers, such as `127.0.0.1:9092`; without them an embedded log is used.
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// An object store, such as `s3://bucket/prefix`; without it a folder is used.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Where to answer HTTP [default: 127.0.0.1:8787].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// A settings file in TOML; what it says, flags override.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// Names in the environment that are no settings of the layers.
const OTHER_NAMES: &[&str] = &["url", "log", "seed", "seeds"];

impl Settings {
    /// All sources together. All faults are told at once.
    pub fn read(flags: &Flags) -> Result<Self, figment::Error> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = &flags.settings {
            figment = figment.merge(Toml::file_exact(file));
        }
        let is_setting = |name: &str| !OTHER_NAMES.contains(&name);
        figment = figment
            .merge(Env::prefixed("LAMINA_").filter(move |name| is_setting(&name.as_str().to_lowercase())).split("__"));
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                figment = std::mem::take(&mut figment).merge((name, value));
            }
        };
        let path = |path: &Option<PathBuf>| path.as_deref().map(Path::display).map(|path| path.to_string());
        set("catalog", path(&flags.catalog));
        set("data", path(&flags.data));
        set("log.kafka", flags.kafka.clone());
        set("store.url", flags.store.clone());
        set("listen", flags.listen.map(|address| address.to_string()));
        let mut settings: Self = figment.extract()?;
        if settings.store.url.as_deref().is_some_and(|url| url.starts_with("s3")) {
            #[allow(clippy::disallowed_methods, reason = "settings are read in this module")]
            let environment = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
            for (name, value) in environment {
                settings.store.options.entry(name.to_lowercase()).or_insert(value);
            }
        }
        Ok(settings)
    }

    /// The store's root.
    pub fn store_url(&self) -> anyhow::Result<String> {
        match &self.store.url {
            Some(url) => Ok(url.clone()),
            None => {
                let folder = self.data.join("store");
                std::fs::create_dir_all(&folder)?;
                let folder = folder.canonicalize()?;
                let url = url::Url::from_directory_path(&folder);
                Ok(url.map_err(|()| anyhow::anyhow!("`{}` is no folder", folder.display()))?.into())
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
        assert_eq!((settings.listen.port(), settings.batch.flush_age.as_secs()), (2, 30));
        assert_eq!(settings.batch.memory, ByteSize::mib(64));
        std::fs::write(file.path(), "lissen = '127.0.0.1:1'").unwrap();
        let error = Settings::read(&flags).unwrap_err().to_string();
        assert!(error.contains("lissen"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = [("aws_secret_access_key".to_owned(), "hush".to_owned())].into();
        let shown = format!("{:?}", StoreSettings { url: None, options });
        assert!(shown.contains("aws_secret_access_key") && !shown.contains("hush"));
    }
}
