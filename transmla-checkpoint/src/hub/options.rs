//! How the hub is reached.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::observer::HubObserver;

/// How the hub is reached; the caller reads the environment (`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`).
#[derive(Clone, Default)]
pub struct HubOptions {
    /// The cache folder, the one with `models--org--name` folders in it; without one there is no access.
    pub cache: Option<PathBuf>,
    /// Access token for gated repositories, sent to the endpoint's own host alone.
    pub token: Option<String>,
    /// Never use the network; only what is in the cache.
    pub offline: bool,
    /// Another server than the public hub.
    pub endpoint: Option<String>,
    /// A proxy, as a URL.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy, such as `localhost` or `*.example.org`.
    pub no_proxy: Vec<String>,
    /// Timeouts and retries.
    pub timeouts: HubTimeouts,
    /// Receives events.
    pub observer: Option<Arc<dyn HubObserver>>,
}

/// Timeouts and retries of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubTimeouts {
    /// For a connection, name resolution and encryption included.
    pub connect: Duration,
    /// For the headers of an answer.
    pub answer: Duration,
    /// A transfer that brings less than 1 KiB per second over this time counts as stalled.
    pub stall: Duration,
    /// Retries of a request that failed for a temporary reason: no connection, a stall, status 408, 429 or 5xx.
    pub retries: u32,
    /// Pause before the first retry; doubled for each further one.
    pub pause: Duration,
}

impl Default for HubTimeouts {
    /// 10 s, 30 s, 30 s; five retries, the first after half a second.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            retries: 5,
            pause: Duration::from_millis(500),
        }
    }
}

impl HubOptions {
    /// Tells the observer, if there is one.
    #[cfg(feature = "hub")]
    pub(super) fn tell(&self, event: &super::observer::HubEvent<'_>) {
        if let Some(observer) = &self.observer {
            observer.event(event);
        }
    }
}

impl fmt::Debug for HubOptions {
    /// Without the token, nor a password of the proxy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("HubOptions")
            .field("cache", &self.cache)
            .field("token", &shown(&self.token))
            .field("offline", &self.offline)
            .field("endpoint", &self.endpoint)
            .field("proxy", &shown(&self.proxy))
            .field("no_proxy", &self.no_proxy)
            .field("timeouts", &self.timeouts)
            .field("observer", &self.observer.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let options = HubOptions {
            token: Some("hf_secret".into()),
            proxy: Some("http://me:hf_secret@proxy:1".into()),
            ..HubOptions::default()
        };
        let text = format!("{options:?}");
        assert!(!text.contains("hf_secret") && text.contains("token"), "{text}");
    }
}
