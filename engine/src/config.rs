//! Every setting of a server, in one list: flag > `CROUPIER_…` environment > TOML file > default.
//!
//! [`Layer`] is that list, once: clap reads flags and environment into one, serde reads the file into another, and
//! [`Config::from_layers`] puts the first over the second and both over the defaults. A setting that cannot be is an
//! error that names its key; nothing is clamped in silence.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use croupier_protocol::{
    FRAME_BYTES_MAX_DEFAULT, FRAME_BYTES_MAX_LIMIT, ORDERS_IN_FLIGHT_MAX_DEFAULT,
    QUANTITY_MAX_DEFAULT,
};
use serde::{Deserialize, Deserializer, de};

use crate::state::record::QUANTITY_LIMIT;
use crate::state::reused::VIEW_SLOTS_MAX;

/// Where a server listens for orders unless told otherwise.
pub const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7733);
/// Where it answers operators over HTTP unless told otherwise.
pub const OPS_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7734);
/// The data directory unless told otherwise.
pub const DATA_DEFAULT: &str = "croupier-data";
/// More cores than this is a typing error.
pub const CORES_MAX: u32 = 1024;

/// What a server runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The data directory.
    pub data: PathBuf,
    /// The key file, when it is not in the data directory.
    pub key_file: Option<PathBuf>,
    /// Where orders come in; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where operators ask.
    pub ops: SocketAddr,
    /// How many cores deal.
    pub cores: Cores,
    /// The route table to load at the start.
    pub routes: Option<PathBuf>,
    /// Size of one segment of the log of a new store; an existing store keeps its own.
    pub wal_segment_bytes: u64,
    /// Size of the ring between the dealers and the log; never more than a quarter of a segment.
    pub ring_bytes: u64,
    /// Orders that may wait in one lane of one core.
    pub lane_orders_max: u32,
    /// Connections open at once.
    pub connections_max: u32,
    /// Orders that one connection may have unanswered.
    pub orders_in_flight_max: u32,
    /// The largest frame taken or sent.
    pub frame_bytes_max: u32,
    /// The most cards of one order.
    pub quantity_max: u32,
    /// The longest time to live of a hold, in milliseconds.
    pub hold_ttl_max_ms: u32,
    /// How often a hold may be extended.
    pub hold_extensions_max: u32,
    /// Most open holds and waiting orders of one holder; 0: any number.
    pub holder_holds_max: u32,
    /// How long an order may wait for stock, in milliseconds.
    pub wait_max_ms: u32,
    /// How long before it expires a card leaves stock, in milliseconds.
    pub expiry_lead_ms: u32,
    /// Uses that a card that is dealt without end has ahead at first.
    pub uses_ahead: u32,
    /// The same in the end.
    pub uses_ahead_max: u32,
    /// Sealed segments after which they are folded into a checkpoint.
    pub checkpoint_segments: u32,
    /// How blocks of the log are made durable.
    pub sync: Sync,
    /// Answer before the log is on stable storage. Set by its flag and by nothing else.
    pub unsafe_no_sync: bool,
}

/// How blocks of the log are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Both ways are tried at the start; `Direct` is taken unless it is more than a quarter slower.
    #[default]
    Auto,
    /// One write on a file opened with `O_DIRECT | O_DSYNC`.
    Direct,
    /// A write, then `fdatasync`.
    Fdatasync,
}

impl Config {
    /// The defaults, for a data directory.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Config {
            data: data.into(),
            key_file: None,
            listen: LISTEN_DEFAULT,
            ops: OPS_DEFAULT,
            cores: Cores::All,
            routes: None,
            wal_segment_bytes: 64 << 20,
            ring_bytes: 8 << 20,
            lane_orders_max: 65_536,
            connections_max: 16_384,
            orders_in_flight_max: ORDERS_IN_FLIGHT_MAX_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            quantity_max: QUANTITY_MAX_DEFAULT,
            hold_ttl_max_ms: 24 * 60 * 60 * 1000,
            hold_extensions_max: 1,
            holder_holds_max: 0,
            wait_max_ms: 7 * 24 * 60 * 60 * 1000,
            expiry_lead_ms: 1000,
            uses_ahead: 1 << 20,
            uses_ahead_max: 1 << 23,
            checkpoint_segments: 4,
            sync: Sync::Auto,
            unsafe_no_sync: false,
        }
    }

    /// The settings of `flags` (and environment), else of the file, else the defaults.
    pub fn load(flags: Layer, file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = file.map(Layer::read).transpose()?.unwrap_or_default();
        Config::from_layers(flags, file)
    }

    /// Puts `upper` over `lower` and both over the defaults, and checks the sum.
    pub fn from_layers(upper: Layer, lower: Layer) -> Result<Self, ConfigError> {
        let default = Config::new(DATA_DEFAULT);
        let config = Config {
            data: upper.data.or(lower.data).unwrap_or(default.data),
            key_file: upper.key_file.or(lower.key_file),
            listen: upper.listen.or(lower.listen).unwrap_or(default.listen),
            ops: upper.ops.or(lower.ops).unwrap_or(default.ops),
            cores: upper.cores.or(lower.cores).unwrap_or(default.cores),
            routes: upper.routes.or(lower.routes),
            wal_segment_bytes: upper
                .wal_segment_bytes
                .or(lower.wal_segment_bytes)
                .unwrap_or(default.wal_segment_bytes),
            ring_bytes: upper
                .ring_bytes
                .or(lower.ring_bytes)
                .unwrap_or(default.ring_bytes),
            lane_orders_max: upper
                .lane_orders_max
                .or(lower.lane_orders_max)
                .unwrap_or(default.lane_orders_max),
            connections_max: upper
                .connections_max
                .or(lower.connections_max)
                .unwrap_or(default.connections_max),
            orders_in_flight_max: upper
                .orders_in_flight_max
                .or(lower.orders_in_flight_max)
                .unwrap_or(default.orders_in_flight_max),
            frame_bytes_max: upper
                .frame_bytes_max
                .or(lower.frame_bytes_max)
                .unwrap_or(default.frame_bytes_max),
            quantity_max: upper
                .quantity_max
                .or(lower.quantity_max)
                .unwrap_or(default.quantity_max),
            hold_ttl_max_ms: upper
                .hold_ttl_max_ms
                .or(lower.hold_ttl_max_ms)
                .unwrap_or(default.hold_ttl_max_ms),
            hold_extensions_max: upper
                .hold_extensions_max
                .or(lower.hold_extensions_max)
                .unwrap_or(default.hold_extensions_max),
            holder_holds_max: upper
                .holder_holds_max
                .or(lower.holder_holds_max)
                .unwrap_or(default.holder_holds_max),
            wait_max_ms: upper
                .wait_max_ms
                .or(lower.wait_max_ms)
                .unwrap_or(default.wait_max_ms),
            expiry_lead_ms: upper
                .expiry_lead_ms
                .or(lower.expiry_lead_ms)
                .unwrap_or(default.expiry_lead_ms),
            uses_ahead: upper
                .uses_ahead
                .or(lower.uses_ahead)
                .unwrap_or(default.uses_ahead),
            uses_ahead_max: upper
                .uses_ahead_max
                .or(lower.uses_ahead_max)
                .unwrap_or(default.uses_ahead_max),
            checkpoint_segments: upper
                .checkpoint_segments
                .or(lower.checkpoint_segments)
                .unwrap_or(default.checkpoint_segments),
            sync: upper.sync.or(lower.sync).unwrap_or(default.sync),
            unsafe_no_sync: default.unsafe_no_sync,
        };
        config.check()?;
        Ok(config)
    }

    /// The bounds of every number, and why where it is not plain.
    fn check(&self) -> Result<(), ConfigError> {
        let within = |key, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange {
                    key,
                    value,
                    min,
                    max,
                })
            }
        };
        within(
            "wal_segment_bytes",
            self.wal_segment_bytes,
            1 << 20,
            1 << 40,
        )?;
        within("ring_bytes", self.ring_bytes, 64 << 10, 1 << 34)?;
        within("lane_orders_max", self.lane_orders_max.into(), 1, 1 << 24)?;
        within("connections_max", self.connections_max.into(), 1, 1 << 20)?;
        within(
            "orders_in_flight_max",
            self.orders_in_flight_max.into(),
            1,
            1 << 24,
        )?;
        // One card with the longest secret must fit a frame with room for its heads.
        within(
            "frame_bytes_max",
            self.frame_bytes_max.into(),
            8 << 10,
            FRAME_BYTES_MAX_LIMIT.into(),
        )?;
        // What one record of the log can tell.
        within(
            "quantity_max",
            self.quantity_max.into(),
            1,
            QUANTITY_LIMIT.into(),
        )?;
        within(
            "hold_ttl_max_ms",
            self.hold_ttl_max_ms.into(),
            1,
            u32::MAX.into(),
        )?;
        // A request counts them in 16 bits.
        within(
            "hold_extensions_max",
            self.hold_extensions_max.into(),
            0,
            1 << 15,
        )?;
        within("wait_max_ms", self.wait_max_ms.into(), 1, u32::MAX.into())?;
        within(
            "expiry_lead_ms",
            self.expiry_lead_ms.into(),
            0,
            u32::MAX.into(),
        )?;
        let uses_max = VIEW_SLOTS_MAX.into();
        within("uses_ahead", self.uses_ahead.into(), 1, uses_max)?;
        let ahead = self.uses_ahead.into();
        within(
            "uses_ahead_max",
            self.uses_ahead_max.into(),
            ahead,
            uses_max,
        )?;
        within(
            "checkpoint_segments",
            self.checkpoint_segments.into(),
            1,
            1 << 20,
        )
    }
}

/// How many cores deal: `all`, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// Every core this process may run on.
    All,
    /// That many.
    N(u32),
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("all"),
            Cores::N(cores) => cores.fmt(f),
        }
    }
}

/// `cores` that is neither `all` nor a number in range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cores is \"all\" or a number from 1 to {CORES_MAX}, not {0:?}")]
pub struct CoresError(String);

impl FromStr for Cores {
    type Err = CoresError;

    fn from_str(text: &str) -> Result<Self, CoresError> {
        match text.parse::<u32>() {
            _ if text == "all" => Ok(Cores::All),
            Ok(cores @ 1..=CORES_MAX) => Ok(Cores::N(cores)),
            _ => Err(CoresError(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrNumber;
        impl de::Visitor<'_> for TextOrNumber {
            type Value = Cores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"all\" or a number from 1 to {CORES_MAX}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cores, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, cores: i64) -> Result<Cores, E> {
                self.visit_str(&cores.to_string())
            }
        }
        deserializer.deserialize_any(TextOrNumber)
    }
}

/// One source of settings; what it does not say is left to the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The data directory [default: croupier-data]
    #[arg(
        long,
        env = "CROUPIER_DATA",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub data: Option<PathBuf>,
    /// The key file [default: in the data directory]
    #[arg(
        long,
        env = "CROUPIER_KEY_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub key_file: Option<PathBuf>,
    /// Where orders come in; port 0 lets the system choose [default: 127.0.0.1:7733]
    #[arg(
        long,
        env = "CROUPIER_LISTEN",
        value_name = "ADDR:PORT",
        hide_env_values = true
    )]
    pub listen: Option<SocketAddr>,
    /// Where operators ask over HTTP [default: 127.0.0.1:7734]
    #[arg(
        long,
        env = "CROUPIER_OPS",
        value_name = "ADDR:PORT",
        hide_env_values = true
    )]
    pub ops: Option<SocketAddr>,
    /// How many cores deal: a number or "all" [default: all]
    #[arg(
        long,
        env = "CROUPIER_CORES",
        value_name = "N|all",
        hide_env_values = true
    )]
    pub cores: Option<Cores>,
    /// The route table to load at the start, and again on SIGHUP
    #[arg(
        long,
        env = "CROUPIER_ROUTES",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub routes: Option<PathBuf>,
    /// Size of one segment of the log of a new store [default: 67108864]
    #[arg(
        long,
        env = "CROUPIER_WAL_SEGMENT_BYTES",
        value_name = "BYTES",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub wal_segment_bytes: Option<u64>,
    /// Size of the ring between the dealers and the log [default: 8388608]
    #[arg(
        long,
        env = "CROUPIER_RING_BYTES",
        value_name = "BYTES",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub ring_bytes: Option<u64>,
    /// Orders that may wait in one lane of one core [default: 65536]
    #[arg(
        long,
        env = "CROUPIER_LANE_ORDERS_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub lane_orders_max: Option<u32>,
    /// Connections open at once [default: 16384]
    #[arg(
        long,
        env = "CROUPIER_CONNECTIONS_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub connections_max: Option<u32>,
    /// Orders that one connection may have unanswered [default: 65536]
    #[arg(
        long,
        env = "CROUPIER_ORDERS_IN_FLIGHT_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub orders_in_flight_max: Option<u32>,
    /// The largest frame taken or sent [default: 65536]
    #[arg(
        long,
        env = "CROUPIER_FRAME_BYTES_MAX",
        value_name = "BYTES",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub frame_bytes_max: Option<u32>,
    /// The most cards of one order [default: 1000]
    #[arg(
        long,
        env = "CROUPIER_QUANTITY_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub quantity_max: Option<u32>,
    /// The longest time to live of a hold, in milliseconds [default: 86400000, a day]
    #[arg(
        long,
        env = "CROUPIER_HOLD_TTL_MAX_MS",
        value_name = "MS",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub hold_ttl_max_ms: Option<u32>,
    /// How often a hold may be extended [default: 1]
    #[arg(
        long,
        env = "CROUPIER_HOLD_EXTENSIONS_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub hold_extensions_max: Option<u32>,
    /// The most open holds and waiting orders of one holder; 0 = any number [default: 0]
    #[arg(
        long,
        env = "CROUPIER_HOLDER_HOLDS_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub holder_holds_max: Option<u32>,
    /// The longest time that an order may wait for stock, in milliseconds [default: 604800000, a week]
    #[arg(
        long,
        env = "CROUPIER_WAIT_MAX_MS",
        value_name = "MS",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub wait_max_ms: Option<u32>,
    /// How long before it expires a card leaves stock, in milliseconds [default: 1000]
    #[arg(
        long,
        env = "CROUPIER_EXPIRY_LEAD_MS",
        value_name = "MS",
        hide_env_values = true
    )]
    pub expiry_lead_ms: Option<u32>,
    /// Uses that a card that is dealt without end has ahead at first [default: 1048576]
    #[arg(
        long,
        env = "CROUPIER_USES_AHEAD",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub uses_ahead: Option<u32>,
    /// The same in the end: each time it needs more it gets twice as many [default: 8388608]
    #[arg(
        long,
        env = "CROUPIER_USES_AHEAD_MAX",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub uses_ahead_max: Option<u32>,
    /// Sealed segments after which they are folded into a checkpoint [default: 4]
    #[arg(
        long,
        env = "CROUPIER_CHECKPOINT_SEGMENTS",
        value_name = "N",
        hide_env_values = true
    )]
    #[arg(help_heading = "Limits")]
    pub checkpoint_segments: Option<u32>,
    /// How blocks of the log are made durable [default: auto, which tries both]
    #[arg(
        long,
        env = "CROUPIER_SYNC",
        value_name = "auto|direct|fdatasync",
        hide_env_values = true,
        hide_possible_values = true
    )]
    pub sync: Option<Sync>,
}

impl Layer {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Layer::from_toml(&text).map_err(|what| ConfigError::File {
            path: path.to_owned(),
            what,
        })
    }

    /// The error says line, key and what was expected.
    fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }
}

/// Settings that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or may not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file says what it should not.
    #[error("configuration {}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Line, key and what was expected.
        what: String,
    },
    /// A number outside its bounds.
    #[error("{key} is {value}; it must be from {min} to {max}")]
    OutOfRange {
        /// The key; its flag has `-` for `_`.
        key: &'static str,
        /// What was asked for.
        value: u64,
        /// The smallest that works.
        min: u64,
        /// The largest that works.
        max: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(toml: &str) -> Layer {
        Layer::from_toml(toml).expect("valid toml")
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        let config = Config::from_layers(Layer::default(), Layer::default()).expect("valid");
        assert_eq!(config, Config::new("croupier-data"));
        assert_eq!(
            (config.listen.to_string(), config.ops.to_string()),
            ("127.0.0.1:7733".into(), "127.0.0.1:7734".into())
        );
    }

    #[test]
    fn the_upper_layer_wins_key_by_key() {
        let flags = layer("listen = \"0.0.0.0:1\"\ncores = 2\nring_bytes = 65536");
        let file =
            layer("listen = \"127.0.0.1:2\"\ndata = \"d\"\nroutes = \"r.toml\"\nquantity_max = 7");
        let config = Config::from_layers(flags, file).expect("valid");
        let expect = Config {
            listen: "0.0.0.0:1".parse().expect("an address"),
            cores: Cores::N(2),
            ring_bytes: 65_536,
            routes: Some("r.toml".into()),
            quantity_max: 7,
            ..Config::new("d")
        };
        assert_eq!(config, expect);
    }

    #[test]
    fn every_key_can_stand_in_the_file() {
        let all = layer(
            "data = \"a\"\nkey_file = \"b\"\nlisten = \"[::1]:0\"\nops = \"[::1]:0\"\ncores = \"all\"\nroutes = \"c\"\n\
             wal_segment_bytes = 1048576\nring_bytes = 65536\nlane_orders_max = 1\nconnections_max = 1\n\
             orders_in_flight_max = 1\nframe_bytes_max = 8192\nquantity_max = 1\ncheckpoint_segments = 1\n",
        );
        let config = Config::from_layers(all, Layer::default()).expect("valid");
        assert_eq!(config.cores, Cores::All);
        assert_eq!(config.checkpoint_segments, 1);
    }

    #[test]
    fn errors_name_the_key() {
        let check = |toml: &str, expect: &str| {
            let error = match Layer::from_toml(toml) {
                Err(error) => error,
                Ok(layer) => Config::from_layers(layer, Layer::default())
                    .expect_err("an error")
                    .to_string(),
            };
            assert!(error.contains(expect), "{toml:?}: {error}");
        };
        check("lissten = \"127.0.0.1:1\"", "unknown field `lissten`");
        check("unsafe_no_sync = true", "unknown field `unsafe_no_sync`");
        check("listen = \"localhost\"", "listen");
        check("cores = 0", "a number from 1 to 1024");
        check("cores = \"most\"", "\"most\"");
        check(
            "wal_segment_bytes = 1048575",
            "wal_segment_bytes is 1048575; it must be from 1048576 to",
        );
        check("wal_segment_bytes = \"64 MiB\"", "wal_segment_bytes");
        check(
            "quantity_max = 4001",
            "quantity_max is 4001; it must be from 1 to 4000",
        );
        check("lane_orders_max = 0", "lane_orders_max");
        check("frame_bytes_max = 16777217", "frame_bytes_max");
    }
}
