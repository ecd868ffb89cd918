//! The server's URL: `croupier://host[:port][?name=value&…]`.

use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// The data port of a server that was not told otherwise.
const PORT_DEFAULT: u16 = 7733;
const SCHEME: &str = "croupier://";

/// What a URL says; what it does not say is left to the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// Host and port, as they are resolved.
    pub(crate) addr: String,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) retries: Option<u32>,
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(bad(format!("it must begin with {SCHEME}")));
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        // The text before an `@` may be a password: it is not repeated in the error.
        if authority.contains('@') {
            return Err(bad("a user or password is not supported"));
        }
        if authority.contains(['/', '#']) {
            return Err(bad("a path is not supported"));
        }
        let (host, port) = host_and_port(authority)?;
        let addr = format!("{host}:{port}");
        let mut url = Self {
            addr,
            call_timeout: None,
            connect_timeout: None,
            retries: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            url.set(pair)?;
        }
        Ok(url)
    }
}

impl ServerUrl {
    fn set(&mut self, pair: &str) -> Result<(), Error> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "call_timeout_ms" => {
                self.call_timeout = Some(Duration::from_millis(positive(name, value)?))
            }
            "connect_timeout_ms" => {
                self.connect_timeout = Some(Duration::from_millis(positive(name, value)?))
            }
            "retries" => self.retries = Some(number(name, value)?),
            _ => {
                return Err(bad(format!(
                    "`{name}` is none of call_timeout_ms, connect_timeout_ms and retries"
                )));
            }
        }
        Ok(())
    }
}

fn host_and_port(authority: &str) -> Result<(&str, u16), Error> {
    let after_host = match authority.find(']') {
        Some(bracket) if authority.starts_with('[') => bracket + 1,
        _ => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(after_host);
    if host.is_empty() || host == "[]" {
        return Err(bad("there is no host"));
    }
    if port.is_empty() {
        return Ok((host, PORT_DEFAULT));
    }
    match port.strip_prefix(':').map(str::parse) {
        Some(Ok(port)) if port != 0 => Ok((host, port)),
        _ if port.matches(':').count() > 1 => {
            Err(bad("an IPv6 address stands in brackets, as in [::1]"))
        }
        _ => Err(bad(format!(
            "`{}` is no port (1 to 65535)",
            port.trim_start_matches(':')
        ))),
    }
}

fn number<N: FromStr>(name: &str, value: &str) -> Result<N, Error> {
    value
        .parse()
        .map_err(|_| bad(format!("{name}=`{value}` is no whole number in its range")))
}

fn positive(name: &str, value: &str) -> Result<u64, Error> {
    match number(name, value)? {
        0 => Err(bad(format!("{name} must be at least 1"))),
        ms => Ok(ms),
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::BadUrl { why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, addr: &str) -> ServerUrl {
        let url: ServerUrl = text.parse().unwrap();
        assert_eq!(url.addr, addr);
        url
    }

    #[test]
    fn good_urls() {
        check("croupier://127.0.0.1:7733", "127.0.0.1:7733");
        check("croupier://localhost", "localhost:7733");
        check("croupier://cards.example:81/", "cards.example:81");
        check("croupier://[::1]", "[::1]:7733");
        check("croupier://[::1]:9", "[::1]:9");
        let url = check(
            "croupier://a?call_timeout_ms=5&connect_timeout_ms=6&retries=0",
            "a:7733",
        );
        assert_eq!(url.call_timeout, Some(Duration::from_millis(5)));
        assert_eq!(url.connect_timeout, Some(Duration::from_millis(6)));
        assert_eq!(url.retries, Some(0));
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        let table = [
            ("", "must begin with croupier://"),
            ("http://a", "must begin with croupier://"),
            ("croupier://", "no host"),
            ("croupier://:7733", "no host"),
            ("croupier://[]:7733", "no host"),
            ("croupier://a:", "`` is no port"),
            ("croupier://a:0", "`0` is no port"),
            ("croupier://a:x", "`x` is no port"),
            ("croupier://a:70000", "`70000` is no port"),
            ("croupier://::1", "no host"),
            ("croupier://fe80::1:7733", "brackets"),
            ("croupier://a/b", "path"),
            ("croupier://u:hush@a", "user or password"),
            ("croupier://a?retry=1", "`retry` is none of"),
            ("croupier://a?retries", "retries=`` is no whole number"),
            ("croupier://a?retries=-1", "retries=`-1`"),
            ("croupier://a?call_timeout_ms=0", "at least 1"),
        ];
        for (text, why) in table {
            let error = text.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(
                error.contains(why) && !error.contains("hush"),
                "{text}: {error}"
            );
            assert!(error.contains("write croupier://HOST"), "{error}");
        }
    }
}
