//! The `[[channel]]`s of a table, and how they overflow into each other.

use serde::Deserialize;
use toml::Spanned;

use super::super::CHANNELS_MAX;
use super::outside::{self, OutlierText};
use super::{At as _, Channel, Draft, Fault, Name, OneOrMore, pools};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelText {
    pub name: Spanned<String>,
    pub kind: Option<Spanned<String>>,
    pub pools: Option<Spanned<Vec<Spanned<String>>>>,
    pub overflow: Option<OverflowText>,
    // Of channels that are outside.
    pub pool: Option<Spanned<String>>,
    pub skus: Option<Spanned<OneOrMore>>,
    pub timeout: Option<Spanned<String>>,
    pub jobs: Option<Spanned<i64>>,
    pub outlier: Option<Spanned<OutlierText>>,
    // Of upstreams.
    pub url: Option<Spanned<String>>,
    pub sku_prefix: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverflowText {
    when: Spanned<String>,
    to: Spanned<String>,
}

/// What a channel is, as `kind` says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stock,
    Issuer,
    Upstream,
}

impl ChannelText {
    fn kind(&self) -> Result<Kind, Fault> {
        let Some(kind) = &self.kind else {
            return Ok(Kind::Stock);
        };
        match kind.get_ref().as_str() {
            "stock" => Ok(Kind::Stock),
            "issuer" => Ok(Kind::Issuer),
            "upstream" => Ok(Kind::Upstream),
            other => {
                let reason = format!(
                    "{other:?} is no kind of channel that this version knows: use stock, issuer or upstream"
                );
                Err(Fault(kind.span().start, reason))
            }
        }
    }

    /// No key is one of another kind.
    fn check_keys(&self, kind: Kind) -> Result<(), Fault> {
        fn place<T>(of: &Option<Spanned<T>>) -> Option<usize> {
            of.as_ref().map(|of| of.span().start)
        }
        let of_stock = [("pools", place(&self.pools))];
        let of_outside = [
            ("pool", place(&self.pool)),
            ("skus", place(&self.skus)),
            ("timeout", place(&self.timeout)),
            ("jobs", place(&self.jobs)),
            ("outlier", place(&self.outlier)),
        ];
        let of_upstreams = [
            ("url", place(&self.url)),
            ("sku_prefix", place(&self.sku_prefix)),
        ];
        for (keys, whose, is_ours) in [
            (&of_stock[..], "stock channels", kind == Kind::Stock),
            (&of_outside, "issuers and upstreams", kind != Kind::Stock),
            (&of_upstreams, "upstreams", kind == Kind::Upstream),
        ] {
            let mut there = keys.iter().filter_map(|(key, at)| Some((key, (*at)?)));
            if let Some((key, at)) = there.next().filter(|_| !is_ours) {
                let reason = match (*key, kind) {
                    ("pools", _) => "pools is a key of stock channels: an issuer or an upstream has one, pool = \"…\"".into(),
                    (_, Kind::Stock) => format!(
                        "{key} is a key of {whose}, and this is a channel of local stock: leave it out, or say kind = \"issuer\" or \"upstream\""
                    ),
                    _ => format!("{key} is a key of {whose}, and this is an issuer: leave it out"),
                };
                return Err(Fault(at, reason));
            }
        }
        Ok(())
    }
}

impl Draft {
    pub(super) fn channels(&mut self, texts: &[Spanned<ChannelText>]) -> Result<(), Fault> {
        if let Some(one_too_many) = texts.get(CHANNELS_MAX) {
            let reason = format!("a table has at most {CHANNELS_MAX} [[channel]]s");
            return Err(Fault(one_too_many.span().start, reason));
        }
        for text in texts {
            self.add_channel(text.get_ref())?;
        }
        for (number, text) in texts.iter().enumerate() {
            if let Some(overflow) = &text.get_ref().overflow {
                let mark = self.mark(&overflow.when)?;
                let to = self
                    .channel(overflow.to.get_ref())
                    .at(overflow.to.span().start)?;
                self.channels[number].overflow = Some((mark, to));
            }
        }
        self.check_overflows(texts)
    }

    fn add_channel(&mut self, text: &ChannelText) -> Result<(), Fault> {
        let at = text.name.span().start;
        let name = text.name.get_ref();
        Name::new(name)
            .map_err(|error| format!("{name:?} cannot be the name of a channel: {error}"))
            .at(at)?;
        let kind = text.kind()?;
        text.check_keys(kind)?;
        let number = self.channels.len() as u16;
        if self.by_name.insert(name.clone(), number).is_some() {
            return Err(Fault(at, format!("there are two channels called {name:?}")));
        }
        let channel = match kind {
            Kind::Stock => Channel {
                name: name.clone(),
                pools: pools_of_stock(text)?,
                overflow: None,
                outside: None,
            },
            Kind::Issuer | Kind::Upstream => {
                let outside = outside::read(text, kind)?;
                let pools = vec![outside.pool.clone()];
                self.outside.push(outside);
                Channel {
                    name: name.clone(),
                    pools,
                    overflow: None,
                    // No more than there are channels.
                    outside: Some(self.outside.len() as u16 - 1),
                }
            }
        };
        self.channels.push(channel);
        Ok(())
    }

    /// No channel overflows into itself.
    fn check_overflows(&self, texts: &[Spanned<ChannelText>]) -> Result<(), Fault> {
        for (number, text) in texts.iter().enumerate() {
            let next = |&channel: &u16| {
                let overflow = self.channels[usize::from(channel)].overflow;
                overflow.map(|(_, to)| to)
            };
            let path = std::iter::successors(Some(number as u16), next);
            let path: Vec<u16> = path.take(self.channels.len() + 1).collect();
            if path.len() > self.channels.len() {
                let cycle = path.iter().skip(1).position(|&again| again == path[0]);
                let shown = &path[..cycle.map_or(path.len(), |at| at + 2)];
                let names = shown
                    .iter()
                    .map(|&at| self.channels[usize::from(at)].name.as_str());
                let names: Vec<&str> = names.collect();
                let reason = format!("these overflow in a cycle: {}", names.join(" → "));
                return Err(Fault(text.span().start, reason));
            }
        }
        Ok(())
    }
}

fn pools_of_stock(text: &ChannelText) -> Result<Vec<String>, Fault> {
    match &text.pools {
        Some(names) if names.get_ref().is_empty() => {
            let reason = "a channel without pools has no cards: name one, or leave pools out for the one of the channel's name";
            Err(Fault(text.name.span().start, reason.into()))
        }
        Some(names) => pools(names.get_ref()),
        None => Ok(vec![text.name.get_ref().clone()]),
    }
}
